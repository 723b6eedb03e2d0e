"""For how long data was missing, symbol by symbol, and why. Pure bookkeeping; times are unix ms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gap:
    """A symbol's data was missing from `since` to `until`, the times of the rows before and after it."""

    symbol: str
    cause: str
    code: int
    since: int
    until: int

    @property
    def secs(self) -> float:
        """Its length in seconds."""
        return max(0, self.until - self.since) / 1000


class Gaps:
    """Opened by whatever interrupts the data, closed by the next row of the symbol. The first cause counts."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, int, int]] = {}

    def open(self, last_rows: Iterable[tuple[str, int]], cause: str, code: int = 0) -> None:
        """The data of these symbols, with the time of the last row of each, may be missing from now on."""
        for symbol, since in last_rows:
            self._open.setdefault(symbol, (cause, code, since))

    def close(self, symbol: str, until: int) -> Gap | None:
        """A row of the symbol has come. None where nothing was missing."""
        opened = self._open.pop(symbol, None)
        return None if opened is None else Gap(symbol, *opened, until)

    @property
    def missing(self) -> dict[str, str]:
        """symbol -> cause, of every symbol whose data is missing now."""
        return {symbol: cause for symbol, (cause, _, _) in self._open.items()}
