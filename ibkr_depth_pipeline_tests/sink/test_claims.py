"""Two ingests of two names never write one symbol's stream: the newcomer is refused by name, before it writes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis.asyncio
from structlog.testing import capture_logs

from ibkr_depth_pipeline.errors import StreamHeld
from ibkr_depth_pipeline.schema.keys import claim_key, stream_key
from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.sink.claims import StreamClaims
from ibkr_depth_pipeline_tests.faults.ingest_process import environment_of, grows, ingest_process
from ibkr_depth_pipeline_tests.sink.writing import eventually, identity, reading


def claims(client: redis.asyncio.Redis, name: str, *symbols: str, run: str = "", ttl_secs: float = 60) -> StreamClaims:
    return StreamClaims(client, name, identity(run or f"run-{name}"), symbols, ttl_secs)


async def test_newcomer_of_another_name_learns_which_symbol_is_whose(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        first = claims(client, "west", "SPY", "QQQ", ttl_secs=2)
        await first.acquire()
        keeping = asyncio.ensure_future(first.keep())
        second = claims(client, "east", "AAPL", "SPY", "IWM", ttl_secs=2)
        with pytest.raises(StreamHeld, match=r"SPY is recorded already.*west.*run run-west on host-of-run-west, pid 1"):
            await second.acquire()
        await second.release()
        assert await client.exists(claim_key("AAPL"), claim_key("IWM")) == 0
        assert not keeping.done()
        keeping.cancel()
        await first.release()
        assert await client.exists(claim_key("SPY"), claim_key("QQQ")) == 0


async def test_names_with_no_symbol_in_common_do_not_disturb(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        await claims(client, "west", "SPY").acquire()
        await claims(client, "east", "QQQ").acquire()
        assert b"west" in await client.get(claim_key("SPY"))
        assert b"east" in await client.get(claim_key("QQQ"))


async def test_run_of_the_same_name_takes_over_its_predecessors_claims(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        await claims(client, "west", "SPY", "QQQ", run="one").acquire()
        await claims(client, "west", "SPY", run="two").acquire()
        assert b'"run_id":"two"' in await client.get(claim_key("SPY"))


async def test_claim_of_a_dead_holder_is_taken_once_its_time_is_over(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        await claims(client, "west", "SPY", ttl_secs=2).acquire()  # never renewed
        await claims(client, "east", "SPY", ttl_secs=2).acquire()
        assert b'"gateway":"east"' in await client.get(claim_key("SPY"))


@pytest.mark.parametrize("attempt", range(5))
async def test_two_ingests_that_start_at_once_leave_all_streams_to_exactly_one(
    shared_redis_url: str, attempt: int
) -> None:
    symbols = [f"S{number}" for number in range(600)]
    async with reading(shared_redis_url) as one, reading(shared_redis_url) as two:
        pair = claims(one, "west", *symbols, ttl_secs=2), claims(two, "east", *reversed(symbols), ttl_secs=2)

        async def start(each: StreamClaims) -> bool:
            try:
                await each.acquire()
            except StreamHeld:
                await each.release()
                return False
            keepers.append(asyncio.ensure_future(each.keep()))
            return True

        keepers: list[asyncio.Future[None]] = []
        got = await asyncio.gather(*map(start, pair))
        assert sorted(got) == [False, True]
        winner = b"west" if got[0] else b"east"
        holders = await one.mget([claim_key(symbol) for symbol in symbols])
        assert all(winner in (holder or b"") for holder in holders)
        for keeper in keepers:
            keeper.cancel()


async def test_living_holder_takes_vanished_claims_again(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        first = claims(client, "west", "SPY", "QQQ", ttl_secs=300)
        await first.acquire()
        keeping = asyncio.ensure_future(first.keep())
        with capture_logs() as logged:
            waiting = asyncio.ensure_future(claims(client, "east", "SPY", ttl_secs=300).acquire(600))

            async def stands_by() -> bool:
                return any(line["event"] == "stream_held" for line in logged)

            await eventually(stands_by)
        await client.flushall()

        async def claimed_again() -> bool:
            return b"west" in (await client.get(claim_key("SPY")) or b"")

        await eventually(claimed_again)
        assert not waiting.done()
        for task in (waiting, keeping):
            task.cancel()


async def test_claim_of_another_type_holds_up_nothing(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        await client.hset(claim_key("SPY"), "a", "b")
        await client.set(claim_key("QQQ"), "no json", px=100)
        await claims(client, "west", "SPY", "QQQ", ttl_secs=2).acquire()
        assert await client.hgetall(claim_key("SPY")) == {b"a": b"b"}
        assert b"west" in await client.get(claim_key("QQQ"))


async def test_recorder_of_another_name_exits_before_it_writes_and_the_first_goes_on(
    shared_redis_url: str, tmp_path: Path
) -> None:
    with GatewayThread(GatewayOptions()) as gateway:
        environment = environment_of(tmp_path, gateway.port, shared_redis_url, "SPY", "QQQ")
        with ingest_process(tmp_path, "west", {**environment, "IBKR_GATEWAY_NAME": "west"}) as west:
            grows(shared_redis_url, "SPY", 20)
            with ingest_process(tmp_path, "east", {**environment, "IBKR_GATEWAY_NAME": "east"}) as east:
                assert east.ended() == 1
                text = east.log_path.read_text()
                assert "is recorded already" in text
                assert "IBKR_GATEWAY_NAME=west" in text
                assert f"pid {west.pid}" in text
                assert not east.lines("subscribed")
            grows(shared_redis_url, "SPY", 20)
            assert not west.lines("redis_write_failed")
        async with reading(shared_redis_url) as client:
            numbers = [int(fields[b"seq"]) for _, fields in await client.xrange(stream_key("SPY"))]
        assert numbers == list(range(1, len(numbers) + 1))
