"""Intervals of subscriptions beside a simulated gateway, whose journal is the truth."""

from __future__ import annotations

import redis.asyncio as redis

from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline_tests.end_to_end.observed import (
    assert_holds,
    assert_numbered,
    assert_sent,
    intervals_of,
    lines_of,
    open_interval_of,
    stored_ids,
)
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, universe_of

FAST = {"ibkr_rotation_secs": 0.4, "ibkr_error309_cooldown_secs": 0.2, "ibkr_first_row_secs": 2}


async def observed(client: redis.Redis, gateway: SimulatedGateway, symbol: str) -> list[SubscriptionInterval]:
    """The symbol's intervals, each of which is all that one request brought."""
    intervals = await intervals_of(client, symbol)
    lines = [line for line in lines_of(gateway.journal.entries()) if line.symbol == symbol]
    assert_numbered(intervals)
    assert_holds(intervals, await stored_ids(client, symbol))
    for interval, line in zip(intervals, lines, strict=True):
        assert_sent(interval, line)
    return intervals


async def test_turns_leave_the_intervals_that_the_gateway_saw(shared_redis_url: str) -> None:
    symbols = ["SPY", "QQQ", "IWM", "AAPL", "MSFT"]
    async with SimulatedGateway(GatewayOptions(rows_per_second=200)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of(*symbols), **FAST) as run:

            async def has_turns() -> bool:
                return all([len(await intervals_of(run.redis, symbol)) >= 2 for symbol in symbols])

            await run.until(has_turns)
            await run.stop()
            ends = set()
            for symbol in symbols:
                intervals = await observed(run.redis, gateway, symbol)
                assert await open_interval_of(run.redis, symbol) is None
                assert all(each.con_id and each.venue and each.server_version for each in intervals)
                assert all(each.complete for each in intervals if each.rows > 100)
                ends |= {each.end for each in intervals}
            assert ends == {EndReason.TURN_OVER, EndReason.STOPPED}


async def test_numbers_go_on_across_runs(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        for number in (1, 2, 3):
            async with recording(gateway, shared_redis_url, universe_of("SPY"), **FAST) as run:
                await run.grows("SPY", 30)

                async def is_open(number: int = number) -> bool:
                    found = await open_interval_of(run.redis, "SPY")
                    return found is not None and found.subscription >= number and bool(found.complete)

                await run.until(is_open)
                await run.stop()
                intervals = await observed(run.redis, gateway, "SPY")
                assert intervals[-1].end is EndReason.STOPPED
        assert len(intervals) >= 3


async def test_slot_refusal_leaves_an_interval_without_rows(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=50, slots=2)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ", "IWM"), **FAST) as run:

            async def refused() -> list[SubscriptionInterval]:
                every = [each for symbol in ("SPY", "QQQ", "IWM") for each in await intervals_of(run.redis, symbol)]
                return [each for each in every if each.end is EndReason.SLOT_REFUSED]

            await run.until(refused)
            await run.stop()
            for each in await refused():
                assert each.first_row is each.complete is each.until is each.first_seq is each.last_seq is None
                assert each.rows == 0
            for symbol in ("SPY", "QQQ", "IWM"):
                await observed(run.redis, gateway, symbol)
