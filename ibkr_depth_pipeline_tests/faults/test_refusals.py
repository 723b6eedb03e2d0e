"""Refusals of depth: none is believed on the first word, each frees its place at once, another venue takes over."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from ibkr_depth_pipeline.ingest.composition import IngestTimings
from ibkr_depth_pipeline.schema.keys import venue_key
from ibkr_depth_pipeline.simulation import EarlyCancel, GatewayOptions
from ibkr_depth_pipeline.simulation.options import Unready
from ibkr_depth_pipeline_tests.faults.recovery import Trial, stopwatch, trial

ALL = ("SPY", "QQQ", "IWM")


async def venue(run: Trial, symbol: str) -> dict[str, str]:
    found = await run.run.redis.hgetall(venue_key(symbol))
    return {name.decode(): value.decode() for name, value in found.items()}


async def until_venue(run: Trial, symbol: str, field: str, text: str) -> None:
    async def there() -> bool:
        return text in (await venue(run, symbol)).get(field, "")

    await run.run.until(there)


def asked(run: Trial) -> Counter[str]:
    """symbol@venue -> depth requests so far."""
    requests = run.gateway.journal.requests("reqMktDepth")
    return Counter(f"{each.detail['symbol']}@{each.detail['exchange']}" for each in requests)


def cancelled(run: Trial) -> set[int]:
    return {int(each.detail["reqId"]) for each in run.gateway.journal.requests("cancelMktDepth")}


async def test_gateway_that_refuses_everything_until_its_farms_are_up_is_recorded_seconds_after(
    shared_redis_url: str,
) -> None:
    options = GatewayOptions(ready_after=3.0, unready=Unready.NOT_SUBSCRIBED)
    async with trial(shared_redis_url, *ALL, options=options) as run:
        await run.gateway.wait_for(lambda: run.gateway.journal.entries("ready"), 60)
        with stopwatch("354 for everything until the farms are up, after they are"):
            await run.fresh()
        await run.right()
        assert {(await venue(run, symbol))["reason"] for symbol in ALL} == {""}
        assert {(await venue(run, symbol))["depth_supported"] for symbol in ALL} == {"1"}
    assert sum(asked(run).values()) <= 40, "no storm"


@pytest.mark.parametrize("code", [200, 354, 404, 478, 10168, 99999])
async def test_refusal_of_any_code_at_every_venue_frees_its_place_and_is_named_in_the_venue_hash(
    shared_redis_url: str, code: int
) -> None:
    async with trial(shared_redis_url, *ALL, "AAPL", options=GatewayOptions(refusals={"QQQ": code})) as run:
        for symbol in ("SPY", "IWM", "AAPL"):
            await run.run.grows(symbol, 50)
        await until_venue(run, "QQQ", "reason", str(code))
        assert (await venue(run, "QQQ"))["depth_supported"] == "0"
        assert not run.gateway.journal.errors(309)
        assert run.open_lines() == 3
        refused = {entry.detail["request_id"] for entry in run.gateway.journal.errors(code)}
        assert refused <= cancelled(run), "the gateway may hold a line in spite of what it says"
    assert run.said("connection_lost") == []


async def test_symbol_that_is_granted_at_last_is_recorded_at_once_when_a_farm_is_well(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", options=GatewayOptions(refusals={"QQQ": 354})) as run:
        await until_venue(run, "QQQ", "reason", "354")
        await run.run.grows("SPY")
        run.gateway.allow("QQQ")
        run.gateway.send_error(2104)
        with stopwatch("a refused symbol, after a 2104"):
            await run.fresh()
        await until_venue(run, "QQQ", "depth_supported", "1")
        assert (await venue(run, "QQQ"))["reason"] == ""


async def test_venue_without_permission_is_replaced_by_the_next_one_which_is_kept_over_a_reconnect(
    shared_redis_url: str,
) -> None:
    options = GatewayOptions(venue_refusals={"QQQ@ISLAND": 354, "QQQ@ARCA": 10092})
    async with trial(shared_redis_url, "QQQ", options=options) as run:
        with stopwatch("two venues that refuse, until the third one's rows are stored"):
            await run.fresh()
        third = (await run.run.newest("QQQ")).venue
        assert third not in ("ISLAND", "ARCA")
        await until_venue(run, "QQQ", "refused_venues", "ISLAND 354")
        found = await venue(run, "QQQ")
        assert (found["exchange"], found["depth_supported"], found["reason"]) == (third, "1", "")
        assert "ARCA 10092" in found["refused_venues"]
        run.gateway.drop_connections()
        await run.gateway.wait_for(lambda: asked(run)[f"QQQ@{third}"] >= 2, 60)
        await run.fresh()
        assert asked(run)["QQQ@ISLAND"] == asked(run)["QQQ@ARCA"] == 1


async def test_advice_about_a_line_that_goes_on_costs_neither_rows_nor_a_slot(shared_redis_url: str) -> None:
    options = GatewayOptions(advisories=dict.fromkeys(ALL, 10089), first_row_delay=0.3)
    async with trial(shared_redis_url, *ALL, options=options) as run:
        await run.fresh()
        run.gateway.advise("SPY", 10091)
        run.gateway.advise("QQQ", 354)
        run.gateway.advise("IWM", 10168)
        await run.fresh()
        await run.right()
        await run.complete()
        assert run.open_lines() == 3
        assert not cancelled(run)
        assert sum(asked(run).values()) == 3


async def test_line_that_ends_with_an_error_is_asked_for_again(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", timings=IngestTimings(advised_line=1.0)) as run:
        await run.fresh()
        run.gateway.silence("SPY")
        run.gateway.advise("SPY", 354)
        await run.fresh()
        assert asked(run) == {"SPY@ARCA": 2, "QQQ@ISLAND": 1}
        assert run.open_lines() == 2


async def test_max_tickers_is_a_309_and_the_request_is_not_cancelled(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", options=GatewayOptions(refusals={"QQQ": 101})) as run:
        await run.run.grows("SPY", 50)
        await run.gateway.wait_for(lambda: run.gateway.journal.errors(101), 30)
        refused = {entry.detail["request_id"] for entry in run.gateway.journal.errors(101)}
        assert run.said("slot_refused")
        assert not run.said("symbol_skipped")
        assert refused.isdisjoint(cancelled(run))


async def test_symbol_that_alone_meets_a_309_each_time_keeps_no_slot_from_the_others(shared_redis_url: str) -> None:
    options = GatewayOptions(refusals={"QQQ": 309})
    async with trial(shared_redis_url, "QQQ", "SPY", "IWM", options=options, ibkr_rotation_secs=0.5) as run:
        await run.gateway.wait_for(lambda: len(run.gateway.journal.errors(309)) >= 3, 60)
        for symbol in ("SPY", "IWM"):
            await run.run.grows(symbol, 50)


async def test_not_connected_is_a_lost_connection(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY") as run:
        await run.fresh()
        run.gateway.send_error(504)
        await run.gateway.wait_for(lambda: asked(run)["SPY@ARCA"] == 2, 30)
        await run.fresh()
        assert len(run.said("connection_lost")) == 1


async def test_notices_about_delayed_data_refuse_nothing(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", options=GatewayOptions(advisories={"SPY": 10167})) as run:
        await run.fresh()
        for code in (10167, 2152, 2119, 2169):
            run.gateway.send_error(code, "SPY")
        await run.fresh()
        assert sum(asked(run).values()) == 1
        assert not run.said("depth_refused")
        assert not run.said("depth_advice")


async def test_symbol_that_had_rows_is_asked_for_again_at_the_same_venue_after_a_reconnect_that_refuses(
    shared_redis_url: str,
) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ") as run:
        await run.fresh()
        run.gateway.become_unready(Unready.NOT_SUBSCRIBED)
        run.gateway.drop_connections()
        await run.gateway.wait_for(lambda: len(run.gateway.journal.errors(354)) >= 2, 30)
        run.gateway.become_ready()
        with stopwatch("354 after a reconnect, after the farms are up"):
            await run.fresh()
        assert {snapshot.venue for snapshot in await run.run.stream("QQQ")} == {"ISLAND"}


async def test_requests_stay_bounded_while_all_of_many_symbols_are_refused_and_farms_flap(
    shared_redis_url: str,
) -> None:
    symbols = [f"{first}{second}" for first in "ABCDEF" for second in "ABCDE"]
    options = GatewayOptions(refusals=dict.fromkeys(symbols, 354))
    async with trial(shared_redis_url, *symbols, options=options) as run:
        await run.gateway.wait_for(lambda: len(run.gateway.journal.errors(354)) >= 30, 60)
        for _ in range(20):
            run.gateway.send_error(2104)
            run.gateway.send_error(2106)
            await asyncio.sleep(0.1)
        assert max(asked(run).values()) <= 4
        for symbol in symbols:
            run.gateway.allow(symbol)
        with stopwatch("30 refused symbols, until one is recorded"):

            async def any_grows() -> bool:
                return any([await run.run.length(symbol) > 0 for symbol in symbols])

            await run.run.until(any_grows)
    assert run.gateway.journal.errors(100) == []


async def test_shipped_scenario_of_an_account_without_totalview_is_recorded_elsewhere_and_says_what_it_lacks(
    shared_redis_url: str,
) -> None:
    async with trial(shared_redis_url, "AAPL", "MSFT", scenario="other_venue_only") as run:
        with stopwatch("other_venue_only"):
            await run.fresh()
        await run.right()
        for symbol in ("AAPL", "MSFT"):
            await until_venue(run, symbol, "refused_venues", "ISLAND 354")
            await until_venue(run, symbol, "refused_venues", "market data permissions")
        assert {line["exchange"] for line in run.said("venue_refused")} == {"ISLAND"}
        assert max(asked(run).values()) == 1
        assert run.open_lines() == 2


@pytest.mark.parametrize(
    ("scenario", "most"),
    [
        ("farms_down_at_start", 25),
        ("not_subscribed_after_reconnect", 20),
        ("not_subscribed_for_a_while", 20),
        ("advisory_error", 4),
        ("advisory_error_later", 4),
        ("permissions_notice", 4),
    ],
)
@pytest.mark.faults
async def test_shipped_scenario_of_refusals_ends_in_live_books_with_few_requests_and_no_leaked_slot(
    shared_redis_url: str, scenario: str, most: int
) -> None:
    async with trial(shared_redis_url, *ALL, scenario=scenario) as run:
        await run.gateway.wait_for(lambda: len(run.faults()) >= len(run.steps), 120)
        if scenario == "farms_down_at_start":
            await run.gateway.wait_for(lambda: run.gateway.journal.entries("ready"), 60)
        with stopwatch(f"{scenario}, after its last step"):
            await run.fresh()
        await run.right()
        await run.whole()
        assert run.open_lines() == 3
        assert not run.gateway.journal.errors(309)
        assert sum(asked(run).values()) <= 3 * most


async def test_line_that_brings_rows_after_a_refusal_is_cancelled_again_and_its_symbol_recorded(
    shared_redis_url: str,
) -> None:
    options = GatewayOptions(
        advisories={"SPY": 354}, first_row_delay=1.0, early_cancel=EarlyCancel.LOST_UNTIL_FIRST_ROW
    )
    async with trial(shared_redis_url, "SPY", "QQQ", options=options) as run:
        await run.gateway.wait_for(lambda: len(cancelled(run)) >= 1, 30)
        refused = min(cancelled(run))

        async def twice() -> bool:
            cancels = run.gateway.journal.requests("cancelMktDepth")
            return sum(int(each.detail["reqId"]) == refused for each in cancels) >= 2

        await run.run.until(twice)
        await run.gateway.wait_for(lambda: run.open_lines() <= 2, 30)
