"""Which markets are open, by the hours of the contracts, fresh each day. Pure.

Where IBKR lists no hours, or hours that can't be read, the exchange's calendar counts (IBKR_CALENDAR).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ibkr_depth_pipeline.hours.instruments import (
    ALWAYS,
    ALWAYS_OPEN,
    LIQUID,
    MarketHours,
    UnreadableHours,
    hours_to_follow,
    read_hours,
)
from ibkr_depth_pipeline.hours.universe import UniverseSessions
from ibkr_depth_pipeline.model import Instrument

FRESH_MS = 20 * 3_600_000
"""Hours that are older than this are asked for again."""

ASK_AGAIN_MS = 600_000
"""At least so long between two questions for fresh hours of one instrument."""


class MarketChange(NamedTuple):
    """A market that has opened or closed; closed_until is 0 for one that is open."""

    symbol: str
    closed_until: int


@dataclass(slots=True)
class _Market:
    wished: str | None
    instrument: Instrument | None = None
    hours: MarketHours | None = None  # None: not known
    problem: str = ""
    read_at: int = 0
    asked_at: int = 0
    closed: bool = False


class OpenMarkets:
    """`wish` for each instrument, `resolved` with its contract, `changes` every second or so.

    calendar(now) is what counts where IBKR lists no hours; hours that are older than fresh_ms are asked for again.
    """

    def __init__(self, calendar: Callable[[int], MarketHours], fresh_ms: int = FRESH_MS) -> None:
        self._calendar = calendar
        self._fresh_ms = fresh_ms
        self._was_open = False
        self._markets: dict[str, _Market] = {}
        self._fallback: MarketHours | None = None
        self._listed: dict[str, MarketHours] | None = None  # None: to be made anew

    # ---- what is known

    def wish(self, symbol: str, hours: str | None) -> None:
        """Which hours count for it: liquid, trading, always, or None for those of its kind."""
        market = self._markets.setdefault(symbol, _Market(hours))
        if market.wished != hours:
            market.wished = hours
            if market.instrument is not None:
                self._read(market, market.instrument)

    def forget(self, symbol: str) -> None:
        """Forget an instrument that is not recorded any more."""
        self._markets.pop(symbol, None)
        self._listed = None

    def resolved(self, instrument: Instrument, now: int) -> str:
        """Its contract is known, for the first time or again. Returns why its hours can't be read, once; else ""."""
        market = self._markets.setdefault(instrument.symbol, _Market(None))
        market.read_at = market.asked_at = now
        before = market.problem
        self._read(market, instrument)
        return market.problem if market.problem != before else ""

    def _read(self, market: _Market, instrument: Instrument) -> None:
        before = market.hours
        self._read_hours(market, instrument)
        if market.hours != before:
            self._listed = None

    @staticmethod
    def _read_hours(market: _Market, instrument: Instrument) -> None:
        label, listed = hours_to_follow(market.wished, instrument.sec_type), instrument.hours
        market.instrument, market.problem = instrument, ""
        if label == ALWAYS:
            market.hours = ALWAYS_OPEN
            return
        try:
            market.hours = read_hours(label, listed.liquid if label == LIQUID else listed.trading, listed.time_zone)
        except UnreadableHours as error:
            market.hours, market.problem = None, str(error)

    def listed(self) -> dict[str, MarketHours]:
        """The hours that IBKR lists, or that the universe wishes, by symbol; those that can't be read left out.

        The same object as before while nothing has changed.
        """
        if self._listed is None:
            self._listed = {name: market.hours for name, market in self._markets.items() if market.hours is not None}
        return self._listed

    # ---- what follows

    def hours_of(self, symbol: str, now: int) -> MarketHours | None:
        """The hours that count; None where nothing is known."""
        market = self._markets.get(symbol)
        if market is None or market.instrument is None:
            return None
        if market.hours is not None and (now < market.hours.known_until or market.hours is ALWAYS_OPEN):
            return market.hours
        if self._fallback is None or now >= self._fallback.known_until:
            self._fallback = self._calendar(now)
        return self._fallback

    def closed_until(self, symbol: str, now: int) -> int:
        """When its market opens; 0 if it is open, or nothing is known."""
        hours = self.hours_of(symbol, now)
        return 0 if hours is None else hours.closed_until(now)

    def label(self, symbol: str, now: int) -> str:
        """Which hours count for it; empty where nothing is known."""
        hours = self.hours_of(symbol, now)
        return "" if hours is None else hours.label

    def changes(self, now: int) -> list[MarketChange]:
        """The markets that have opened or closed since this was asked last."""
        found = []
        for symbol, market in self._markets.items():
            until = self.closed_until(symbol, now)
            if bool(until) != market.closed:
                market.closed = bool(until)
                found.append(MarketChange(symbol, until))
        return found

    def has_closed(self, now: int) -> bool:
        """Whether a market was open, and by now the session of all is over: none opens again soon (UniverseSessions).

        Never as long as a contract is unknown. What `changes` found is taken for the present.
        """
        known = [market for market in self._markets.values() if market.instrument is not None]
        self._was_open |= not all(market.closed for market in known)
        if not self._was_open or len(known) < len(self._markets) or not all(market.closed for market in known):
            return False
        hours = {self.hours_of(symbol, now) for symbol in self._markets}
        return UniverseSessions.of((each for each in hours if each is not None), now).at(now) is None

    def stale(self, now: int) -> list[str]:
        """The instruments whose hours are to be asked for again; each is named again only after a while."""
        stale = [
            symbol
            for symbol, market in self._markets.items()
            if market.instrument is not None
            and now - market.read_at >= self._fresh_ms
            and now - market.asked_at >= min(ASK_AGAIN_MS, self._fresh_ms)
        ]
        for symbol in stale:
            self._markets[symbol].asked_at = now
        return stale


def by_reopening(changes: Sequence[MarketChange]) -> dict[int, list[str]]:
    """The markets that have closed, by when they open."""
    found: dict[int, list[str]] = {}
    for symbol, closed_until in changes:
        if closed_until:
            found.setdefault(closed_until, []).append(symbol)
    return found
