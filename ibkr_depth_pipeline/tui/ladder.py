"""Renders a symbol's book as a ladder of ten levels a side. Pure.

Bids are blue and asks orange, which the colour-blind distinguish, and have their own side in any case.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from ibkr_depth_pipeline.formatting import price, short_duration, utc
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.schema.decoding import EMPTY_LEVEL, DepthSnapshot, Level
from ibkr_depth_pipeline.tui.state import Liveness, SymbolLine

LADDER_LINES = SNAPSHOT_LEVELS + 1
SMALLEST_WIDTH = 40
"""Columns of a ladder, at least."""
BID, ASK = "dodger_blue1", "dark_orange"

_WIDTH_WITH_VENUES = 76
_PRICE, _SIZE, _VENUE = 9, 7, 7

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
    """The seq, and the imbalance of the best sizes."""
    if book is None:
        return ""
    value = imbalance(book)
    return f", seq {book.seq}" if value is None else f", imbalance {value:+.2f}, seq {book.seq}"


def imbalance(book: DepthSnapshot) -> float | None:
    """That of the best sizes, from -1 (all asks) to +1; None if a side is empty."""
    bid, ask = book.best_bid, book.best_ask
    if bid is None or ask is None or bid.size + ask.size == 0:
        return None
    return (bid.size - ask.size) / (bid.size + ask.size)


def _levels(book: DepthSnapshot | None, depth: int, width: int, largest: float, block: str, style: str) -> Text:
    half = (width - 1) // 2
    bid = _half_level(book.bids[depth] if book else EMPTY_LEVEL, half, largest, block, ">")
    ask = _half_level(book.asks[depth] if book else EMPTY_LEVEL, half, largest, block, "<")
    text = Text(no_wrap=True, overflow="crop")
    text.append(" ".join(reversed(bid)), f"{style} {BID}").append(" ").append(" ".join(ask), f"{style} {ASK}")
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
