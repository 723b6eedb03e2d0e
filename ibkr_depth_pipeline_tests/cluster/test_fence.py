"""A take-over and the replicas: a failover right after it must not let a predecessor in again."""

from __future__ import annotations

import contextlib

import redis
from structlog.testing import capture_logs

from ibkr_depth_pipeline.box.embedded_redis import HOST, EmbeddedRedis
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.stream_fence import newest_ids, raise_positions
from ibkr_depth_pipeline_tests.cluster.filling import SYMBOLS, fill
from ibkr_depth_pipeline_tests.cluster.servers import Servers, ask
from ibkr_depth_pipeline_tests.sink.writing import reading

NOW = 1_800_000_000_000


async def test_replicas_have_the_fence_when_a_takeover_is_done(several: Servers) -> None:
    with several.client() as client:
        fill(client, 3)
    sink = open_redis(several.url)
    with capture_logs() as lines:
        raised = await raise_positions(sink, [*SYMBOLS, "NEW"], NOW, 1)
    assert not lines
    assert {each.seq for each in raised.values()} == {3, 0}
    replicas = [server for server in several.servers if ask(server.port, "ROLE")[0] == b"slave"]
    fences = {symbol: fence for server in replicas for symbol, fence in _fences(server).items()}
    assert fences == {symbol: f"{NOW}-{position.seq}" for symbol, position in raised.items()}
    assert await newest_ids(sink, raised) == raised
    await sink.aclose()


def _fences(server: EmbeddedRedis) -> dict[str, str]:
    """The last id of each stream, by symbol, as this replica has it."""
    with redis.Redis(HOST, server.port) as client:
        with contextlib.suppress(redis.ResponseError):  # out of a cluster nobody has to say so
            client.execute_command("READONLY")
        ids = {key.decode(): client.xinfo_stream(key)["last-generated-id"] for key in client.keys(stream_key("*"))}
    return {key.removeprefix(stream_key("")): last.decode() for key, last in ids.items()}


async def test_too_few_replicas_are_told_and_keep_nobody_from_recording(redis_server: EmbeddedRedis) -> None:
    async with reading(redis_server.url) as client:
        await client.set(stream_key("BAD"), "not a stream")
        with capture_logs() as lines:
            raised = await raise_positions(client, ["SPY", "BAD", "QQQ"], NOW, 1)
        assert {symbol: (each.ts, each.seq) for symbol, each in raised.items()} == {
            "SPY": (NOW, 0),
            "BAD": (0, 0),
            "QQQ": (NOW, 0),
        }
    (told,) = [line for line in lines if line["event"] == "fence_not_replicated"]
    assert told["symbols"] == ["SPY", "QQQ"]
    assert told["error"] == "not replicated: 0 of 1 replicas have it"
