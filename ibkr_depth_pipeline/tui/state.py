"""What `ibkr_depth_watch` shows at a moment: each symbol's liveness, book and figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

from ibkr_depth_pipeline.schema.alerts import TrackedAlert
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot
from ibkr_depth_pipeline.schema.health import HealthReport, IngestHealth, SymbolHealth, SymbolState
from ibkr_depth_pipeline.schema.status import SymbolFigures

_LIVE_WITHOUT_FIGURES_SECS = 5.0


class Liveness(Enum):
    """A symbol's state; the values are the words of the table.

    LIVE: it holds a slot. WAIT: it had its turn and waits for the next. STALE: its heartbeat is gone. NONE: it was
    never recorded. CLOSED: its market is closed, see `closed_until`. UNSUPPORTED: the gateway gives no depth for it.
    SILENT: its line is silent while others are not. OUT_OF_STEP: its book is not the gateway's. UNKNOWN: Redis is
    away.
    """

    LIVE = "live"
    WAIT = "wait"
    STALE = "STALE"
    NONE = "none"
    UNSUPPORTED = "n/a"
    CLOSED = "closed"
    SILENT = "MUTE"
    OUT_OF_STEP = "WRONG"
    UNKNOWN = "?"


Lanes = Mapping[str, Sequence[Sequence[Any]]]
"""By symbol its subscriptions: requested, first row, end (unix ms, None for what has not been yet), why it ended."""

KEPT_MS = 15 * 60_000
"""How far back they reach."""


class Quote(NamedTuple):
    """The best prices of a live book."""

    bid: float
    ask: float


@dataclass(frozen=True, slots=True)
class SymbolLine:
    """A symbol's line of the table. Ages and TTLs are seconds, coverage is from 0 to 1; None: not known.

    closed_until: when its market opens, unix ms; 0 if it is not closed. bid_move and ask_move: 1 if the best price rose
    since the refresh before, -1 if it fell, else 0.
    """

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
    closed_until: int = 0
    next_turn_secs: float | None = None
    figures: SymbolFigures = field(default_factory=SymbolFigures)
    bid_move: int = 0
    ask_move: int = 0

    @property
    def bid(self) -> float | None:
        """The best bid, if the book has one."""
        best = self.book.best_bid if self.book else None
        return None if best is None else best.price

    @property
    def ask(self) -> float | None:
        """The best ask, if the book has one."""
        best = self.book.best_ask if self.book else None
        return None if best is None else best.price


@dataclass(frozen=True, slots=True)
class WatchState:
    """All that is shown, read at `ts` (unix ms). `problem` says why nothing newer is known: Redis is unreachable.

    alerts: all that Redis holds of the ingest, in order of their time, also those behind `ts`.
    """

    ts: int
    health: HealthReport | None = None
    lines: Sequence[SymbolLine] = ()
    problem: str = ""
    alerts: Sequence[TrackedAlert] = ()

    def line(self, symbol: str) -> SymbolLine | None:
        """The line of `symbol`, if there is one."""
        return next((line for line in self.lines if line.symbol == symbol), None)

    def aged(self, now_ms: int, problem: str) -> WatchState:
        """The same state at a later time, while Redis is unreachable: ages have grown, the liveness is unknown."""
        more = max(0, now_ms - self.ts) / 1000
        lines = [_aged(line, more) for line in self.lines]
        return replace(self, lines=lines, problem=problem)


def _aged(line: SymbolLine, secs: float) -> SymbolLine:
    return replace(
        line,
        liveness=Liveness.UNKNOWN,
        holds_slot=False,
        next_turn_secs=None,
        age_secs=None if line.age_secs is None else line.age_secs + secs,
        ttl_secs=None,
        rows_per_sec=None,
    )


def compared(state: WatchState, before: WatchState) -> WatchState:
    """`state` with the moves of the best prices since `before`, the refresh before it."""
    known = {line.symbol: line for line in before.lines}
    return replace(state, lines=[_compared(line, known.get(line.symbol)) for line in state.lines])


def _compared(line: SymbolLine, before: SymbolLine | None) -> SymbolLine:
    if before is None or line.liveness is not Liveness.LIVE:
        return line
    return replace(line, bid_move=_move(line.bid, before.bid), ask_move=_move(line.ask, before.ask))


def _move(now: float | None, before: float | None) -> int:
    return 0 if now is None or before is None else (now > before) - (now < before)


@dataclass(frozen=True, slots=True)
class StreamReadings:
    """What was read of the streams, by symbol: the newest books, rows a second."""

    books: Mapping[str, DepthSnapshot] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)


def watch_state(health: HealthReport, streams: StreamReadings) -> WatchState:
    """Combine the health report with what was read of the streams."""
    return WatchState(health.ts, health, [_line(each, health.feed, streams) for each in health.symbols])


def _line(each: SymbolHealth, feed: IngestHealth, streams: StreamReadings) -> SymbolLine:
    # by the figures alone, which are of one moment and published when that changes: rows are read at another time
    holds_slot = feed.running and each.figures.subscribed
    return SymbolLine(
        symbol=each.symbol,
        liveness=_liveness(each, holds_slot, feed.figures is not None),
        holds_slot=holds_slot,
        venue=each.venue,
        reason=each.reason,
        book=streams.books.get(each.symbol),
        age_secs=each.age_secs,
        ttl_secs=each.heartbeat_ttl_secs,
        rows_per_sec=streams.rates.get(each.symbol),
        coverage=_coverage(each, feed),
        closed_until=each.figures.closed_until if each.state is SymbolState.CLOSED else 0,
        next_turn_secs=None if feed.problem else each.figures.next_turn_secs,
        figures=each.figures,
    )


def _coverage(each: SymbolHealth, feed: IngestHealth) -> float | None:
    """The share of the run in which the symbol's book was live, by the ingest's figures."""
    figures = feed.figures
    if figures is None or each.symbol not in figures.symbols:
        return None
    run_ms = figures.run_ms
    return min(1.0, each.figures.live_ms / run_ms) if run_ms > 0 else None


def _liveness(each: SymbolHealth, holds_slot: bool, has_figures: bool) -> Liveness:
    if each.trouble:
        return Liveness.SILENT if each.trouble.startswith("silent") else Liveness.OUT_OF_STEP
    if each.state is SymbolState.STALE:
        return Liveness.STALE
    if each.state is SymbolState.MISSING:
        return Liveness.NONE
    if each.state in (SymbolState.UNSUPPORTED, SymbolState.NOT_YET):
        return Liveness.UNSUPPORTED
    if each.state is SymbolState.CLOSED:
        return Liveness.CLOSED
    recent = not has_figures and each.age_secs is not None and each.age_secs < _LIVE_WITHOUT_FIGURES_SECS
    return Liveness.LIVE if holds_slot or recent else Liveness.WAIT
