"""Why a feed or a symbol is not healthy, from one reading of Redis, and the heartbeat checks that follow from it. Pure.

A check is published when its state changes, and every few minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from ibkr_depth_pipeline.formatting import utc
from ibkr_depth_pipeline.schema.health import HealthReport, SymbolHealth, SymbolState

REFUSAL_MEMORY_MS = 300_000
"""How long after a refusal with 309 it counts as the likely cause of stale symbols."""

PUBLISH_EVERY_MS = 240_000

FEED = ""
"""The feed's key among the symbols."""

UNKNOWN = "unknown"


class Cause(str, Enum):
    """The likely cause, in the words of an alert. The first six concern the feed as a whole."""

    REDIS = "Redis unreachable"
    NO_INGEST = "no ingest run"
    GATEWAY = "gateway away"
    MARKET_DATA = "IBKR or its market data troubled"
    CLOCK = "the host's clock was set"
    SIZES = "the unit of sizes changed"
    PRESSURE = "309 pressure"
    SYMBOL = "this symbol only"
    SYMBOLS = "these symbols only"
    SILENT = "silent, others are not"
    OUT_OF_STEP = "book out of step with the gateway's"

    @property
    def concerns_feed(self) -> bool:
        return self in (Cause.REDIS, Cause.NO_INGEST, Cause.GATEWAY, Cause.MARKET_DATA, Cause.CLOCK, Cause.SIZES)


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Redis did not answer, so nothing is known. `reason` holds no secret."""

    ts: int
    reason: str


Reading = HealthReport | Unreachable
"""The result of one reading of Redis."""


@dataclass(frozen=True, slots=True)
class RefusalHistory:
    """How many 309s one run has counted, and when (unix ms) the count last grew."""

    run_id: str = ""
    refusals: int = 0
    last_ts: int = 0

    def updated(self, reading: Reading) -> RefusalHistory:
        """The history after this reading."""
        if isinstance(reading, Unreachable) or reading.feed.figures is None:
            return self
        figures = reading.feed.figures
        before = self.refusals if self.run_id == figures.run.run_id else 0
        newest = reading.ts if figures.refused_309 > before else self.last_ts
        return RefusalHistory(figures.run.run_id, figures.refused_309, newest)

    def is_recent(self, now: int) -> bool:
        """Whether a slot was refused within REFUSAL_MEMORY_MS."""
        return bool(self.last_ts) and now - self.last_ts <= REFUSAL_MEMORY_MS


def feed_cause(reading: Reading) -> Cause | None:
    """What is wrong with the feed as a whole; None if nothing is."""
    if isinstance(reading, Unreachable):
        return Cause.REDIS
    if not reading.feed.running:
        return Cause.NO_INGEST
    figures = reading.feed.figures
    if figures is None:
        return None
    if not figures.connected:
        return Cause.GATEWAY
    if figures.suspended or figures.ailments:
        return Cause.MARKET_DATA
    if figures.clock.problem:
        return Cause.CLOCK
    return Cause.SIZES if figures.size_changes else None


def symbol_cause(reading: Reading, refusals: RefusalHistory, count: int, now: int) -> Cause:
    """Why `count` symbols are unhealthy although the feed is healthy."""
    troubles = {each.trouble for each in unhealthy_symbols(reading)}
    if troubles and "" not in troubles:
        return Cause.SILENT if troubles == {Cause.SILENT.value} else Cause.OUT_OF_STEP
    if refusals.is_recent(now):
        return Cause.PRESSURE
    return Cause.SYMBOL if count == 1 else Cause.SYMBOLS


def unhealthy_symbols(reading: Reading) -> tuple[SymbolHealth, ...]:
    """The symbols that should be recorded by now and are not; none if nothing is known."""
    if isinstance(reading, Unreachable):
        return ()
    return tuple(each for each in reading.symbols if not each.is_well and not each.is_awaited)


def feed_problem(reading: Reading) -> str:
    """What is wrong with the feed, at length; empty if nothing is."""
    if isinstance(reading, Unreachable):
        return reading.reason
    figures = reading.feed.figures
    return reading.feed.problem or ("" if figures is None else figures.clock.problem or figures.size_changes)


def running_since(reading: Reading) -> int:
    """Since when the running ingest records (unix ms), which a standby does since it took over; 0 if none is known."""
    if isinstance(reading, Unreachable) or not reading.feed.running or reading.feed.figures is None:
        return 0
    return reading.feed.figures.written_ts - reading.feed.figures.run_ms


def has_ended(reading: Reading) -> bool:
    """Whether the newest run ended by itself: it drained and wrote its last figures. False if it was killed."""
    return not isinstance(reading, Unreachable) and bool(reading.feed.figures and reading.feed.figures.ended_ts)


# ---- heartbeat checks


@dataclass(frozen=True, slots=True)
class HeartbeatCheck:
    """The result of one check. Not `certain` if nothing is known or a grace period lasts; `figures` are for plots."""

    symbol: str
    state: str
    passed: bool
    certain: bool
    description: str
    figures: Mapping[str, float]

    @property
    def published_state(self) -> str:
        """The state, with a question mark if it is not certain."""
        return self.state if self.certain else f"{self.state}?"


@dataclass(frozen=True, slots=True)
class PublishedCheck:
    """The state that a check was last published with, and when (unix ms)."""

    state: str
    ts: int


def heartbeat_checks(reading: Reading, symbols: tuple[str, ...], *, early: bool) -> Iterator[HeartbeatCheck]:
    """A check of the feed and one of each symbol. early: the grace period after the open or a start lasts."""
    cause = feed_cause(reading)
    description = feed_problem(reading) or "the ingest runs and has its gateway"
    yield HeartbeatCheck(FEED, cause.name.lower() if cause else "well", cause is None, not early, description, {})
    if isinstance(reading, Unreachable):
        yield from (HeartbeatCheck(symbol, UNKNOWN, False, False, reading.reason, {}) for symbol in symbols)
        return
    yield from (_symbol_check(each, early or each.is_awaited) for each in reading.symbols if each.symbol in symbols)


def _symbol_check(each: SymbolHealth, early: bool) -> HeartbeatCheck:
    measured = {"last_row_age_secs": each.age_secs, "heartbeat_ttl_secs": each.heartbeat_ttl_secs}
    figures = {name: round(value, 3) for name, value in measured.items() if value is not None}
    state = "troubled" if each.trouble and each.state.is_well else each.state.value
    return HeartbeatCheck(each.symbol, state, each.is_well, each.is_well or not early, _description(each), figures)


def _description(health: SymbolHealth) -> str:
    if health.state is SymbolState.UNSUPPORTED:
        return f"unsupported: {health.reason}" if health.reason else "unsupported"
    if health.state is SymbolState.NOT_YET:
        return "not recorded yet: it is not in the universe that the running ingest has in force"
    if health.state is SymbolState.CLOSED:
        return f"closed until {utc(health.figures.closed_until)}"
    if health.is_awaited and not health.is_well:
        return f"{health.state.value}: its first turn is due until {utc(health.figures.first_due_ts)}"
    trouble = f"{health.trouble}; " if health.trouble else ""
    if health.age_secs is None:
        return f"{health.state.value}: {trouble}no row was ever recorded"
    return f"{health.state.value}: {trouble}last row {health.age_secs:.1f} s ago"


def due_checks(
    published: Mapping[str, PublishedCheck], checks: list[HeartbeatCheck], now: int
) -> tuple[list[HeartbeatCheck], dict[str, PublishedCheck]]:
    """The checks to publish at `now` (changed, or not published for PUBLISH_EVERY_MS), and `published` after that."""
    due = [each for each in checks if _is_due(published.get(each.symbol), each, now)]
    kept = {each.symbol: published[each.symbol] for each in checks if each.symbol in published}
    return due, kept | {each.symbol: PublishedCheck(each.published_state, now) for each in due}


def _is_due(last: PublishedCheck | None, check: HeartbeatCheck, now: int) -> bool:
    return last is None or last.state != check.published_state or now - last.ts >= PUBLISH_EVERY_MS
