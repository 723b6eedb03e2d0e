"""When a heartbeat's check is told, and what it says: on a change, and every few minutes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ibkr_depth_pipeline.monitoring.diagnosis import Look, Unreachable, feed_cause, feed_words, symbol_words

EVERY_MS = 240_000
FEED = ""
"""The feed's own check, among those of the symbols."""

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Told:
    """What a check said last, and when (unix ms)."""

    state: str
    ts: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result. Not `certain`: nothing is known, or it is too early to judge. Figures are for plots."""

    symbol: str
    state: str
    passed: bool
    certain: bool
    words: str
    figures: Mapping[str, float]


def findings(look: Look, symbols: tuple[str, ...], *, early: bool) -> Iterator[Finding]:
    """A finding of the feed and one of each symbol. `early`: the grace after open or start is not over."""
    cause = feed_cause(look)
    words = feed_words(look) or "the ingest runs and has its gateway"
    yield Finding(FEED, cause.name.lower() if cause else "well", cause is None, not early, words, {})
    if isinstance(look, Unreachable):
        yield from (Finding(symbol, UNKNOWN, False, False, look.reason, {}) for symbol in symbols)
        return
    for each in look.symbols:
        told = {"last_row_age_secs": each.age_secs, "heartbeat_ttl_secs": each.heartbeat_ttl_secs}
        figures = {name: round(value, 3) for name, value in told.items() if value is not None}
        certain = each.is_well or not early
        state = "troubled" if each.trouble and each.state.is_well else each.state.value
        yield Finding(each.symbol, state, each.is_well, certain, symbol_words(each), figures)


def to_tell(before: Mapping[str, Told], found: list[Finding], now: int) -> tuple[list[Finding], dict[str, Told]]:
    """Those that have changed or are due again, and what will have been told then."""
    news = [each for each in found if _is_due(before.get(each.symbol), each, now)]
    kept = {each.symbol: before[each.symbol] for each in found if each.symbol in before}
    return news, kept | {each.symbol: Told(_state(each), now) for each in news}


def _is_due(last: Told | None, found: Finding, now: int) -> bool:
    return last is None or last.state != _state(found) or now - last.ts >= EVERY_MS


def _state(found: Finding) -> str:
    return found.state if found.certain else f"{found.state}?"
