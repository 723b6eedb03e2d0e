"""Masters that stay dead: what is theirs waits, by itself while others live."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.schema.keys import heartbeat_key, last_key, stream_key
from ibkr_depth_pipeline.sink import writer as sink_writer
from ibkr_depth_pipeline_tests.cluster.servers import ClusterOfRedis
from ibkr_depth_pipeline_tests.cluster.truth import eventually, secs_until_stored
from ibkr_depth_pipeline_tests.sink.writing import DRAIN, snapshots, writing

SYMBOLS = [f"S{number}" for number in range(20)]


async def test_lone_row_does_not_wait_for_a_dead_master(
    cluster: ClusterOfRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = cluster.master_of(stream_key("S0"))
    keys = (stream_key, last_key, heartbeat_key)
    other = next(symbol for symbol in SYMBOLS if all(cluster.master_of(key(symbol)) is not dead for key in keys))
    cluster.replica_of(dead).kill()
    dead.kill()
    monkeypatch.setattr(sink_writer, "RETRIES", Backoff(300.0, 300.0))  # for all; longer than the test may last
    async with writing(cluster.url) as writer:
        for snapshot in snapshots("S0", count=6):
            writer.append(snapshot)
        await eventually(lambda: writer.figures.write_failures)
        for snapshot in snapshots(other, count=6):
            await secs_until_stored(writer, snapshot)
        monkeypatch.undo()
        cluster.heal()
        assert await writer.drain(DRAIN)


async def test_absence_of_every_master_is_logged_once_a_flush(cluster: ClusterOfRedis) -> None:
    for server in cluster.servers:
        server.kill()
    async with writing(cluster.url) as writer:
        with capture_logs() as logged:
            for symbol in SYMBOLS:
                for snapshot in snapshots(symbol):
                    writer.append(snapshot)
            await eventually(lambda: [line for line in logged if line.get("waiting") == 200])
        cluster.heal()
        assert await writer.drain(DRAIN)
