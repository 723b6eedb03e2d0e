"""What the watch knows at a moment, and what each symbol's state is called. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from ibkr_depth_pipeline.schema.decoding import DepthSnapshot
from ibkr_depth_pipeline.schema.health import HealthReport, IngestHealth, SymbolHealth, SymbolState

_LIVE_WITHOUT_FIGURES_SECS = 5.0


class Liveness(Enum):
    """The word that the table shows.

    LIVE: it holds a slot. WAIT: it had its turn and waits for the next. STALE: its heartbeat is gone. NONE: it was
    never recorded. UNSUPPORTED: the gateway gives no depth for it. SILENT: its line is silent while others are not.
    OUT_OF_STEP: its book is not the gateway's. UNKNOWN: Redis is away.
    """

    LIVE = "live"
    WAIT = "wait"
    STALE = "STALE"
    NONE = "none"
    UNSUPPORTED = "n/a"
    SILENT = "MUTE"
    OUT_OF_STEP = "WRONG"
    UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Line:
    """One symbol. Ages and TTLs in seconds, rate in rows a second, coverage from 0 to 1; None: not known."""

    symbol: str
    liveness: Liveness
    holds_slot: bool
    venue: str
    reason: str
    book: DepthSnapshot | None
    age_secs: float | None
    ttl_secs: float | None
    rows_per_sec: float | None
    coverage: float | None


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything at `ts` (unix ms). `problem` says why nothing newer is known: Redis is away."""

    ts: int
    health: HealthReport | None = None
    lines: Sequence[Line] = ()
    problem: str = ""

    def line(self, symbol: str) -> Line | None:
        """What is known of `symbol`."""
        return next((line for line in self.lines if line.symbol == symbol), None)

    def aged(self, now_ms: int, problem: str) -> Sight:
        """This sight, seen later, after Redis went away: everything is as old as it is now."""
        more = max(0, now_ms - self.ts) / 1000
        lines = [_aged(line, more) for line in self.lines]
        return replace(self, lines=lines, problem=problem)


def _aged(line: Line, secs: float) -> Line:
    return replace(
        line,
        liveness=Liveness.UNKNOWN,
        holds_slot=False,
        age_secs=None if line.age_secs is None else line.age_secs + secs,
        ttl_secs=None,
        rows_per_sec=None,
    )


@dataclass(frozen=True, slots=True)
class Findings:
    """What was read of the streams: newest books, rows a second."""

    books: Mapping[str, DepthSnapshot] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)


def sight_of(health: HealthReport, found: Findings) -> Sight:
    """Put together what is known of each symbol."""
    holders = _slot_holders(health)
    told = health.feed.figures is not None
    lines = [_line(each, found, each.symbol in holders, told, _coverage(each, health.feed)) for each in health.symbols]
    return Sight(health.ts, health, lines)


def _line(each: SymbolHealth, found: Findings, holds_slot: bool, told: bool, coverage: float | None) -> Line:
    return Line(
        symbol=each.symbol,
        liveness=_liveness(each, holds_slot, told),
        holds_slot=holds_slot,
        venue=each.venue,
        reason=each.reason,
        book=found.books.get(each.symbol),
        age_secs=each.age_secs,
        ttl_secs=each.heartbeat_ttl_secs,
        rows_per_sec=found.rates.get(each.symbol),
        coverage=coverage,
    )


def _coverage(each: SymbolHealth, feed: IngestHealth) -> float | None:
    """The share of the run in which its book was live, as the ingest tells it."""
    figures = feed.figures
    if figures is None or each.symbol not in figures.symbols:
        return None
    run_ms = figures.written_ts - figures.run.started_ts
    return min(1.0, each.figures.live_ms / run_ms) if run_ms > 0 else None


def _slot_holders(health: HealthReport) -> frozenset[str]:
    """Who holds a slot now. The ingest tells it every 2 s; rows since then show whether it has changed."""
    feed = health.feed
    if not feed.running or feed.figures is None:
        return frozenset()
    since = {each.symbol for each in health.symbols if each.last_row_ts > feed.figures.written_ts}
    told = {each.symbol for each in health.symbols if each.figures.subscribed}
    return frozenset(told if since <= told else since)


def _liveness(each: SymbolHealth, holds_slot: bool, told: bool) -> Liveness:
    if each.trouble:
        return Liveness.SILENT if each.trouble.startswith("silent") else Liveness.OUT_OF_STEP
    if each.state is SymbolState.STALE:
        return Liveness.STALE
    if each.state is SymbolState.MISSING:
        return Liveness.NONE
    if each.state is SymbolState.UNSUPPORTED:
        return Liveness.UNSUPPORTED
    recent = not told and each.age_secs is not None and each.age_secs < _LIVE_WITHOUT_FIGURES_SECS
    return Liveness.LIVE if holds_slot or recent else Liveness.WAIT
