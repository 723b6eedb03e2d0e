"""Hours of the markets: a closed one takes no turn and is no trouble, and it comes back by itself at its open."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.hours.instruments import MarketHours
from ibkr_depth_pipeline.hours.universe import UniverseSessions
from ibkr_depth_pipeline.monitoring.diagnosis import unhealthy_symbols
from ibkr_depth_pipeline.schema.health import HealthReport, SymbolState
from ibkr_depth_pipeline.schema.keys import ingest_key
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.sink.status import read_health, read_hours_of
from ibkr_depth_pipeline.universe import SymbolSpec
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, universe_of

QUICK = {"ibkr_rotation_secs": 0.4, "ibkr_first_row_secs": 5}


class HostClock:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> int:
        return unix_ms() + int(self.ahead.total_seconds() * 1000)


async def is_open(redis_url: str) -> bool:
    """Whether a session goes on by the hours that were published."""

    def calendar(now: int) -> MarketHours:
        raise AssertionError("the calendar is not needed")

    sessions = (await read_hours_of(redis_url, "default")).sessions(unix_ms(), calendar)
    return sessions is not None and sessions.at(unix_ms()) is not None


def listed(opens_in: float, closes_in: float) -> str:
    """Hours of one session in New York, so many minutes from now, to the minute as IBKR lists them."""
    now = datetime.now(ZoneInfo("America/New_York")).replace(second=0, microsecond=0)
    opens, closes = (now + timedelta(minutes=minutes) for minutes in (opens_in, closes_in))
    last = closes.date() + timedelta(days=3)
    return f"{opens:%Y%m%d:%H%M}-{closes:%Y%m%d:%H%M};{last:%Y%m%d}:CLOSED"


async def health_when(
    run: Recording, redis_url: str, state: SymbolState, symbol: str, symbols: tuple[str, ...]
) -> HealthReport:
    """The health once that symbol is in that state."""
    found: list[HealthReport] = []

    async def shown() -> bool:
        found.append(await read_health(redis_url, "default", symbols))
        (of_symbol,) = (each for each in found[-1].symbols if each.symbol == symbol)
        return of_symbol.state is state

    await run.until(shown)
    return found[-1]


def options(**hours: str) -> GatewayOptions:
    return GatewayOptions(hours={name.replace("_", " "): text for name, text in hours.items()})


async def test_closed_symbol_takes_no_turn_is_well_and_is_recorded_from_its_open_on(shared_redis_url: str) -> None:
    clock = HostClock()
    closed = options(SPY=listed(-600, 600), QQQ=listed(60, 300), IWM=listed(-600, 600))
    async with SimulatedGateway(closed) as gateway:
        universe = universe_of("SPY", "QQQ", "IWM")
        async with recording(gateway, shared_redis_url, universe, wall_ms=clock, **QUICK) as run:
            await run.grows("SPY", 20)
            await run.grows("IWM", 20)
            report = await health_when(run, shared_redis_url, SymbolState.CLOSED, "QQQ", universe.symbols)
            assert report.is_well
            (qqq,) = (each for each in report.symbols if each.symbol == "QQQ")
            assert abs(qqq.figures.closed_until - (unix_ms() + 3_600_000)) <= 120_000
            assert not [entry for entry in gateway.journal.entries("subscribed") if entry.name == "QQQ"]
            clock.ahead = timedelta(minutes=61)
            await run.grows("QQQ", 5)
            await health_when(run, shared_redis_url, SymbolState.FRESH, "QQQ", universe.symbols)


async def test_hours_of_the_universe_are_published_for_the_session_of_its_runs(shared_redis_url: str) -> None:
    hours = options(SPY=listed(-600, 30), QQQ=listed(60, 300), IWM="unreadable")
    universe = universe_of("SPY", "QQQ", "IWM", SymbolSpec("AAPL", hours="always"))
    async with SimulatedGateway(hours) as gateway:
        async with recording(gateway, shared_redis_url, universe, **QUICK) as run:

            async def are_published() -> bool:
                published = await read_hours_of(shared_redis_url, "default")
                return set(published.by_symbol()) == {"SPY", "QQQ", "AAPL"}

            await run.until(are_published)
        published = await read_hours_of(shared_redis_url, "default")
        session = UniverseSessions.of([published.by_symbol()["SPY"], published.by_symbol()["QQQ"]], unix_ms()).at(
            unix_ms()
        )
        assert session is not None
        assert session.close == published.by_symbol()["QQQ"].spans[0][1], "the half hour between them is a pause"
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **QUICK) as run:

            async def is_replaced() -> bool:
                return set((await read_hours_of(shared_redis_url, "default")).by_symbol()) == {"SPY"}

            await run.until(is_replaced)


async def test_symbol_whose_market_has_just_opened_is_no_trouble_until_its_first_turn(shared_redis_url: str) -> None:
    clock = HostClock()
    opening = options(SPY=listed(-600, 600), QQQ=listed(60, 300))
    universe = universe_of("SPY", "QQQ")
    settings = {**QUICK, "ibkr_rotation_secs": 600, "ibkr_max_concurrent_depth": 1}
    async with SimulatedGateway(opening) as gateway:
        async with recording(gateway, shared_redis_url, universe, wall_ms=clock, **settings) as run:
            await health_when(run, shared_redis_url, SymbolState.CLOSED, "QQQ", universe.symbols)
            clock.ahead = timedelta(minutes=61)
            report = await health_when(run, shared_redis_url, SymbolState.MISSING, "QQQ", universe.symbols)
            (qqq,) = unhealthy = [each for each in report.symbols if not each.is_well]
            assert unhealthy
            assert qqq.is_awaited
            assert unhealthy_symbols(report) == ()
            left_ms = qqq.figures.first_due_ts - clock()
            assert 600_000 < left_ms <= 2 * 600_000 + 60_000


async def test_symbol_whose_market_closes_gives_its_slot_to_others_at_once(shared_redis_url: str) -> None:
    clock = HostClock()
    closing = options(SPY=listed(-600, 30), QQQ=listed(-600, 600))
    async with SimulatedGateway(closing) as gateway:
        universe = universe_of("SPY", "QQQ")
        settings = {**QUICK, "ibkr_rotation_secs": 600, "ibkr_max_concurrent_depth": 1}
        async with recording(gateway, shared_redis_url, universe, wall_ms=clock, **settings) as run:
            await run.grows("SPY", 5)
            assert await run.length("QQQ") == 0, "its turn comes in ten minutes"
            clock.ahead = timedelta(minutes=31)
            await run.grows("QQQ", 5)
            stored = await run.length("SPY")
            await run.grows("QQQ", 20)
            assert await run.length("SPY") == stored
            report = await health_when(run, shared_redis_url, SymbolState.CLOSED, "SPY", universe.symbols)
            assert not report.feed.problem
        assert len(gateway.journal.entries("opened")) == 1


async def test_entry_says_which_hours_count(shared_redis_url: str) -> None:
    clock = HostClock()
    shut = listed(60, 120)
    universe = universe_of("SPY", SymbolSpec("QQQ", hours="always"))
    async with SimulatedGateway(options(SPY=shut, QQQ=shut)) as gateway:
        async with recording(gateway, shared_redis_url, universe, wall_ms=clock, **QUICK) as run:
            await run.grows("QQQ", 5)
            report = await health_when(run, shared_redis_url, SymbolState.CLOSED, "SPY", universe.symbols)
            figures = {each.symbol: each.figures for each in report.symbols}
            assert (figures["SPY"].hours, figures["QQQ"].hours) == ("liquid", "always")
            assert await run.length("SPY") == 0


async def test_calendar_counts_where_hours_cannot_be_read(shared_redis_url: str) -> None:
    always = listed(-600, 600)
    universe = universe_of("SPY", "QQQ")
    async with SimulatedGateway(options(SPY="20261126:sometimes", QQQ=always)) as gateway:
        async with recording(gateway, shared_redis_url, universe, ibkr_calendar="24/7", **QUICK) as run:
            await run.grows("SPY", 5)
            await run.grows("QQQ", 5)

            async def follows_the_calendar() -> bool:
                report = await read_health(shared_redis_url, "default", universe.symbols)
                return report.symbols[0].figures.hours == "24/7"

            await run.until(follows_the_calendar)


CHRISTMAS = datetime(2026, 12, 25, 15, tzinfo=ZoneInfo("UTC"))
MONDAY = datetime(2026, 12, 28, 14, 30, tzinfo=ZoneInfo("UTC"))


async def test_calendar_counts_where_the_gateway_lists_no_hours_at_all(shared_redis_url: str) -> None:
    clock = HostClock()
    clock.ahead = CHRISTMAS - datetime.now(ZoneInfo("UTC"))
    universe = universe_of("SPY", SymbolSpec("QQQ", hours="always"))
    async with SimulatedGateway(options(SPY="", QQQ="")) as gateway:
        async with recording(gateway, shared_redis_url, universe, wall_ms=clock, **QUICK) as run:
            await run.grows("QQQ", 5)

            async def is_closed() -> bool:
                return await closed_until(run, "SPY") == int(MONDAY.timestamp()) * 1000

            await run.until(is_closed)
            assert await run.length("SPY") == 0
            clock.ahead += timedelta(days=3)
            await run.grows("SPY", 5)


async def closed_until(run: Recording, symbol: str) -> int:
    """What the ingest publishes, whatever this host's clock says."""
    figures = FeedFigures.of_json(await run.redis.get(ingest_key("default")))
    return 0 if figures is None else figures.symbols[symbol].closed_until


