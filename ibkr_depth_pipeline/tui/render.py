"""Renders a WatchState as a frame that fits the terminal: the ingest's line, ladders, the universe, the keys. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest

from rich.text import Text

from ibkr_depth_pipeline.formatting import price, short_duration, utc
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.schema.decoding import EMPTY_LEVEL, DepthSnapshot, Level
from ibkr_depth_pipeline.schema.health import IngestHealth
from ibkr_depth_pipeline.tui.state import Liveness, SymbolLine, WatchState

KEYS = "q quit   arrows, tab or j k: symbol   space: pause"
LADDER_LINES = SNAPSHOT_LEVELS + 1
SMALLEST_WIDTH = 40
"""Columns of a ladder, at least."""

_LADDER_WIDTH = 60
_WIDTH_WITH_VENUES = 76
_PRICE, _SIZE, _VENUE = 9, 7, 7
_FEWEST_TABLE_LINES = 4

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

_LONGEST_NAME = 24
"""Columns of the symbol, at most; a longer name is cut, which its ladder and the log show whole."""


@dataclass(frozen=True, slots=True)
class View:
    """What the user has chosen. `pinned` symbols get a ladder each if there is room; `selected` always has one."""

    selected: str = ""
    pinned: tuple[str, ...] = ()
    paused: bool = False
    keys: bool = True


def frame(state: WatchState, view: View, width: int, height: int | None, *, ascii_only: bool = False) -> list[Text]:
    """The lines of the screen, at most `height` of them; None for as many as it takes."""
    rows = 1 + len(state.lines)
    foot = [Text(KEYS, "dim", no_wrap=True, overflow="crop")] if view.keys else []
    lines = list(_head(state, view, width))
    room = None if height is None else max(0, height - len(lines) - len(foot))
    lines += _ladders(state, _with_ladders(view, width, room, rows), width, ascii_only)
    lines += _table(state, view.selected, width, rows if height is None else height - len(lines) - len(foot))
    if height is not None:
        lines = lines[: height - len(foot)]
        lines += [Text()] * (height - len(foot) - len(lines))
    return [*lines, *foot]


def _head(state: WatchState, view: View, width: int) -> Iterator[Text]:
    clock = datetime.fromtimestamp(state.ts / 1000).strftime("%H:%M:%S")
    mark = " PAUSED" if view.paused else ""
    if state.problem:
        text = Text(f"NO REDIS, this is of {clock}: {state.problem}", "bold red reverse")
    elif state.health is None:
        text = Text("looking into Redis", "dim")
    else:
        text = _feed(state.health.feed)
        troubled = [f"{each.symbol}: {each.trouble}" for each in state.health.symbols if each.trouble]
        if troubled and not state.health.feed.problem:
            text = Text("; ".join(troubled), "bold red")
    right = Text(f"{mark} {clock}", "bold")
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
    if room is not None and down > 1:  # a second row of ladders only if the whole table stays
        down = max(1, (room - rows) // LADDER_LINES)
    shown = sorted(wanted[: across * down], key=lambda symbol: (symbol not in view.pinned, _place(symbol, view.pinned)))
    return [shown[start : start + across] for start in range(0, len(shown), across)]


def _place(symbol: str, pinned: Sequence[str]) -> int:
    return pinned.index(symbol) if symbol in pinned else 0


def _ladders(state: WatchState, rows: Sequence[Sequence[str]], width: int, ascii_only: bool) -> Iterator[Text]:
    for symbols in rows:
        each = max(SMALLEST_WIDTH, (width - 2 * (len(symbols) - 1)) // len(symbols))
        columns = [list(ladder(symbol, state.line(symbol), each, ascii_only=ascii_only)) for symbol in symbols]
        for parts in zip_longest(*columns):
            yield Text("  ", no_wrap=True, overflow="crop").join(parts)


def _table(state: WatchState, selected: str, width: int, room: int) -> Iterator[Text]:
    """The heading and as many symbols as there is room for, the selected one among them."""
    if room < 2:
        return
    names = [line.symbol for line in state.lines]
    widest = min(_LONGEST_NAME, max([-_COLUMNS[0][1], *(len(name) + 1 for name in names)]))
    heading = _row([name for name, _ in _COLUMNS], widest)[:width]
    yield Text(heading, "bold underline", no_wrap=True, overflow="crop")
    fits = room - 1
    at = names.index(selected) if selected in names else 0
    first = max(0, min(at - fits // 2, len(names) - fits))
    for line in state.lines[first : first + fits]:
        style = _STYLES[line.liveness] + (" reverse" if line.symbol == selected else "")
        row = _row(_cells(line, line.symbol == selected), widest)
        if line.closed_until:
            row = f"{row[: widest + 1]}closed until {utc(line.closed_until)}"
        yield Text(row[:width], style, no_wrap=True, overflow="crop")


def _row(cells: Sequence[str], widest: int) -> str:
    """The cells beside each other; the symbol has `widest` columns."""
    parts = [f"{cells[0][:widest]:<{widest}}"]
    for cell, (_, width) in zip(cells[1:], _COLUMNS[1:], strict=True):
        parts.append(f"{cell[:-width]:<{-width}}" if width < 0 else f"{cell[:width]:>{width}}")
    return " ".join(parts)


def _cells(line: SymbolLine, selected: bool) -> list[str]:
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
        _number(line.ttl_secs),
        _number(line.rows_per_sec),
        _percent(line.coverage),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


# ---- ladders

_STATE_TEXTS = {
    Liveness.LIVE: ("live", "bold green"),
    Liveness.WAIT: ("waits for its turn", "yellow"),
    Liveness.STALE: ("STALE, don't trust it", "bold red"),
    Liveness.NONE: ("never recorded", "red"),
    Liveness.UNSUPPORTED: ("no depth", "dim"),
    Liveness.CLOSED: ("closed", "dim"),
    Liveness.SILENT: ("silent, others are not", "bold red"),
    Liveness.OUT_OF_STEP: ("book out of step, don't trust it", "bold red"),
    Liveness.UNKNOWN: ("UNKNOWN, Redis is away", "bold red"),
}


def ladder(symbol: str, line: SymbolLine | None, width: int, *, ascii_only: bool) -> Iterator[Text]:
    """LADDER_LINES lines of `width` columns, at least SMALLEST_WIDTH. A book that is not live has light bars."""
    yield _ladder_title(symbol, line, width)
    book = line.book if line else None
    live = line is not None and line.liveness is Liveness.LIVE
    block = ("#" if live else "-") if ascii_only else ("█" if live else "░")
    largest = max((level.size for level in (*book.bids, *book.asks)), default=0.0) if book else 0.0
    for depth in range(SNAPSHOT_LEVELS):
        yield _levels(book, depth, width, largest, block, "" if live else "dim")


def _ladder_title(symbol: str, line: SymbolLine | None, width: int) -> Text:
    text = Text(symbol, style="bold", no_wrap=True, overflow="ellipsis")
    if line is None:
        text.append(" unknown", "red")
    else:
        word, style = _STATE_TEXTS[line.liveness]
        until = f" until {utc(line.closed_until)}" if line.closed_until else ""
        text.append(f" {line.venue or '-'} ", "not bold").append(f"{word}{until}", style)
        age = "" if line.age_secs is None else f", {short_duration(line.age_secs)} old"
        text.append(age + _imbalance(line.book), "not bold")
        if line.reason and line.liveness is Liveness.UNSUPPORTED:
            text.append(f": {' '.join(line.reason.split())}", "not bold")
    text.truncate(width, overflow="ellipsis", pad=True)
    return text


def _imbalance(book: DepthSnapshot | None) -> str:
    """The seq, and the imbalance of the best sizes, from -1 (all asks) to +1."""
    if book is None:
        return ""
    bid, ask = book.best_bid, book.best_ask
    if bid is None or ask is None or bid.size + ask.size == 0:
        return f", seq {book.seq}"
    return f", imbalance {(bid.size - ask.size) / (bid.size + ask.size):+.2f}, seq {book.seq}"


def _levels(book: DepthSnapshot | None, depth: int, width: int, largest: float, block: str, style: str) -> Text:
    half = (width - 1) // 2
    bid = _half_level(book.bids[depth] if book else EMPTY_LEVEL, half, largest, block, ">")
    ask = _half_level(book.asks[depth] if book else EMPTY_LEVEL, half, largest, block, "<")
    text = Text(no_wrap=True, overflow="crop")
    text.append(" ".join(reversed(bid)), f"{style} green").append(" ").append(" ".join(ask), f"{style} red")
    return text


def _half_level(level: Level, width: int, largest: float, block: str, inwards: str) -> list[str]:
    """Price, size, venue, bar, from the middle outwards. `inwards` is the alignment towards the middle."""
    venue = [_VENUE] if 2 * width + 1 >= _WIDTH_WITH_VENUES else []
    room = width - sum([_PRICE, _SIZE, *venue]) - 2 - len(venue)
    if level == EMPTY_LEVEL:
        return [f"{'.':>{_PRICE}}", " " * _SIZE, *(" " * each for each in venue), " " * room]
    length = max(1, round(level.size / largest * room)) if largest and level.size else 0
    return [
        f"{price(level.price):>{_PRICE}}",
        f"{_short(level.size):>{_SIZE}}",
        *(f"{level.venue[:each]:{inwards}{each}}" for each in venue),
        f"{block * length:{inwards}{room}}",
    ]


def _short(size: float) -> str:
    if size < 1_000_000:
        return f"{size:.6g}"
    return f"{size / 1e6:.4g}M"
