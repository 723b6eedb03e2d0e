"""A standby that takes over from a killed recorder makes the tape of its last minutes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.tape.files import read_head
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.faults.test_standby import Pair
from ibkr_depth_pipeline_tests.flight_recorder.dumping import rows_behind, tapes


@pytest.mark.faults
def test_standby_makes_the_tape_of_the_recorder_that_was_killed_and_none_of_one_that_lives(
    redis_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "tapes"
    settings = {"ibkr_flight_recorder_minutes": 1, "ibkr_flight_recorder_dir": folder}
    with GatewayThread(GatewayOptions()) as gateway, ExitStack() as stack:
        pair = Pair(tmp_path, redis_url, gateway, stack, **settings)
        first, second = pair.recording(), pair.waiting()
        assert not tapes(folder)
        first.kill()
        pair.took_over(second)
        assert wait_until(lambda: bool(tapes(folder, "killed")), PATIENCE_SECS)
        pair.end(second)
    (tape,) = tapes(folder, "killed")
    assert read_head(tape)["why"][0]["reason"] == "killed"
    assert rows_behind(tape) > 50
