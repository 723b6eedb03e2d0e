"""A tape of the flight recorder is an event of the run that wrote it, with its path and why it was written."""

from __future__ import annotations

import threading
from pathlib import Path

import dagster as dg
import pytest
import redis

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.tape.files import read_head
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.dagster.conftest import FEED, SYMBOLS, execute


def test_tape_is_an_observation_of_the_feed_in_the_log_of_its_run(
    environment: dict[str, str],
    gateway: GatewayThread,
    shared_redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("IBKR_FLIGHT_RECORDER_MINUTES", "1")
    monkeypatch.setenv("IBKR_FLIGHT_RECORDER_DIR", str(tmp_path / "tapes"))

    def drop() -> None:
        with redis.Redis.from_url(shared_redis_url) as store:
            wait_until(lambda: bool(store.xlen(stream_key(SYMBOLS[0]))), PATIENCE_SECS)
            gateway.do(lambda running: running.drop_connections())

    dropping = threading.Thread(target=drop)
    with dg.DagsterInstance.ephemeral() as instance:
        dropping.start()
        result = execute(instance, duration=4.0)
        dropping.join()
        records = instance.fetch_observations(FEED, limit=100).records
        tapes = [each.asset_observation.metadata for each in records if each.asset_observation]
        (metadata,) = [each for each in tapes if "tape" in each]
        assert [each.run_id for each in records] == [result.run_id]
    (path,) = (tmp_path / "tapes").glob("*-reconnect-0001.tape.gz")
    assert metadata["tape"].value == str(path)
    assert "reconnect" in str(metadata["tape_why"].value)
    assert [why["reason"] for why in read_head(path)["why"]] == ["reconnect"]
