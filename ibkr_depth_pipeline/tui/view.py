"""What the user has chosen to see, and which lines of the table that leaves, in which order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ibkr_depth_pipeline.tui.state import SymbolLine, WatchState

ALERTS, LANES = "alerts", "lanes"


@dataclass(frozen=True, slots=True)
class View:
    """What the user has chosen. `pinned` symbols get a ladder each if there is room; `selected` always has one.

    back_secs: how long before the moment of the pause the shown moment is; `filter` is part of a symbol, typed while
    `typing`; `sort` a key of ORDERS, "" for the order of the universe; zoom: half seconds per column of the chart;
    theme: one of theme.THEMES; page: what stands in the place of books and table, ALERTS, LANES or "" for these.
    """

    selected: str = ""
    pinned: tuple[str, ...] = ()
    paused: bool = False
    keys: bool = True
    back_secs: float = 0.0
    filter: str = ""
    typing: bool = False
    sort: str = ""
    descending: bool = False
    zoom: int = 1
    help: bool = False
    theme: str = ""
    page: str = ""


def _spread(line: SymbolLine) -> float | None:
    return None if line.bid is None or line.ask is None else line.ask - line.bid


ORDERS: Mapping[str, Callable[[SymbolLine], float | str | None]] = {
    "symbol": lambda line: line.symbol,
    "state": lambda line: line.liveness.value.lower(),
    "next": lambda line: 0.0 if line.holds_slot else line.next_turn_secs,
    "venue": lambda line: line.venue or None,
    "bid": lambda line: line.bid,
    "ask": lambda line: line.ask,
    "spread": _spread,
    "age": lambda line: line.age_secs,
    "rows/s": lambda line: line.rows_per_sec,
    "cover": lambda line: line.coverage,
}
"""The columns that the table can be sorted by. A line without a value comes last, in both directions."""


def listed(state: WatchState, view: View) -> list[SymbolLine]:
    """The lines of the table that match the filter, in its order."""
    wanted = view.filter.upper()
    lines = [line for line in state.lines if wanted in line.symbol.upper()]
    order = ORDERS.get(view.sort)
    if order is None:
        return lines
    known = [line for line in lines if order(line) is not None]
    unknown = [line for line in lines if order(line) is None]
    return [*sorted(known, key=lambda line: (order(line),), reverse=view.descending), *unknown]
