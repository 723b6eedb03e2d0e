"""One recorder, four markets, days in seconds: no slot on a closed market, no false alert, each comes back by itself.

The host's clock and the simulated gateway's are set forward from moment to moment; hours, rolls and summer time follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, time, timedelta
from itertools import count, takewhile
from zoneinfo import ZoneInfo

import pytest

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.monitoring.incidents import IncidentRules, IncidentState, track_incidents
from ibkr_depth_pipeline.schema.alerts import Alert
from ibkr_depth_pipeline.schema.health import HealthReport, SymbolState
from ibkr_depth_pipeline.schema.keys import venue_key
from ibkr_depth_pipeline.schema.status import ClockFigures
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.sink.status import read_health
from ibkr_depth_pipeline.universe import SymbolSpec
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, universe_of

NEW_YORK, CHICAGO, TOKYO = map(ZoneInfo, ("America/New_York", "America/Chicago", "Asia/Tokyo"))
UNIVERSE = universe_of(
    "SPY",
    SymbolSpec("ES", sec_type="FUT", exchange="CME", expiry="front"),
    SymbolSpec("EUR", name="EUR.USD", sec_type="CASH", currency="USD", exchange="IDEALPRO"),
    SymbolSpec("7203", exchange="TSEJ", currency="JPY"),
)
LISTED = {"SPY": "SPY", "ES": "ES", "EUR": "EUR.USD", "7203": "7203"}
QUICK = {"ibkr_rotation_secs": 0.3, "ibkr_first_row_secs": 5}


def is_open(name: str, at: datetime) -> bool:
    """By the exchanges' own hours."""
    local = {"SPY": NEW_YORK, "EUR.USD": NEW_YORK, "ES": CHICAGO, "7203": TOKYO}[name]
    now = at.astimezone(local)
    clock, weekday = now.time(), now.weekday()
    if name == "SPY":
        return weekday < 5 and time(9, 30) <= clock < time(16)
    if name == "7203":
        return weekday < 5 and (time(9) <= clock < time(11, 30) or time(12, 30) <= clock < time(15, 30))
    opens, closes = (time(17), time(16)) if name == "ES" else (time(17, 15), time(17))
    begins_today = weekday in (6, 0, 1, 2, 3) and clock >= opens
    return begins_today or (weekday < 5 and clock < closes)


class Clocks:
    """The host's clock and the gateway's, set together."""

    def __init__(self, start: datetime) -> None:
        self._ahead_ms = int(start.timestamp() * 1000) - unix_ms()

    def __call__(self) -> int:
        return unix_ms() + self._ahead_ms

    @property
    def offset(self) -> float:
        return self._ahead_ms / 1000

    def set(self, moment: datetime, gateway: SimulatedGateway) -> None:
        self._ahead_ms = int(moment.timestamp() * 1000) - unix_ms()
        gateway.set_clock_offset(self.offset)


class Alerts:
    """What the heartbeat sensor would alert at once, without any delay or grace; the clock is set on purpose."""

    def __init__(self) -> None:
        self._state = IncidentState()
        self.raised: list[Alert] = []

    def take(self, report: HealthReport) -> None:
        assert report.feed.figures is not None
        quiet = replace(report.feed, figures=replace(report.feed.figures, clock=ClockFigures()))
        rules = IncidentRules("default", after_ms=0, grace_ms=0)
        self._state, alerts = track_incidents(self._state, replace(report, feed=quiet), 1, rules)
        self.raised += alerts


