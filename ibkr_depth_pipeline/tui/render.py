"""A sight as a frame that fits the terminal: a line about the ingest, ladders, the universe, the keys. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.text import Text

from ibkr_depth_pipeline.formatting import price, short_duration
from ibkr_depth_pipeline.schema.health import IngestHealth
from ibkr_depth_pipeline.tui.ladder import LADDER_LINES, SMALLEST_WIDTH, ladder
from ibkr_depth_pipeline.tui.state import Line, Liveness, Sight
from ibkr_depth_pipeline.tui.words import number, percent

KEYS = "q quit   arrows, tab or j k: symbol   space: pause"
_LADDER_WIDTH = 60
_FEWEST_TABLE_LINES = 4

_STYLES = {
    Liveness.LIVE: "",
    Liveness.WAIT: "dim",
    Liveness.STALE: "bold red",
    Liveness.NONE: "red",
    Liveness.UNSUPPORTED: "dim",
    Liveness.SILENT: "bold red",
    Liveness.OUT_OF_STEP: "bold red",
    Liveness.UNKNOWN: "dim",
}
_COLUMNS = (
    ("symbol", -7),
    ("state", -5),
    ("slot", -4),
    ("venue", -7),
    ("bid", 9),
    ("ask", 9),
    ("spread", 7),
    ("age", 7),
    ("ttl", 4),
    ("rows/s", 6),
    ("cover", 5),
)
"""Heading and width; negative: to the left. All of them and the blanks between them are 80 columns."""


@dataclass(frozen=True, slots=True)
class View:
    """What the person has chosen. `pinned` get a ladder each as far as there is room; `selected` always has one."""

    selected: str = ""
    pinned: tuple[str, ...] = ()
    paused: bool = False
    keys: bool = True


def frame(sight: Sight, view: View, width: int, height: int | None, *, ascii_only: bool = False) -> list[Text]:
    """The lines of the screen, at most `height` of them; None for as many as it takes."""
    rows = 1 + len(sight.lines)
    foot = [Text(KEYS, "dim", no_wrap=True, overflow="crop")] if view.keys else []
    lines = list(_head(sight, view, width))
    room = None if height is None else max(0, height - len(lines) - len(foot))
    lines += _ladders(sight, _with_ladders(view, width, room, rows), width, ascii_only)
    lines += _table(sight, view.selected, rows if height is None else height - len(lines) - len(foot))
    if height is not None:
        lines = lines[: height - len(foot)]
        lines += [Text()] * (height - len(foot) - len(lines))
    return [*lines, *foot]


def _head(sight: Sight, view: View, width: int) -> Iterator[Text]:
    clock = time.strftime("%H:%M:%S", time.localtime(sight.ts / 1000))
    state = "PAUSED" if view.paused else ""
    if sight.problem:
        text = Text(f"NO REDIS, this is of {clock}: {sight.problem}", "bold red reverse")
    elif sight.health is None:
        text = Text("looking into Redis", "dim")
    else:
        text = _feed(sight.health.feed)
        troubled = [f"{each.symbol}: {each.trouble}" for each in sight.health.symbols if each.trouble]
        if troubled and not sight.health.feed.problem:
            text = Text("; ".join(troubled), "bold red")
    right = Text(f" {state} {clock}" if state else f" {clock}", "bold")
    text.truncate(max(0, width - len(right)), overflow="ellipsis", pad=True)
    yield text.append_text(right)


def _feed(feed: IngestHealth) -> Text:
    if feed.problem:
        return Text(f"ingest {feed.name}: {feed.problem}", "bold red")
    text = Text(f"ingest {feed.name} runs", "bold green")
    if feed.figures is not None:
        figures = feed.figures
        text.append(
            f"  batch {figures.batch_size}  turns {figures.turns}  309s {figures.refused_309}"
            f"  reconnects {figures.reconnects}  lost {figures.lost}",
            "not bold default",
        )
    return text


def _with_ladders(view: View, width: int, room: int | None, rows: int) -> list[list[str]]:
    """The symbols that get a ladder, in rows beside each other; the selected one first."""
    wanted = [view.selected] if view.selected else []
    wanted += [symbol for symbol in view.pinned if symbol not in wanted]
    across = max(1, width // _LADDER_WIDTH)
    down = len(wanted) if room is None else max(0, (room - min(rows, _FEWEST_TABLE_LINES)) // LADDER_LINES)
    if room is not None and down > 1:  # a second row of ladders only where the whole table stays
        down = max(1, (room - rows) // LADDER_LINES)
    shown = sorted(wanted[: across * down], key=lambda symbol: (symbol not in view.pinned, _place(symbol, view.pinned)))
    return [shown[start : start + across] for start in range(0, len(shown), across)]


def _place(symbol: str, pinned: Sequence[str]) -> int:
    return pinned.index(symbol) if symbol in pinned else 0


def _ladders(sight: Sight, rows: Sequence[Sequence[str]], width: int, ascii_only: bool) -> Iterator[Text]:
    for symbols in rows:
        each = max(SMALLEST_WIDTH, (width - 2 * (len(symbols) - 1)) // len(symbols))
        columns = [list(ladder(symbol, sight.line(symbol), each, ascii_only=ascii_only)) for symbol in symbols]
        for parts in zip_longest(*columns):
            yield Text("  ", no_wrap=True, overflow="crop").join(parts)


def _table(sight: Sight, selected: str, room: int) -> Iterator[Text]:
    """The heading and as many symbols as there is room for, the selected one among them."""
    if room < 2:
        return
    yield Text(_row([name for name, _ in _COLUMNS]), "bold underline", no_wrap=True, overflow="crop")
    fits = room - 1
    names = [line.symbol for line in sight.lines]
    at = names.index(selected) if selected in names else 0
    first = max(0, min(at - fits // 2, len(names) - fits))
    for line in sight.lines[first : first + fits]:
        style = _STYLES[line.liveness] + (" reverse" if line.symbol == selected else "")
        yield Text(_row(_cells(line, line.symbol == selected)), style, no_wrap=True, overflow="crop")


def _row(cells: Sequence[str]) -> str:
    parts = []
    for cell, (_, width) in zip(cells, _COLUMNS, strict=True):
        parts.append(f"{cell[:-width]:<{-width}}" if width < 0 else f"{cell[:width]:>{width}}")
    return " ".join(parts)


def _cells(line: Line, selected: bool) -> list[str]:
    bid = line.book.best_bid if line.book else None
    ask = line.book.best_ask if line.book else None
    return [
        f"{'>' if selected else ' '}{line.symbol}",
        line.liveness.value,
        "yes" if line.holds_slot else "",
        line.venue,
        price(bid.price) if bid else "-",
        price(ask.price) if ask else "-",
        price(round(ask.price - bid.price, 6)) if bid and ask else "-",
        short_duration(line.age_secs),
        number(line.ttl_secs),
        number(line.rows_per_sec),
        percent(line.coverage),
    ]
