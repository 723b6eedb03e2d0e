"""One symbol's book as lines of text: ten levels a side, sizes as bars, best on top. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from ibkr_depth_pipeline.formatting import price, short_duration
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.schema.decoding import EMPTY_LEVEL, DepthSnapshot, Level
from ibkr_depth_pipeline.tui.state import Line, Liveness

LADDER_LINES = SNAPSHOT_LEVELS + 1
SMALLEST_WIDTH = 40
_WIDTH_WITH_VENUES = 76
_PRICE, _SIZE, _VENUE = 9, 7, 7

_SAYS = {
    Liveness.LIVE: ("live", "bold green"),
    Liveness.WAIT: ("waits for its turn", "yellow"),
    Liveness.STALE: ("STALE, don't trust it", "bold red"),
    Liveness.NONE: ("never recorded", "red"),
    Liveness.UNSUPPORTED: ("no depth", "dim"),
    Liveness.SILENT: ("silent, others are not", "bold red"),
    Liveness.OUT_OF_STEP: ("book out of step, don't trust it", "bold red"),
    Liveness.UNKNOWN: ("UNKNOWN, Redis is away", "bold red"),
}


def ladder(symbol: str, line: Line | None, width: int, *, ascii_only: bool) -> Iterator[Text]:
    """LADDER_LINES lines of `width` columns, at least SMALLEST_WIDTH. A book that is not live has light bars."""
    yield _title(symbol, line, width)
    book = line.book if line else None
    live = line is not None and line.liveness is Liveness.LIVE
    block = ("#" if live else "-") if ascii_only else ("█" if live else "░")
    largest = max((level.size for level in (*book.bids, *book.asks)), default=0.0) if book else 0.0
    for depth in range(SNAPSHOT_LEVELS):
        yield _levels(book, depth, width, largest, block, "" if live else "dim")


def _title(symbol: str, line: Line | None, width: int) -> Text:
    text = Text(symbol, style="bold", no_wrap=True, overflow="ellipsis")
    if line is None:
        text.append(" unknown", "red")
    else:
        word, style = _SAYS[line.liveness]
        text.append(f" {line.venue or '-'} ", "not bold").append(word, style)
        age = "" if line.age_secs is None else f", {short_duration(line.age_secs)} old"
        text.append(age + _top(line.book), "not bold")
        if line.reason and line.liveness is Liveness.UNSUPPORTED:
            text.append(f": {' '.join(line.reason.split())}", "not bold")
    text.truncate(width, overflow="ellipsis", pad=True)
    return text


def _top(book: DepthSnapshot | None) -> str:
    """The seq, and how lopsided the best sizes are, from -1 (all asks) to +1."""
    if book is None:
        return ""
    bid, ask = book.best_bid, book.best_ask
    if bid is None or ask is None or bid.size + ask.size == 0:
        return f", seq {book.seq}"
    return f", imbalance {(bid.size - ask.size) / (bid.size + ask.size):+.2f}, seq {book.seq}"


def _levels(book: DepthSnapshot | None, depth: int, width: int, largest: float, block: str, style: str) -> Text:
    half = (width - 1) // 2
    bid = _half(book.bids[depth] if book else EMPTY_LEVEL, half, largest, block, ">")
    ask = _half(book.asks[depth] if book else EMPTY_LEVEL, half, largest, block, "<")
    text = Text(no_wrap=True, overflow="crop")
    text.append(" ".join(reversed(bid)), f"{style} green").append(" ").append(" ".join(ask), f"{style} red")
    return text


def _half(level: Level, width: int, largest: float, block: str, inwards: str) -> list[str]:
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
