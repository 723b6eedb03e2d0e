"""Whoever is cancelled while it talks to Redis ends, at whatever point it is hit, and the client is good afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE
from ibkr_depth_pipeline.redis_link.pipeline import ask
from ibkr_depth_pipeline.sink import connection
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.sink.writing import identity

TIMES = 400


async def _for_ever(client: Any) -> None:
    number = 0
    while True:
        number += 1
        await ask(client, [("SET", "key", number)] * 5)
        assert int(await client.get("key")) == number


async def test_redis_query_can_be_cancelled_at_any_await(shared_redis_url: str) -> None:
    client = open_redis(shared_redis_url)
    for steps in range(TIMES):
        task = asyncio.ensure_future(_for_ever(client))
        for _ in range(steps % 40):  # turns of the event loop, so that each await is hit
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_SECS)
        assert task.cancelled()
    assert await client.set("key", "good")
    assert await client.get("key") == b"good"
    await client.aclose()


async def test_keeping_of_a_lease_can_be_cancelled_at_any_await(
    shared_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_redis(shared_redis_url)
    lease = Lease(client, "default", identity("one"), 2)
    monkeypatch.setattr("ibkr_depth_pipeline.sink.lease.LONGEST_INTERVAL_SECS", 0.0)
    await lease.acquire()
    for steps in range(TIMES):
        task = asyncio.ensure_future(lease.keep())
        for _ in range(steps % 20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE_SECS)
        assert task.cancelled()
    await lease.release()
    await client.aclose()


async def test_redis_that_does_not_answer_is_waited_for_up_to_the_limit(
    redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_SECS", 0.2)
    client = open_redis(redis_server.url)
    await client.set("key", "good")
    redis_server.pause()
    with pytest.raises(UNREACHABLE, match="no answer within"):
        await client.get("key")
    with pytest.raises(UNREACHABLE, match="no answer within"):
        await ask(client, [("GET", "key")] * 3)
    redis_server.resume()
    assert await ask(client, [("GET", "key")] * 3) == [b"good"] * 3
    await client.aclose()
