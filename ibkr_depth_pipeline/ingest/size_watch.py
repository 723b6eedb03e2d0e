"""Watches the unit of each symbol's sizes, across runs: what is known goes into its venue hash, a change is reported.

Pure. The kind of contract and the gateway's contract details show some of it, the sizes seen the rest: books are
sampled every second, not row by row, and judged by WINDOW_LEVELS levels at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ibkr_depth_pipeline.ingest.books import BookState
from ibkr_depth_pipeline.ingest.effects import Effect, LogLine
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.schema.size_units import SizeUnit, change_of, is_judged, unit_of_kind, unit_of_sizes

WINDOW_LEVELS = 200
SHOWN_SECS = 600.0
"""How long the figures show a change."""


@dataclass(slots=True)
class _Symbol:
    unit: SizeUnit = field(default_factory=SizeUnit)
    is_judged: bool = False
    levels: list[tuple[float, float]] = field(default_factory=list)


class SizeWatch:
    """`load` what earlier runs knew, then `requested` for each depth request and `sample` every second or so.

    record(symbol, unit) stores what is newly known, and never waits.
    """

    def __init__(self, record: Callable[[str, SizeUnit], None] = lambda symbol, unit: None) -> None:
        self._record = record
        self._symbols: dict[str, _Symbol] = {}
        self._changes: dict[str, tuple[float, str]] = {}  # symbol -> when it changed, and how

    def load(self, known: Mapping[str, SizeUnit]) -> None:
        """Take what is stored of these symbols."""
        for symbol, unit in known.items():
            self._symbols[symbol] = _Symbol(unit)

    def unit_of(self, symbol: str) -> SizeUnit:
        """What is known by now."""
        found = self._symbols.get(symbol)
        return found.unit if found is not None else SizeUnit()

    def requested(self, instrument: Instrument, server_version: int, now: float) -> list[Effect]:
        """Note the contract that depth is requested of, and the version of the gateway."""
        found = self._symbols.setdefault(instrument.symbol, _Symbol())
        found.is_judged = is_judged(instrument.sec_type, instrument.currency)
        unit = found.unit._replace(
            size_unit=unit_of_kind(instrument.sec_type) or found.unit.size_unit,
            min_size=instrument.min_size if instrument.min_size is not None else found.unit.min_size,
            size_increment=(
                instrument.size_increment if instrument.size_increment is not None else found.unit.size_increment
            ),
            server_version=server_version,
        )
        fractional = unit.size_increment is not None and unit.size_increment % 1 != 0
        return self._take(instrument.symbol, unit._replace(size_fractional=unit.size_fractional or fractional), now)

    def sample(self, symbol: str, book: BookState, now: float) -> list[Effect]:
        """Note the sizes that a book shows now."""
        found = self._symbols.get(symbol)
        if found is None:
            return []
        levels = [(price, size) for price, size, _ in (*book.bids, *book.asks)]
        fractional = found.unit.size_fractional or any(size % 1 for _, size in levels)
        unit = found.unit._replace(size_fractional=fractional)
        if found.is_judged:
            found.levels += levels
            if len(found.levels) >= WINDOW_LEVELS:
                unit = unit._replace(size_unit=unit_of_sizes(found.levels) or unit.size_unit)
                found.levels.clear()
        return self._take(symbol, unit, now)

    def problem(self, now: float) -> str:
        """The changes of the last ten minutes, in words; empty if there were none."""
        self._changes = {symbol: each for symbol, each in self._changes.items() if now - each[0] < SHOWN_SECS}
        return "; ".join(f"{symbol}: {change}" for symbol, (_, change) in self._changes.items())

    def _take(self, symbol: str, unit: SizeUnit, now: float) -> list[Effect]:
        before = self._symbols[symbol].unit
        if unit == before:
            return []
        self._symbols[symbol].unit = unit
        self._record(symbol, unit)
        change = change_of(before, unit)
        if not change:
            return []
        self._changes[symbol] = now, change
        return [LogLine("warning", "size_unit_changed", {"symbol": symbol, "change": change})]
