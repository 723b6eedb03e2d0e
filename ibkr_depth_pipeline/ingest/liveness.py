"""Tracks which subscriptions are alive: reports that put them in doubt, rows that prove them, gaps in their data. Pure.

A dead line looks like a quiet one. So a report of trouble puts every subscription in doubt, and the report of its end
does so again: lines stay dead after troubles that are over. Only a row that came after the report proves its line. Rows
may go on all the same, so a gap is the longest pause between two rows from the report to the row that proves the line.
Lines that die without a report are found by silence.py.

`now` is monotonic seconds; times of rows are unix ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

AILING_SECS = 30.0
"""How long a subscription may stay silent after news of a broken farm or a competing session, if no news of its end
comes, before it is requested again. A blip of three seconds has killed feeds for hours elsewhere."""

CURED_SECS = 5.0
"""The same, once the farm is reported well."""

IN_FLIGHT_SECS = 2.0
"""Rows that come so soon after bad news may have been in flight before it; they prove nothing."""

_AILMENTS = frozenset({2103, 2108, 2110, 10197})
"""Farm status codes about live market data; the others are about historical data."""

_CURED_BY = {2104: frozenset({2103, 2108, 2110})}


class LivenessTracker:
    """Tracks which subscriptions are suspect, by request id. ailing_secs: AILING_SECS, in a test fewer."""

    def __init__(self, ailing_secs: float = AILING_SECS) -> None:
        self._ailing_secs = ailing_secs
        self.awaited: set[int] = set()
        """The requests that are new or in doubt: their next row is awaited. Changed by this tracker alone."""
        self.suspended = False
        """Whether the gateway has reported the loss of IBKR (1100)."""
        self._ailments: set[int] = set()
        self._proof_from = 0.0

    @property
    def ailments(self) -> tuple[int, ...]:
        """The codes of the troubles with live market data that still stand."""
        return tuple(sorted(self._ailments))

    # ---- the connection

    def connecting(self) -> None:
        """Forget the reports on earlier connections: one is being tried, and reports count from now on."""
        self._well_again()
        self._proof_from = 0.0

    def disconnected(self) -> None:
        """Await no request: the connection is gone."""
        self.awaited.clear()

    # ---- one request

    def await_row(self, request: int) -> None:
        """Await the next row of the request: it is new, or in doubt."""
        self.awaited.add(request)

    def forget(self, request: int) -> None:
        """Await no row of the request any more; that proves nothing."""
        self.awaited.discard(request)

    def is_proof(self, now: float) -> bool:
        """Whether a row that comes now proves its line alive."""
        return now >= self._proof_from

    def prove(self, request: int) -> None:
        """Take the request for alive: a row came. If it was the last in doubt, no trouble stands any longer."""
        self.awaited.discard(request)
        if not self.awaited:
            self._ailments.clear()

    # ---- reports that put all `requests` in doubt

    def connectivity_lost(self, requests: Iterable[int], now: float) -> None:
        """Note that the gateway lost IBKR (1100)."""
        self.suspended = True
        self._doubt(requests, now + IN_FLIGHT_SECS)

    def connectivity_restored(self, requests: Iterable[int], now: float) -> None:
        """Note that the gateway found IBKR again (1101, 1102)."""
        self._well_again()
        self._doubt(requests, now)

    def outage_assumed_over(self) -> None:
        """Take the outage for over without a report: lines are requested again, and their first rows awaited."""
        self._well_again()

    def farm_status(self, code: int, requests: Iterable[int], now: float) -> float | None:
        """Note a report on a farm or a competing session (21xx, 10197).

        Returns within how many seconds each request must bring a row, or else be requested again. None: nothing is in
        doubt, as the report is not about live market data, or ends no known trouble.
        """
        cured = self._ailments & _CURED_BY.get(code, frozenset())
        if cured:
            self._ailments -= cured
            self._doubt(requests, now)
            return CURED_SECS
        if code in _AILMENTS:
            self._ailments.add(code)
            self._doubt(requests, now + IN_FLIGHT_SECS)
            return self._ailing_secs
        return None

    def _well_again(self) -> None:
        self.suspended = False
        self._ailments.clear()

    def _doubt(self, requests: Iterable[int], proof_from: float) -> None:
        self.awaited.update(requests)
        self._proof_from = proof_from


@dataclass(frozen=True, slots=True)
class DataGap:
    """A time in which a symbol's data was missing: the longest pause between two rows, unix ms."""

    symbol: str
    cause: str
    code: int
    since: int
    until: int

    @property
    def secs(self) -> float:
        """Its length in seconds."""
        return max(0, self.until - self.since) / 1000


@dataclass(slots=True)
class _Open:
    cause: str
    code: int
    newest: int  # row, unix ms
    since: int = 0
    until: int = 0

    def row(self, ts: int) -> None:
        if ts - self.newest >= self.until - self.since:
            self.since, self.until = self.newest, ts
        self.newest = ts

    def clock_stepped(self, step_ms: int) -> None:
        self.newest += step_ms
        if self.until:
            self.since, self.until = self.since + step_ms, self.until + step_ms


class DataGaps:
    """The open gaps, by symbol, each from an interruption to the row that proves the line. The first cause counts."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    def open(self, last_rows: Iterable[tuple[str, int]], cause: str, code: int = 0) -> None:
        """Open a gap for each symbol from its last row on, unix ms, unless one is open."""
        for symbol, since in last_rows:
            self._open.setdefault(symbol, _Open(cause, code, since))

    def row(self, symbol: str, ts: int) -> None:
        """Note a row of the symbol that proves nothing yet."""
        if symbol in self._open:
            self._open[symbol].row(ts)

    def close(self, symbol: str, until: int) -> DataGap | None:
        """Close the gap at the row that proves the symbol's line. None: there is none."""
        opened = self._open.pop(symbol, None)
        if opened is None:
            return None
        opened.row(until)
        return DataGap(symbol, opened.cause, opened.code, opened.since, opened.until)

    def clock_stepped(self, step_ms: int) -> None:
        """Move the open gaps along with a clock that was set by so many ms."""
        for opened in self._open.values():
            opened.clock_stepped(step_ms)

    @property
    def missing(self) -> dict[str, str]:
        """symbol -> cause, of every open gap."""
        return {symbol: opened.cause for symbol, opened in self._open.items()}
