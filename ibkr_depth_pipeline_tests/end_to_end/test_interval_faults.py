"""Intervals when the gateway halts, resets, refuses, loses IBKR, freezes or goes away: equal to its own journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import ingest_key, venue_key
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.simulation import GatewayOptions, ReplayOptions, ReplayPace, SimulatedGateway
from ibkr_depth_pipeline_tests.end_to_end.observed import (
    SentLine,
    assert_holds,
    assert_numbered,
    assert_sent,
    intervals_of,
    lines_of,
    open_interval_of,
    stored_ids,
)
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, universe_of

LONG_TURNS: dict[str, Any] = {"ibkr_rotation_secs": 3600}
FAST_LINK: dict[str, Any] = {"ibkr_stall_secs": 2, "ibkr_connect_timeout_secs": 2, "ibkr_reconnect_max_secs": 1}


async def ended(run: Recording, symbol: str, reason: EndReason) -> SubscriptionInterval:
    """Wait for an interval of `symbol` that ended so."""
    found: list[SubscriptionInterval] = []

    async def is_there() -> bool:
        found[:] = [each for each in await intervals_of(run.redis, symbol) if each.end is reason]
        return bool(found)

    await run.until(is_there)
    return found[0]


async def observed(run: Recording, gateway: SimulatedGateway, symbol: str) -> list[SubscriptionInterval]:
    """All intervals of a run that is over, in order."""
    await run.stop()
    intervals = await intervals_of(run.redis, symbol)
    assert_numbered(intervals)
    assert_holds(intervals, await stored_ids(run.redis, symbol))
    assert await open_interval_of(run.redis, symbol) is None
    return intervals


def lines(gateway: SimulatedGateway, symbol: str) -> list[SentLine]:
    return [line for line in lines_of(gateway.journal.entries()) if line.symbol == symbol]


def error_at(gateway: SimulatedGateway, code: int) -> float:
    """When the gateway sent its first error of that code, unix ms."""
    return gateway.journal.errors(code)[0].at * 1000


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda gateway: gateway.drop_connections(), EndReason.CONNECTION_LOST),
        pytest.param(lambda gateway: gateway.cut_message(), EndReason.CONNECTION_LOST, marks=pytest.mark.faults),
        (lambda gateway: gateway.halt("SPY"), EndReason.HALTED),
    ],
    ids=["reset_connection", "half_a_message", "halt"],
)
async def test_line_that_ends_leaves_its_interval_and_the_next_begins(
    shared_redis_url: str, fault: Callable[[SimulatedGateway], object], reason: EndReason
) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=200)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **LONG_TURNS, **FAST_LINK) as run:
            await run.grows("SPY", 60)
            fault(gateway)
            await ended(run, "SPY", reason)
            await run.grows("SPY", 60)
            intervals = await observed(run, gateway, "SPY")
    assert [each.end for each in intervals] == [reason, EndReason.STOPPED]
    for interval, line in zip(intervals, lines(gateway, "SPY"), strict=True):
        assert_sent(interval, line)
        assert interval.complete is not None


async def test_frozen_gateway_is_observed_until_its_last_row_and_no_longer(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=200)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **LONG_TURNS, **FAST_LINK) as run:
            await run.grows("SPY", 60)
            gateway.stall()
            lost = await ended(run, "SPY", EndReason.CONNECTION_LOST)
            gateway.resume()
            await run.grows("SPY", 60)
            intervals = await observed(run, gateway, "SPY")
            last_ts = {seq: ts for ts, seq in await stored_ids(run.redis, "SPY")}[lost.last_seq or 0]
    assert_sent(intervals[0], lines(gateway, "SPY")[0])
    assert lost.until is not None
    assert intervals[1].requested - lost.until > 1000, "the silence before the loss was noticed is not observed"
    assert lost.until - last_ts < 1000


async def test_reset_of_a_book_ends_one_interval_and_begins_the_next_on_the_same_line(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=200)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **LONG_TURNS) as run:
            await run.grows("SPY", 60)
            gateway.reset_book("SPY")
            await ended(run, "SPY", EndReason.RESET)
            await run.grows("SPY", 60)
            first, second = await observed(run, gateway, "SPY")
    [line] = lines(gateway, "SPY")
    assert first.rows + second.rows <= len(line.sent)
    assert (first.end, second.end) == (EndReason.RESET, EndReason.STOPPED)
    assert second.first_seq == (first.last_seq or 0) + 1
    assert second.rows == (second.last_seq or 0) - second.first_seq, "the empty book is no row"
    assert second.complete is not None
    assert second.first_row is not None
    assert second.first_row >= int(error_at(gateway, 317))


@pytest.mark.parametrize("data_lost", [False, True])
async def test_outage_of_ibkr_is_not_observed(shared_redis_url: str, data_lost: bool) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=200)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ"), **LONG_TURNS) as run:
            await asyncio.gather(run.grows("SPY", 60), run.grows("QQQ", 60))
            gateway.connectivity_lost()
            quiet = await run.length("SPY")

            async def is_long() -> bool:  # an outage shorter than a second is no gap
                return asyncio.get_running_loop().time() >= over

            over = asyncio.get_running_loop().time() + 1.5
            await run.until(is_long)
            gateway.connectivity_restored(data_lost=data_lost)
            doubted = await ended(run, "SPY", EndReason.IN_DOUBT)
            await run.grows("SPY", 60)
            first, second = await observed(run, gateway, "SPY")
    assert first == doubted
    assert first.until is not None
    assert second.first_row is not None
    assert first.until <= error_at(gateway, 1100) + 1000
    assert second.first_row >= int(error_at(gateway, 1101 if data_lost else 1102))
    assert first.rows == (first.last_seq or 0) >= quiet
    assert len(lines(gateway, "SPY")) == 1 + data_lost
    assert second.complete is not None
    if not data_lost:
        assert second.complete == second.first_row, "the book was whole before, and its line went on"


async def test_refused_symbol_leaves_intervals_without_rows(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100, refusals={"SPY": 354})) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ"), **LONG_TURNS) as run:
            await ended(run, "SPY", EndReason.REFUSED)
            await run.grows("QQQ", 30)
            intervals = await observed(run, gateway, "SPY")
    for interval, line in zip(intervals, lines(gateway, "SPY"), strict=True):
        assert_sent(interval, line)
        assert interval.end is EndReason.REFUSED
        assert (interval.rows, interval.first_row, interval.until) == (0, None, None)


async def test_book_out_of_step_is_observed_only_until_it_was(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=200)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("AAPL"), **LONG_TURNS) as run:
            await run.grows("AAPL", 100)
            gateway.double_side("AAPL", side="bid")
            wrong = await ended(run, "AAPL", EndReason.OUT_OF_STEP)
            await run.grows("AAPL", 60)
            await run.stop()
            intervals = await intervals_of(run.redis, "AAPL")
    assert_numbered(intervals)
    assert intervals[0] == wrong
    [fault] = gateway.journal.entries("out_of_step")
    assert wrong.until is not None
    assert wrong.until <= fault.at * 1000 + 1000, "checks find it a while after it began"


async def test_turns_while_redis_is_away_are_stored_when_it_is_back(redis_server: EmbeddedRedis) -> None:
    symbols, fast = ("SPY", "QQQ", "IWM"), {"ibkr_rotation_secs": 0.3, "ibkr_max_concurrent_depth": 1}
    async with SimulatedGateway(GatewayOptions(rows_per_second=300)) as gateway:
        async with recording(gateway, redis_server.url, universe_of(*symbols), **fast) as run:
            await run.grows("SPY", 30)
            await asyncio.to_thread(redis_server.pause)
            turns = len(gateway.journal.requests("cancelMktDepth"))
            await gateway.wait_for(lambda: len(gateway.journal.requests("cancelMktDepth")) >= turns + 5)
            await asyncio.to_thread(redis_server.resume)
            await ended(run, "IWM", EndReason.TURN_OVER)
            for symbol in symbols:
                intervals = await observed(run, gateway, symbol)
                assert intervals
                for interval, line in zip(intervals, lines(gateway, symbol), strict=True):
                    assert_sent(interval, line)


async def test_unit_of_sizes_is_recorded_and_a_change_since_the_last_run_is_an_alert(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=200)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **LONG_TURNS) as run:
            await run.grows("SPY", 30)
            await run.stop()
            fields = await run.redis.hgetall(venue_key("SPY"))
            assert (fields[b"min_size"], fields[b"size_increment"], fields[b"server_version"]) == (
                b"1.0",
                b"1.0",
                b"176",
            )
            assert fields[b"depth_supported"] == b"1"
            await run.redis.hset(venue_key("SPY"), "min_size", "100.0")
        with capture_logs() as log:
            async with recording(gateway, shared_redis_url, universe_of("SPY"), **LONG_TURNS) as run:
                await run.grows("SPY", 30)

                async def is_shown() -> bool:
                    figures = FeedFigures.of_json(await run.redis.get(ingest_key("default")))
                    return figures is not None and figures.size_changes == "SPY: the least size is 1, it was 100"

                await run.until(is_shown)
                first, second = await observed(run, gateway, "SPY")
    assert [line["symbol"] for line in log if line["event"] == "size_unit_changed"] == ["SPY"]
    assert (first.min_size, first.size_increment, first.server_version) == (1.0, 1.0, 176)
    assert (second.min_size, second.size_increment, second.server_version) == (1.0, 1.0, 176)


async def test_line_without_rows_at_the_end_of_its_turn_leaves_an_interval(shared_redis_url: str) -> None:
    options = GatewayOptions(rows_per_second=100, silent_symbols=frozenset({"SPY"}))
    fast = {"ibkr_rotation_secs": 0.3, "ibkr_first_row_secs": 0.5, "ibkr_max_concurrent_depth": 1}
    async with SimulatedGateway(options) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ"), **fast) as run:
            await ended(run, "SPY", EndReason.TURN_OVER)
            intervals = await observed(run, gateway, "SPY")
    for interval, line in zip(intervals, lines(gateway, "SPY"), strict=True):
        assert_sent(interval, line)
        assert interval.first_row is None


async def test_book_is_complete_with_the_last_row_of_both_full_sides(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=0)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **LONG_TURNS) as run:
            await run.grows("SPY", 30)
            [interval] = await observed(run, gateway, "SPY")
            last_ts, _ = (await stored_ids(run.redis, "SPY"))[-1]
    assert interval.complete == last_ts
    assert interval.rows == 30
    assert interval.rows_requested == 15


async def test_turn_of_a_quiet_market_is_observed_until_its_cancel(shared_redis_url: str) -> None:
    fast = {"ibkr_rotation_secs": 1, "ibkr_max_concurrent_depth": 1}
    async with SimulatedGateway(GatewayOptions(rows_per_second=0)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ"), **fast) as run:
            await ended(run, "SPY", EndReason.TURN_OVER)
            await ended(run, "QQQ", EndReason.TURN_OVER)
            intervals = await observed(run, gateway, "SPY")
    for interval, line in zip(intervals, lines(gateway, "SPY"), strict=True):
        assert_sent(interval, line)
    over = intervals[0]
    assert over.until is not None
    assert over.first_row is not None
    assert over.until - over.first_row >= 900, "the turn, though its rows came at once"


async def test_book_shallower_than_requested_is_complete_once_no_row_came_for_a_while(
    shared_data: Path, shared_redis_url: str
) -> None:
    path = shared_data / "aapl_2012-06-21_l10.csv.gz"
    replay = ReplayOptions(path=path, pace=ReplayPace.FAST, limit=0)
    async with SimulatedGateway(GatewayOptions(replays=(replay,))) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("AAPL"), **LONG_TURNS) as run:

            async def is_complete() -> bool:
                found = await open_interval_of(run.redis, "AAPL")
                return found is not None and found.complete is not None

            await run.until(is_complete)
            [interval] = await observed(run, gateway, "AAPL")
            last_ts, _ = (await stored_ids(run.redis, "AAPL"))[-1]
    assert (interval.rows, interval.complete) == (20, last_ts)
