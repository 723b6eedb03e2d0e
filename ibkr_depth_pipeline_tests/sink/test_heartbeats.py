"""A heartbeat stands for a book that a reader can see, no longer than its TTL after the book was known to be live."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.schema.keys import heartbeat_key, last_key, stream_key
from ibkr_depth_pipeline_tests.sink.writing import DRAIN, eventually, now_ms, reading, snapshots, writing

HEARTBEAT = heartbeat_key("SPY")


@pytest.mark.parametrize("key", [stream_key("SPY"), last_key("SPY")])
async def test_answer_of_the_gateway_sets_no_heartbeat_while_rows_are_not_stored(
    shared_redis_url: str, key: str
) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        await client.set(key, "of another type")
        for snapshot in snapshots(count=3, ts=now_ms()):
            writer.append(snapshot)
        await eventually(lambda: failed(writer.figures.write_failures))
        writer.beat("SPY", now_ms())
        assert not await writer.drain(0.3)
        assert await client.exists(HEARTBEAT) == 0
        await client.delete(key)
        assert await writer.drain(DRAIN)
        assert await client.exists(HEARTBEAT) == 1


async def failed(count: int) -> bool:
    return count > 0


async def test_quiet_book_keeps_its_heartbeat_as_long_as_the_gateway_answers(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        last_row = now_ms() - 3_600_000
        writer.beat("SPY", last_row)
        assert await writer.drain(DRAIN)
        assert await client.get(HEARTBEAT) == b"%d" % last_row
        assert await client.ttl(HEARTBEAT) > writer.heartbeat_ttl - 5


async def test_late_heartbeat_lasts_for_the_rest_of_its_time(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        writer.heartbeat_ttl = 600
        writer.append(next(snapshots(ts=now_ms() - 400_000)))
        assert await writer.drain(DRAIN)
        assert 0 < await client.ttl(HEARTBEAT) <= 200


async def test_book_that_may_be_dead_by_now_gets_no_heartbeat(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        writer.append(next(snapshots(ts=now_ms() - 1000 * writer.heartbeat_ttl)))
        assert await writer.drain(DRAIN)
        assert await client.exists(stream_key("SPY"), last_key("SPY"), HEARTBEAT) == 2


async def test_shrunk_batch_lengthens_standing_heartbeats_and_revives_none(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        await client.set(HEARTBEAT, 1_700_000_000_000, ex=30)
        writer.heartbeat_ttl = 150
        await writer.extend_heartbeats({"SPY": 1_700_000_000_000, "QQQ": 1_700_000_000_000}, 1_700_000_010_000)
        assert 130 < await client.ttl(HEARTBEAT) <= 140
        assert await client.exists(heartbeat_key("QQQ")) == 0


async def test_grown_batch_shortens_no_heartbeat_of_a_quiet_live_book(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        await client.set(HEARTBEAT, 1_700_000_000_000, ex=150)
        writer.heartbeat_ttl = 200
        await writer.extend_heartbeats({"SPY": 1_700_000_000_000}, 1_700_000_190_000)
        assert await client.ttl(HEARTBEAT) > 100