async def follow(redis_url: str, moments: Iterable[datetime]) -> dict[str, int]:
    """Record through these moments. Returns at how many of them each instrument was recorded."""
    first, *later = moments
    clocks, alerts, seen = Clocks(first), Alerts(), dict.fromkeys(UNIVERSE.symbols, 0)
    async with SimulatedGateway(GatewayOptions(market_hours=True, clock_offset=clocks.offset)) as gateway:
        async with recording(gateway, redis_url, UNIVERSE, wall_ms=clocks, **QUICK) as run:
            for moment in (first, *later):
                clocks.set(moment, gateway)
                wanted = {name for name in UNIVERSE.symbols if is_open(name, moment)}
                await settled(run, redis_url, wanted, alerts)
                before = len(gateway.journal.requests("reqMktDepth"))
                for name in sorted(wanted):
                    await run.grows(name)
                    seen[name] += 1
                requested = [each.detail["listing"] for each in gateway.journal.requests("reqMktDepth")[before:]]
                assert {name_of(listing) for listing in requested} <= wanted, f"{requested} at {moment}"
                alerts.take(await read_health(redis_url, "default", UNIVERSE.symbols))
        assert len(gateway.journal.entries("opened")) == 1, "one process, one connection"
    assert alerts.raised == []
    return seen


def name_of(listing: str) -> str:
    """The universe's name of a listing of the simulated gateway."""
    return next(name for start, name in LISTED.items() if listing.startswith(start))


async def settled(run: Recording, redis_url: str, wanted: set[str], alerts: Alerts) -> None:
    """Wait until the ingest says which markets are closed at this moment, and records the others."""

    async def is_so() -> bool:
        report = await read_health(redis_url, "default", UNIVERSE.symbols)
        if report.feed.figures is None or any(not each.figures.con_id for each in report.symbols):
            return False
        alerts.take(report)
        closed = {each.symbol for each in report.symbols if each.state is SymbolState.CLOSED}
        fresh = {each.symbol for each in report.symbols if each.state is SymbolState.FRESH}
        return closed == set(UNIVERSE.symbols) - wanted and fresh == wanted

    await run.until(is_so)


async def test_evening_and_day_of_four_markets_in_one_process(shared_redis_url: str) -> None:
    sunday = datetime(2027, 3, 14, tzinfo=NEW_YORK)  # the day on which summer time begins there
    clock = (17.1, 17.3, 18.1, 20.1, 24 + 9.6, 24 + 17.1)
    seen = await follow(shared_redis_url, [sunday + timedelta(hours=hours) for hours in clock])
    assert seen == {"SPY": 1, "ES": 3, "EUR.USD": 4, "7203": 1}


@pytest.mark.faults
@pytest.mark.parametrize("saturday", [datetime(2027, 3, 13, 12), datetime(2027, 11, 6, 12)], ids=["spring", "autumn"])
async def test_week_of_four_markets_over_a_change_of_the_clock(shared_redis_url: str, saturday: datetime) -> None:
    start = saturday.replace(tzinfo=NEW_YORK).astimezone(ZoneInfo("UTC"))
    hours = takewhile(lambda hour: hour <= 7 * 24, count(0, 2.5))
    seen = await follow(shared_redis_url, [start + timedelta(hours=hour) for hour in hours])
    assert min(seen.values()) >= 10


@pytest.mark.faults
async def test_future_rolls_at_its_sunday_open_beside_other_markets(shared_redis_url: str) -> None:
    friday = datetime(2027, 3, 12, 15, tzinfo=NEW_YORK)
    clocks = Clocks(friday)
    async with SimulatedGateway(GatewayOptions(market_hours=True, clock_offset=clocks.offset)) as gateway:
        async with recording(gateway, shared_redis_url, UNIVERSE, wall_ms=clocks, **QUICK) as run:
            await settled(run, shared_redis_url, {"SPY", "ES", "EUR.USD"}, Alerts())
            assert await run.redis.hget(venue_key("ES"), "expiry") == b"20270319"
            clocks.set(datetime(2027, 3, 14, 18, 5, tzinfo=NEW_YORK), gateway)
            await settled(run, shared_redis_url, {"ES", "EUR.USD"}, Alerts())
            await run.until(lambda: has_rolled(run))
            await run.grows("ES", 5)
            stream = await run.stream("ES")
            assert [each.seq for each in stream] == list(range(1, len(stream) + 1))


async def has_rolled(run: Recording) -> bool:
    return bool(await run.redis.hget(venue_key("ES"), "expiry") == b"20270618")
