"""A storm of faults makes few tapes, and a full disk costs the tapes alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ibkr_depth_pipeline.ingest import wire_trace
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.sink.dump_requests import ask_for_dump
from ibkr_depth_pipeline.tape.files import read_head
from ibkr_depth_pipeline_tests.flight_recorder.dumping import flown, tapes

pytestmark = [pytest.mark.faults]

STORM_SECS = 20


async def test_storm_of_reconnects_makes_few_tapes_that_name_them_all(
    shared_redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=200)) as gateway:
        async with flown(gateway, shared_redis_url, tmp_path, "SPY", ibkr_flight_recorder_keep=2) as run:
            until = asyncio.get_running_loop().time() + STORM_SECS
            losses = 0
            while asyncio.get_running_loop().time() < until:
                await run.grows("SPY", 5)
                losses += gateway.drop_connections()
            await run.grows("SPY", 20)
    said = [line for line in capsys.readouterr().out.splitlines() if "tape_dumped" in line]
    assert losses > len(said)
    assert len(said) <= 7  # at 0, 1, 3, 7 and 15 s, as many as the ring has seconds; and one at the end
    assert len(tapes(tmp_path)) == 2
    assert any(why["times"] > 1 for tape in tapes(tmp_path) for why in read_head(tape)["why"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB. Making one needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or _mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*words: str) -> int:
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode


async def test_full_disk_costs_the_tapes_and_no_row_and_they_are_had_again_once_it_has_room(
    shared_redis_url: str, small_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_trace, "RETRY_SECS", 0.5)
    said = ""

    async def has_said(event: str) -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return event in said

    (small_disk / "other").write_bytes(b"x" * 1_900_000)
    async with SimulatedGateway(GatewayOptions(rows_per_second=2000)) as gateway:
        folder = small_disk / "flight"
        async with flown(gateway, shared_redis_url, folder, "SPY", ibkr_flight_recorder_minutes=1) as run:
            await run.until(lambda: has_said("flight_recorder_failed"))
            await run.grows("SPY", 500)
            (small_disk / "other").unlink()
            await run.until(lambda: has_said("flight_recorder_resumed"))
            await run.grows("SPY", 500)
            answer = await ask_for_dump(shared_redis_url, "default", "a test")
            summary = await run.stop()
    assert read_head(Path(answer.path))["why"][0]["reason"] == "asked"
    assert summary.drained
    assert summary.rows == summary.snapshots
    assert summary.connections == 1
