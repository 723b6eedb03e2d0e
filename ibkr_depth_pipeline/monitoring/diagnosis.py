"""Why a feed or a symbol is not well, from what one look at Redis shows. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ibkr_depth_pipeline.schema.health import HealthReport, IngestHealth, SymbolHealth, SymbolState

PRESSURE_MS = 300_000
"""For so long after a refusal with 309 it counts as the likely cause of what is stale."""


class Cause(str, Enum):
    """The likely cause, in the words of an alert. The first five concern the feed as a whole."""

    REDIS = "Redis unreachable"
    NO_INGEST = "no ingest run"
    GATEWAY = "gateway away"
    MARKET_DATA = "IBKR or its market data troubled"
    CLOCK = "the host's clock was set"
    PRESSURE = "309 pressure"
    SYMBOL = "this symbol only"
    SYMBOLS = "these symbols only"
    SILENT = "silent, others are not"
    OUT_OF_STEP = "book out of step with the gateway's"


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Redis could not be asked: nothing is known. The reason holds no secret."""

    ts: int
    reason: str


Look = HealthReport | Unreachable
"""What one look found."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """The 309s of one run, and when (unix ms) there was last a new one."""

    run_id: str = ""
    refusals: int = 0
    last_ts: int = 0

    def seen(self, look: Look) -> Pressure:
        """After this look."""
        if isinstance(look, Unreachable) or look.feed.figures is None:
            return self
        figures = look.feed.figures
        before = self.refusals if self.run_id == figures.run.run_id else 0
        newest = look.ts if figures.refused_309 > before else self.last_ts
        return Pressure(figures.run.run_id, figures.refused_309, newest)

    def stands(self, now: int) -> bool:
        """Whether there was one of late."""
        return bool(self.last_ts) and now - self.last_ts <= PRESSURE_MS


def feed_cause(look: Look) -> Cause | None:
    """What is wrong with the feed as a whole; None where nothing is."""
    if isinstance(look, Unreachable):
        return Cause.REDIS
    if not look.feed.running:
        return Cause.NO_INGEST
    figures = look.feed.figures
    if figures is None:
        return None
    if not figures.connected:
        return Cause.GATEWAY
    if figures.suspended or figures.ailments:
        return Cause.MARKET_DATA
    return Cause.CLOCK if figures.clock.problem else None


def symbol_cause(look: Look, pressure: Pressure, count: int, now: int) -> Cause:
    """Why `count` symbols are not well while the feed itself is."""
    troubles = {each.trouble for each in unwell(look)}
    if troubles and "" not in troubles:
        return Cause.SILENT if troubles == {Cause.SILENT.value} else Cause.OUT_OF_STEP
    if pressure.stands(now):
        return Cause.PRESSURE
    return Cause.SYMBOL if count == 1 else Cause.SYMBOLS


def unwell(look: Look) -> tuple[SymbolHealth, ...]:
    """The symbols that should be recorded and are not; none where nothing is known."""
    if isinstance(look, Unreachable):
        return ()
    return tuple(each for each in look.symbols if not each.is_well)


def feed_words(look: Look) -> str:
    """What is wrong with the feed, at length; empty where nothing is."""
    if isinstance(look, Unreachable):
        return look.reason
    figures = look.feed.figures
    return look.feed.problem or (figures.clock.problem if figures is not None else "")


def running_since(look: Look) -> int:
    """When the ingest that runs now started (unix ms); 0 where none is known to run."""
    if isinstance(look, Unreachable):
        return 0
    return _started(look.feed)


def _started(feed: IngestHealth) -> int:
    return feed.figures.run.started_ts if feed.running and feed.figures is not None else 0


def symbol_words(health: SymbolHealth) -> str:
    """One symbol's state, as a check shows it."""
    if health.state is SymbolState.UNSUPPORTED:
        return f"unsupported: {health.reason}" if health.reason else "unsupported"
    trouble = f"{health.trouble}; " if health.trouble else ""
    if health.age_secs is None:
        return f"{health.state.value}: {trouble}no row was ever recorded"
    return f"{health.state.value}: {trouble}last row {health.age_secs:.1f} s ago"
