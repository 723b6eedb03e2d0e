"""Entries of the universe as operators have them, from the file to Redis: venues, pairs, con_ids, futures, options."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from ibkr_depth_pipeline.archive.archiver import Archiver
from ibkr_depth_pipeline.archive.reading import days, read_day
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.schema.keys import venue_key
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.universe import Universe, parse_universe
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, Snapshot, recording

FAST: dict[str, Any] = {"ibkr_rotation_secs": 0.3, "ibkr_error309_cooldown_secs": 0.2, "ibkr_first_row_secs": 2}
ENTRIES = """
symbols:
- AAPL
- {name: AAPL.ARCA, symbol: AAPL, exchange: ARCA}
- {symbol: EUR.USD, sec_type: CASH}
- {name: EUR.GBP, symbol: EUR, currency: GBP, sec_type: CASH, exchange: IDEALPRO}
- {name: ES, sec_type: FUT, exchange: CME, expiry: front}
- {name: ES2, symbol: ES, sec_type: FUT, exchange: CME, expiry: front+1}
- {name: ES-C, symbol: ES, sec_type: CONTFUT, exchange: CME, expiry: front+2}
- {name: FDAX, symbol: DAX, sec_type: FUT, exchange: EUREX, trading_class: FDAX, expiry: front}
- {name: MICRO, con_id: 272093}
- {name: SPY-C600, symbol: SPY, sec_type: OPT, expiry: EXPIRY, strike: 600, right: C}
- BRK.B
- META
- GLD
- UEC
- {symbol: "7203", exchange: TSEJ}
"""


def universe(text: str) -> Universe:
    return parse_universe(yaml.safe_load(text), "file")


async def venue(run: Recording, name: str) -> dict[str, str]:
    found = await run.redis.hgetall(venue_key(name))
    return {key.decode(): value.decode() for key, value in found.items()}


async def has_rows(run: Recording, names: tuple[str, ...]) -> bool:
    return all([await run.length(name) for name in names])


async def test_each_entry_is_recorded_under_its_own_name(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(slots=20)) as gateway:
        listed = gateway.account.catalogue.named("ESZ6") or gateway.account.catalogue.named("ESH7")
        assert listed is not None
        asked = universe(ENTRIES.replace("EXPIRY", listed.last_trade_date))
        async with recording(gateway, shared_redis_url, asked, ibkr_max_concurrent_depth=20, **FAST) as run:
            await run.until(lambda: has_rows(run, asked.symbols))
            found = {name: await venue(run, name) for name in asked.symbols}
        requests = [request.detail for request in gateway.journal.requests("reqMktDepth")]
        assert gateway.journal.errors(478) == []
    venues = {name: (each["con_id"], each["exchange"]) for name, each in found.items()}
    assert venues["AAPL"] == ("265598", "ISLAND")
    assert venues["AAPL.ARCA"] == ("265598", "ARCA")
    assert venues["EUR.USD"] == ("12087792", "IDEALPRO")
    assert venues["EUR.GBP"] == ("12087807", "IDEALPRO")
    assert venues["MICRO"] == ("272093", "ISLAND")
    assert venues["BRK.B"] == ("72063691", "NYSE")
    assert venues["META"] == ("107113386", "ISLAND")
    assert venues["GLD"] == ("51529211", "ARCA")
    assert venues["UEC"] == ("43645828", "AMEX")
    assert venues["7203"] == ("14016545", "TSEJ")
    assert found["SPY-C600"]["local_symbol"].startswith("SPY")
    expiries = [found[name]["expiry"] for name in ("ES", "ES2")]
    assert expiries == sorted(set(expiries))
    assert found["ES"]["local_symbol"].startswith("ES")
    said = {key for request in requests for key, value in request.items() if value not in ("", "0", "0.0")}
    assert all(request["by_con_id"] for request in requests)
    assert said - {"rest", "listing", "symbol", "by_con_id"} <= {"reqId", "version", "conId", "exchange", "numRows"}


async def test_entries_of_one_contract_and_venue_are_one_error_that_names_both(shared_redis_url: str) -> None:
    asked = universe("symbols: [AAPL, {name: APPLE, con_id: 265598}]")
    async with SimulatedGateway() as gateway, recording(gateway, shared_redis_url, asked, **FAST) as run:

        async def is_refused() -> bool:
            venues = [await venue(run, name) for name in asked.symbols]
            reasons = [each.get("reason", "") for each in venues]
            return sum("'AAPL'" in reason and "'APPLE'" in reason for reason in reasons) == 1

        await run.until(is_refused)


async def test_venue_that_refuses_is_not_replaced_by_one_that_another_entry_records(shared_redis_url: str) -> None:
    asked = universe("symbols: [AAPL, {name: AAPL.ARCA, symbol: AAPL, exchange: ARCA}]")
    options = GatewayOptions(venue_refusals={"AAPL@ISLAND": 354})
    async with SimulatedGateway(options) as gateway, recording(gateway, shared_redis_url, asked, **FAST) as run:
        await run.until(lambda: has_rows(run, asked.symbols))
        await run.grows("AAPL.ARCA")
        venues = {name: (await run.newest(name)).venue for name in asked.symbols}
    assert venues["AAPL.ARCA"] == "ARCA"
    assert venues["AAPL"] not in ("ARCA", "ISLAND")


def soon(listed: str, secs: float) -> str:
    """A roll rule by which the contract of that last trade date rolls so many seconds from now."""
    at = datetime.now(timezone.utc) + timedelta(seconds=secs)
    days = (date(int(listed[:4]), int(listed[4:6]), int(listed[6:])) - at.date()).days
    return f"{{days_before: {days}, at: '{at:%H:%M:%S}', timezone: UTC}}"


def futures(gateway: SimulatedGateway) -> list[Any]:
    """The chain of ES, soonest first."""
    found = [gateway.account.catalogue.named(f"ES{letter}{year}") for year in range(10) for letter in "HMUZ"]
    return sorted((each for each in found if each is not None), key=lambda each: each.last_trade_date)


async def test_front_and_the_next_contract_roll_together(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        front, following, third, *_ = futures(gateway)
        common = f"sec_type: FUT, exchange: CME, roll: {soon(front.last_trade_date, 4)}"
        asked = universe(
            f"symbols: [{{name: ES, {common}, expiry: front}}, {{name: N, symbol: ES, {common}, expiry: front+1}}]"
        )
        async with recording(gateway, shared_redis_url, asked, **FAST) as run:
            await run.until(lambda: has_rows(run, asked.symbols))

            async def have_rolled() -> bool:
                found = [(await venue(run, name))["con_id"] for name in asked.symbols]
                return found == [str(following.con_id), str(third.con_id)]

            await run.until(have_rolled)
            for name in asked.symbols:
                await run.grows(name, 10)


async def archived_contracts(redis_url: str, folder: Path, name: str) -> list[tuple[Any, ...]]:
    """con_id, local_symbol and expiry of each archived snapshot of that name, in order."""
    settings = load_settings(redis_url=redis_url, archive_url=str(folder / "archive"))
    await Archiver(settings, [name]).run(once=True)
    store = ArchiveStore(settings.archive_url)
    table = pa.concat_tables([read_day(store, day, name) for day in days(store)])
    columns = (table[column].to_pylist() for column in ("con_id", "local_symbol", "expiry"))
    return list(zip(*columns, strict=True))


def levels(snapshot: Snapshot) -> int:
    """How many rows the two sides hold."""
    return sum(price != 0 for price, _, _ in (*snapshot.bids, *snapshot.asks))


@pytest.mark.parametrize("beside", ["", ", SPY, AAPL, IBM"])
async def test_future_rolls_while_it_is_recorded(shared_redis_url: str, tmp_path: Path, beside: str) -> None:
    async with SimulatedGateway() as gateway:
        front, following, *_ = futures(gateway)
        roll = soon(front.last_trade_date, 4)
        asked = universe(f"symbols: [{{name: ES, sec_type: FUT, exchange: CME, expiry: front, roll: {roll}}}{beside}]")
        async with recording(gateway, shared_redis_url, asked, **FAST) as run:
            await run.until(lambda: has_rows(run, asked.symbols))
            assert (await venue(run, "ES"))["local_symbol"] == front.local_symbol

            async def has_rolled() -> bool:
                return (await venue(run, "ES"))["con_id"] == str(following.con_id)

            await run.until(has_rolled)
            await run.grows("ES", 50)
            found, stream = await venue(run, "ES"), await run.stream("ES")
        archived = await archived_contracts(shared_redis_url, tmp_path, "ES")
        requests = [each.detail["listing"] for each in gateway.journal.requests("reqMktDepth")]
    assert (found["local_symbol"], found["expiry"]) == (following.local_symbol, following.last_trade_date)
    assert found["depth_supported"] == "1"
    rolled = archived.index((following.con_id, following.local_symbol, following.last_trade_date))
    assert archived[:rolled] == [(front.con_id, front.local_symbol, front.last_trade_date)] * rolled
    assert set(archived[rolled:]) == {archived[rolled]}
    assert len(archived) >= len(stream)
    assert [levels(stream[at]) for at in (0, rolled)] == [1, 1], "a new subscription's book begins with one row"
    assert [each.seq for each in stream] == list(range(1, len(stream) + 1))
    of_future = [name for name in requests if name.startswith("ES")]
    assert of_future == sorted(of_future, key=[front.name, following.name].index)
    assert set(of_future) == {front.name, following.name}


async def test_expired_contract_and_renamed_venue_are_resolved_again_at_once(shared_redis_url: str) -> None:
    asked = universe(
        "symbols: [{name: ES, sec_type: FUT, expiry: front}, {name: ES2, symbol: ES, sec_type: FUT, expiry: front+1}]"
    )
    async with SimulatedGateway() as gateway:
        front, following, *_ = futures(gateway)
        async with recording(gateway, shared_redis_url, asked, ibkr_silent_line_secs=1, **FAST) as run:
            await run.until(lambda: has_rows(run, asked.symbols))
            gateway.rename_venue("CME", "XCME")
            gateway.drop_connections()

            async def is_on(name: str, exchange: str, con_id: int) -> bool:
                found = await venue(run, name)
                return (found["exchange"], found["con_id"]) == (exchange, str(con_id))

            await run.until(lambda: is_on("ES", "XCME", front.con_id))
            await run.grows("ES", 10)
            gateway.expire(front.name)
            gateway.drop_connections()
            await run.until(lambda: is_on("ES", "XCME", following.con_id))
            await run.grows("ES", 10)


async def test_renamed_venue_that_the_universe_names_is_answered_with_those_of_now(
    shared_redis_url: str,
) -> None:
    asked = universe("symbols: [SPY, {name: ES, sec_type: FUT, exchange: CME, expiry: front}]")
    async with SimulatedGateway() as gateway, recording(gateway, shared_redis_url, asked, **FAST) as run:
        await run.until(lambda: has_rows(run, asked.symbols))
        gateway.rename_venue("CME", "XCME")
        gateway.drop_connections()

        async def is_named() -> bool:
            reason = (await venue(run, "ES"))["reason"]
            return "CME is not among" in reason and "XCME" in reason

        await run.until(is_named)


async def test_refusal_of_a_contract_that_had_rows_is_looked_up_at_once(shared_redis_url: str) -> None:
    asked = universe("symbols: [SPY, {name: AAPL.ARCA, symbol: AAPL, exchange: ARCA}]")
    slow = {**FAST, "ibkr_unsupported_retry_secs": 3600}
    async with SimulatedGateway() as gateway, recording(gateway, shared_redis_url, asked, **slow) as run:
        await run.until(lambda: has_rows(run, asked.symbols))
        questions = len(gateway.journal.requests("reqContractDetails"))
        gateway.refuse("AAPL", 10092, "ARCA")
        gateway.drop_connections()

        async def is_asked_about() -> bool:
            asked_for = gateway.journal.requests("reqContractDetails")[questions:]
            return any(
                each.detail["conId"] in (265598, "265598") or each.detail["symbol"] == "AAPL" for each in asked_for
            )

        await run.until(is_asked_about)

        async def is_refused() -> bool:
            return "10092" in (await venue(run, "AAPL.ARCA"))["reason"]

        await run.until(is_refused)
        gateway.allow("AAPL", "ARCA")
        await run.grows("SPY", 3)


MISTAKES = {
    "{con_id: 265598, name: X0, symbol: MSFT}": ("symbol is AAPL", "says MSFT"),
    "{con_id: 272093, name: X1, currency: EUR}": ("currency is USD", "says EUR"),
    "{con_id: 51529211, name: X2, sec_type: FUT}": ("STK", "FUT"),
    "{con_id: 107113386, name: X3, primary_exchange: NYSE}": ("NASDAQ", "NYSE"),
    "{con_id: 265598, name: X4, exchange: CME}": ("CME", "ISLAND"),
    "{con_id: 72063691, name: X5, local_symbol: APPL}": ("BRK B", "APPL"),
    "{name: X6, symbol: ES, sec_type: FUT, exchange: CME}": ("expiry: front", "con_id:"),
    "{name: X7, symbol: DAX, sec_type: FUT, expiry: front}": ("trading_class: FDAX", "FDXM"),
    "{name: X8, symbol: ES, sec_type: FUT, exchange: CME, expiry: 203012}": ("203012", "ES"),
    "{name: X9, symbol: UEC, primary_exchange: NYSE}": ("200", "UEC STK NYSE"),
    "{name: X10, symbol: NOSUCHNAME}": ("200", "no such contract"),
}


async def test_entries_that_fit_no_contract_are_told_what_differs_and_what_to_write(shared_redis_url: str) -> None:
    asked = universe(f"symbols: [SPY, {', '.join(MISTAKES)}]")
    async with SimulatedGateway() as gateway, recording(gateway, shared_redis_url, asked, **FAST) as run:
        await run.grows("SPY")
        for name, told in zip(asked.symbols[1:], MISTAKES.values(), strict=True):

            async def is_told(name: str = name, told: tuple[str, str] = told) -> bool:
                reason = (await venue(run, name)).get("reason", "")
                return all(word in reason for word in told)

            await run.until(is_told)
            assert await run.length(name) == 0


WORDS = {
    "{name: CF, symbol: ES, sec_type: CONTFUT, expiry: front+2}": "CME",
    "{name: NEXT, symbol: ES, sec_type: FUT, expiry: front+1}": "CME",
    "{name: YEN, symbol: USDJPY, sec_type: CASH}": "IDEALPRO",
    "{symbol: GBP.USD, sec_type: CASH}": "IDEALPRO",
    "{name: PAIR, con_id: 12087792}": "IDEALPRO",
    "{name: A, con_id: 265598, exchange: ARCA, symbol: AAPL, currency: USD, sec_type: STK}": "ARCA",
    "{name: BERKSHIRE, symbol: BRK.B}": "NYSE",
    "{name: SWISS, symbol: META, exchange: EBS}": "EBS",
    "{name: TOYOTA, symbol: '7203', currency: JPY}": "TSEJ",
    "{name: GOLD/MINERS, symbol: GDX}": "ARCA",
    "{symbol: EUR.GBP, sec_type: CASH}": "IDEALPRO",
}


async def test_words_lead_to_the_contract_that_is_meant(shared_redis_url: str) -> None:
    asked = universe(f"symbols: [{', '.join(WORDS)}]")
    wide = {**FAST, "ibkr_max_concurrent_depth": 20}
    async with SimulatedGateway(GatewayOptions(slots=20)) as gateway:
        async with recording(gateway, shared_redis_url, asked, **wide) as run:
            await run.until(lambda: has_rows(run, asked.symbols))
            found = [(await venue(run, name))["exchange"] for name in asked.symbols]
        assert gateway.journal.errors(478) == gateway.journal.errors(321) == []
    assert found == list(WORDS.values())
