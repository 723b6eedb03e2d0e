"""For how long data was missing, symbol by symbol, and why. Pure bookkeeping; times are unix ms.

News of trouble says that data may be missing; rows may go on all the same. A gap is the longest pause between two rows
from the news to the row that proves the line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DataGap:
    """A symbol's data was missing from `since` to `until`, the times of the rows before and after the longest pause."""

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
    """Opened by whatever interrupts the data, closed by the row that proves a line. The first cause counts."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    def open(self, last_rows: Iterable[tuple[str, int]], cause: str, code: int = 0) -> None:
        """The data of these symbols, with the time of the last row of each, may be missing from now on."""
        for symbol, since in last_rows:
            self._open.setdefault(symbol, _Open(cause, code, since))

    def row(self, symbol: str, ts: int) -> None:
        """A row of the symbol has come that proves nothing yet."""
        if symbol in self._open:
            self._open[symbol].row(ts)

    def close(self, symbol: str, until: int) -> DataGap | None:
        """The row has come that proves the symbol's line. None where nothing was missing."""
        opened = self._open.pop(symbol, None)
        if opened is None:
            return None
        opened.row(until)
        return DataGap(symbol, opened.cause, opened.code, opened.since, opened.until)

    def clock_stepped(self, step_ms: int) -> None:
        """The clock was set by so many ms."""
        for opened in self._open.values():
            opened.clock_stepped(step_ms)

    @property
    def missing(self) -> dict[str, str]:
        """symbol -> cause, of every symbol whose data is missing now."""
        return {symbol: opened.cause for symbol, opened in self._open.items()}
