"""Renders the universe as a table over the whole width. A wider terminal gets more columns. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rich.text import Text

from ibkr_depth_pipeline.formatting import price, short_duration, utc
from ibkr_depth_pipeline.tui.ladder import ASK, BID, imbalance
from ibkr_depth_pipeline.tui.lanes import HEADING, lane
from ibkr_depth_pipeline.tui.state import Lanes, Liveness, SymbolLine, WatchState
from ibkr_depth_pipeline.tui.view import View, listed

WIDTH_WITH_LANES = 112
"""Columns of a terminal whose table has lanes, a quarter of it."""

UP, DOWN = f"bold {BID}", f"bold {ASK}"
_LONGEST_NAME = 24
"""Columns of the symbol, at most; a longer name is cut, which its ladder and the log show whole."""

_STYLES = {
    Liveness.LIVE: "",
    Liveness.WAIT: "dim",
    Liveness.STALE: "bold red",
    Liveness.NONE: "red",
    Liveness.UNSUPPORTED: "dim",
    Liveness.CLOSED: "dim",
    Liveness.SILENT: "bold red",
    Liveness.OUT_OF_STEP: "bold red",
    Liveness.UNKNOWN: "dim",
}


class _Column(NamedTuple):
    """A column of `width` to the right, or to the left if `left`. One with a `rank` is shown if there is room."""

    name: str
    width: int
    text: Callable[[SymbolLine], str]
    left: bool = False
    rank: int = 0
    move: Callable[[SymbolLine], int] | None = None


def next_turn(line: SymbolLine) -> str:
    """When it has its next turn, in at most four columns: `now`, `due`, `12s`, `5m`, `2h`, `-`."""
    if line.holds_slot:
        return "now"
    secs = line.next_turn_secs
    if secs is None:
        return "-"
    if secs < 0.5:
        return "due"
    if secs < 99.5:
        return f"{secs:.0f}s"
    return f"{secs / 60:.0f}m" if secs < 5970 else f"{min(999, secs / 3600):.0f}h"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _price(value: float | None) -> str:
    return "-" if value is None else price(value)


def _size(line: SymbolLine, side: str) -> str:
    best = getattr(line.book, side) if line.book else None
    return "-" if best is None else f"{best.size:.6g}"


def _spread(line: SymbolLine) -> str:
    return "-" if line.bid is None or line.ask is None else price(round(line.ask - line.bid, 6))


def _imbalance(line: SymbolLine) -> str:
    value = imbalance(line.book) if line.book else None
    return "-" if value is None else f"{value:+.2f}"


_COLUMNS = (
    _Column("symbol", 7, lambda line: line.symbol, left=True),
    _Column("state", 5, lambda line: line.liveness.value, left=True),
    _Column("slot", 4, lambda line: "held" if line.holds_slot else "", left=True, rank=1),
    _Column("next", 4, next_turn),
    _Column("venue", 7, lambda line: line.venue, left=True),
    _Column("bid size", 8, lambda line: _size(line, "best_bid"), rank=2),
    _Column("bid", 9, lambda line: _price(line.bid), move=lambda line: line.bid_move),
    _Column("ask", 9, lambda line: _price(line.ask), move=lambda line: line.ask_move),
    _Column("ask size", 8, lambda line: _size(line, "best_ask"), rank=2),
    _Column("spread", 7, _spread),
    _Column("imbal", 5, _imbalance, rank=3),
    _Column("age", 7, lambda line: short_duration(line.age_secs)),
    _Column("ttl", 4, lambda line: _number(line.ttl_secs)),
    _Column("share", 5, lambda line: _percent(line.figures.share or None), rank=4),
    _Column("rows", 9, lambda line: f"{line.figures.rows}", rank=5),
    _Column("lost", 6, lambda line: f"{line.figures.lost}", rank=6),
    _Column("309s", 5, lambda line: f"{line.figures.refused_309}", rank=7),
    _Column("rows/s", 6, lambda line: _number(line.rows_per_sec)),
    _Column("cover", 5, lambda line: _percent(line.coverage)),
)
"""Those without a rank, and the blanks between them, are 80 columns."""


class _Layout(NamedTuple):
    """The columns that fit, their widths, and the blanks before each."""

    columns: Sequence[_Column]
    widths: Sequence[int]
    gaps: Sequence[int]


def table(
    state: WatchState,
    view: View,
    width: int,
    room: int,
    *,
    ascii_only: bool = False,
    lanes: Lanes | None = None,
    now_ms: int = 0,
) -> Iterator[Text]:
    """The heading and as many symbols as there is room for, the selected one among them.

    `lanes` up to now_ms, if there is room for them; None if nothing is known of them.
    """
    if room < 2:
        return
    lane_width = width // 4 if lanes is not None and width >= WIDTH_WITH_LANES else 0
    width = width - lane_width - (2 if lane_width else 0)
    lines = listed(state, view)
    names = [line.symbol for line in lines]
    widest = min(_LONGEST_NAME, max([_COLUMNS[0].width, *(len(line.symbol) + 1 for line in state.lines)]))
    layout = _layout(width, widest)
    heading = _heading(layout, view, width, ascii_only)
    if lane_width:
        heading.append("  ", "not underline").append(f"{HEADING:<{lane_width}}")
    yield heading
    fits = room - 1
    at = names.index(view.selected) if view.selected in names else 0
    first = max(0, min(at - fits // 2, len(names) - fits))
    for line in lines[first : first + fits]:
        text = _line(line, line.symbol == view.selected, layout, width, ascii_only)
        if lane_width and lanes is not None:
            turns = lanes.get(line.symbol, ())
            text = Text("  ", no_wrap=True, overflow="crop").join(
                [text, lane(turns, lane_width, now_ms, ascii_only=ascii_only)]
            )
        yield text
    if not lines and state.lines:
        yield Text(f"No symbol matches {view.filter}.", "dim", no_wrap=True, overflow="crop")


def _layout(width: int, widest: int) -> _Layout:
    """The columns that fit into `width`; what is left over widens the blanks between them."""
    widths = {column: widest if column is _COLUMNS[0] else column.width for column in _COLUMNS}
    shown = [column for column in _COLUMNS if not column.rank]
    for rank in range(1, max(column.rank for column in _COLUMNS) + 1):
        more = [column for column in _COLUMNS if column in shown or column.rank == rank]
        if sum(widths[column] + 1 for column in more) - 1 > width:
            break
        shown = more
    places = len(shown) - 1
    left = max(0, width - sum(widths[column] for column in shown) - places)
    gaps = [0, *(1 + left * (at + 1) // places - left * at // places for at in range(places))]
    return _Layout(shown, [widths[column] for column in shown], gaps)


def _heading(layout: _Layout, view: View, width: int, ascii_only: bool) -> Text:
    mark = _sign(-1 if view.descending else 1, ascii_only)
    text = Text(style="bold underline", no_wrap=True, overflow="crop")
    for column, size, gap in zip(*layout, strict=True):
        name = f"{column.name[: size - 1]}{mark}" if column.name == view.sort else column.name
        text.append(" " * gap + (f"{name:<{size}}" if column.left else f"{name:>{size}}"))
    return _cut(text, width)


def _line(line: SymbolLine, selected: bool, layout: _Layout, width: int, ascii_only: bool) -> Text:
    text = Text(style=_STYLES[line.liveness] + (" reverse" if selected else ""), no_wrap=True, overflow="crop")
    for column, size, gap in zip(*layout, strict=True):
        if column is _COLUMNS[0]:
            text.append(f"{'>' if selected else ' '}{line.symbol}"[:size].ljust(size))
        elif line.closed_until:
            text.append(f" closed until {utc(line.closed_until)}".ljust(width - len(text)))
            break
        elif column.move is not None:
            move = column.move(line)
            cell = f"{_sign(move, ascii_only)}{column.text(line)}"
            text.append(f"{cell:>{size + gap}}"[-size - gap :], {1: UP, -1: DOWN}.get(move))
        else:
            cell = column.text(line)[:size]
            text.append(" " * gap + (f"{cell:<{size}}" if column.left else f"{cell:>{size}}"))
    return _cut(text, width)


def _sign(move: int, ascii_only: bool) -> str:
    """What shows a change without colours."""
    return {1: "^" if ascii_only else "\u25b2", -1: "v" if ascii_only else "\u25bc"}.get(move, "")


def _cut(text: Text, width: int) -> Text:
    text.truncate(width)
    return text