async def test_symbols_without_hours_are_recorded_all_the_time_if_the_calendar_is_unknown(
    shared_redis_url: str,
) -> None:
    universe = universe_of("SPY")
    async with SimulatedGateway(options(SPY="")) as gateway:
        async with recording(gateway, shared_redis_url, universe, ibkr_calendar="MARS", **QUICK) as run:
            await run.grows("SPY", 5)


async def test_simulated_gateway_is_open_around_the_clock_unless_told_otherwise(shared_redis_url: str) -> None:
    universe = universe_of("SPY")
    async with SimulatedGateway(GatewayOptions()) as gateway:
        async with recording(gateway, shared_redis_url, universe, **QUICK) as run:
            await run.grows("SPY", 5)
            report = await health_when(run, shared_redis_url, SymbolState.FRESH, "SPY", universe.symbols)
            assert report.symbols[0].figures.closed_until == 0


async def test_session_whose_close_is_announced_while_it_goes_on_ends_then_and_its_hours_are_published(
    shared_redis_url: str,
) -> None:
    settings = {"ibkr_hours_refresh_secs": 1, **QUICK}
    async with SimulatedGateway() as gateway:
        universe = universe_of("SPY", "QQQ")
        async with recording(gateway, shared_redis_url, universe, until_close=True, **settings) as run:
            await run.grows("QQQ", 5)
            await run.until(lambda: is_open(shared_redis_url))
            gateway.close_markets()
            summary = await run.task
    assert summary.drained
    assert not await is_open(shared_redis_url)
