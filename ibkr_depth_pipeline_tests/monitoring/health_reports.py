"""Readings of Redis for the tests: which symbols are stale, and whether the ingest runs."""

from __future__ import annotations

from ibkr_depth_pipeline.monitoring.diagnosis import Reading, Unreachable
from ibkr_depth_pipeline.schema.health import HealthReport, IngestHealth, SymbolHealth, SymbolState
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures

SYMBOLS = tuple("ABCDEFGHIJK")
OPEN = 1_700_000_000_000
SECOND, MINUTE = 1000, 60_000


def reading(
    at: int,
    *stale: str,
    running: bool = True,
    connected: bool = True,
    suspended: bool = False,
    refused_309: int = 0,
    started: int = OPEN - 5 * MINUTE,
    unsupported: tuple[str, ...] = (),
    size_changes: str = "",
    ended: bool = False,
) -> Reading:
    """The health that Redis shows `at` ms after the open. ended: the run that is not running ended by itself."""
    now = OPEN + at
    run = RunIdentity("run-1", "host", 1, started)
    told = {"connected": connected, "suspended": suspended, "refused_309": refused_309, "size_changes": size_changes}
    figures = FeedFigures(run, now, ended_ts=now if ended else 0, **told)
    problem = "" if running and connected and not suspended else "something is wrong"
    symbols = tuple(_symbol(name, now, name in stale, name in unsupported) for name in SYMBOLS)
    return HealthReport(now, IngestHealth("default", running, 10.0 if running else None, problem, figures), symbols)


def _symbol(name: str, now: int, stale: bool, unsupported: bool) -> SymbolHealth:
    state = SymbolState.STALE if stale else SymbolState.UNSUPPORTED if unsupported else SymbolState.FRESH
    age = 90.0 if stale else 1.0
    return SymbolHealth(name, state, now - int(age * 1000), age, None, "ARCA", "", SymbolFigures())


def unreachable(at: int) -> Reading:
    return Unreachable(OPEN + at, "Redis at redis://host: refused")
