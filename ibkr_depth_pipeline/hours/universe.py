"""The hours of a whole universe, as an ingest publishes them, and the session that follows from them. Pure; unix ms.

A session is from the first open to the last close of the universe's instruments. A time of up to PAUSE_MS in which all
of them are closed does not end it: a lunch break, the hour in which futures are settled. So that of a stock in New York
is a day, that of ES goes from Sunday evening to Friday, and that of two continents goes on while any of them trades.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import orjson
from pydantic import TypeAdapter, ValidationError

from ibkr_depth_pipeline.formatting import utc
from ibkr_depth_pipeline.hours.instruments import ALWAYS, MarketHours, merged

PAUSE_MS = 2 * 3_600_000
"""The longest time in which everything is closed that a session goes on over."""

_DAY_MS = 86_400_000
_FAR_MS = 30 * _DAY_MS


@dataclass(frozen=True, slots=True)
class HoursGroup:
    """Instruments of the same hours; see MarketHours."""

    label: str
    known_until: int
    spans: tuple[tuple[int, int], ...]
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UniverseHours:
    """The hours of each instrument, by those who share them."""

    groups: tuple[HoursGroup, ...] = ()

    @classmethod
    def of(cls, hours: Mapping[str, MarketHours]) -> UniverseHours:
        """The hours of these instruments."""
        sharing: dict[MarketHours, list[str]] = {}
        for symbol, each in hours.items():
            sharing.setdefault(each, []).append(symbol)
        groups = (HoursGroup(h.label, h.known_until, h.spans, tuple(sorted(s))) for h, s in sharing.items())
        return cls(tuple(sorted(groups, key=lambda group: group.symbols)))

    def to_json(self) -> bytes:
        """As it is stored."""
        return orjson.dumps(self)

    @classmethod
    def of_json(cls, text: bytes | None) -> UniverseHours:
        """Read what `to_json` wrote; of another text nothing is known."""
        try:
            return cls() if text is None else _ADAPTER.validate_json(text)
        except ValidationError:
            return cls()

    def by_symbol(self) -> dict[str, MarketHours]:
        """The hours of each instrument."""
        return {
            symbol: MarketHours(group.label, group.spans, group.known_until)
            for group in self.groups
            for symbol in group.symbols
        }

    def sessions(
        self, now: int, calendar: Callable[[int], MarketHours], symbols: Collection[str] = ()
    ) -> UniverseSessions | None:
        """The sessions around `now` of these instruments, or of all; None if nothing is known of any of them.

        calendar(now) counts for those whose hours have run out.
        """
        known = self.by_symbol()
        hours = {known[symbol] for symbol in symbols or known if symbol in known}
        current = {each for each in hours if each.label == ALWAYS or now < each.known_until}
        if not current:
            return None
        if len(current) < len(hours):
            current.add(calendar(now))
        return UniverseSessions.of(current, now)


_ADAPTER = TypeAdapter(UniverseHours)


@dataclass(frozen=True, slots=True)
class UniverseSession:
    """A session; `opened` is the newest time at which markets opened after all were closed, `close` its last close."""

    opened: int
    close: int


@dataclass(frozen=True, slots=True)
class UniverseSessions:
    """The spans in which at least one instrument's market is open, in order, apart from each other."""

    spans: tuple[tuple[int, int], ...] = ()
    _sessions: tuple[tuple[int, int], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, hours: Iterable[MarketHours], now: int) -> UniverseSessions:
        """The sessions of markets with these hours."""
        always = (now - now % _DAY_MS, now + _FAR_MS)
        spans = merged(span for each in hours for span in ([always] if each.label == ALWAYS else each.spans))
        return cls(spans, _joined(spans))

    def at(self, now: int, early_ms: int = 0) -> UniverseSession | None:
        """The session at `now`, or the next one if it opens within early_ms."""
        for first, close in self._sessions:
            if first - early_ms <= now < close:
                opened = max((opens for opens, _ in self.spans if first <= opens <= now), default=first)
                return UniverseSession(opened, close)
        return None

    def why_closed(self, now: int) -> str:
        """That no session is open at `now`, in words, and when the next one opens, if that is known."""
        opens = next((f"; the first opens at {utc(first)}" for first, _ in self._sessions if first > now), "")
        return f"The universe's markets are closed{opens}"


def _joined(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The spans, those that a pause parts as one."""
    found: list[tuple[int, int]] = []
    for opens, closes in spans:
        if found and opens - found[-1][1] <= PAUSE_MS:
            found[-1] = found[-1][0], closes
        else:
            found.append((opens, closes))
    return tuple(found)
