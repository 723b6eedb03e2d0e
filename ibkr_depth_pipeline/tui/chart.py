"""Renders the best prices by time as a chart; what was not observed stays empty. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from ibkr_depth_pipeline.formatting import price, short_duration
from ibkr_depth_pipeline.tui.ladder import ASK, BID
from ibkr_depth_pipeline.tui.state import Quote

FEWEST_LINES = 3
COLUMN_MS = 500
"""The time of a column, times the view's zoom."""
_SCALE = 11


def columns_of(width: int) -> int:
    """How many columns of time a chart has."""
    return max(1, width - _SCALE)


def chart(
    symbol: str, quotes: Sequence[Quote | None], width: int, lines: int, zoom: int, ascii_only: bool
) -> list[Text]:
    """A title, and best bid and ask by time in `lines` lines, the newest column of `quotes` at the right."""
    shown = quotes[-columns_of(width) :]
    seen = [quote for quote in shown if quote is not None]
    title = Text(f"{symbol}: best bid and ask, ", "bold", no_wrap=True, overflow="crop")
    title.append(f"{short_duration(columns_of(width) * COLUMN_MS * zoom / 1000)}, ")
    title.append("bid", BID).append(" ").append("ask", ASK)
    title.truncate(width)
    if not seen:
        nothing = Text("not observed in this time", "dim", no_wrap=True, overflow="crop")
        return [title, nothing, *(Text() for _ in range(lines - 2))][:lines]
    low, high = min(quote.bid for quote in seen), max(quote.ask for quote in seen)
    return [title, *_rows(shown, low, high, lines - 1, width, ascii_only)]


def _rows(
    shown: Sequence[Quote | None], low: float, high: float, height: int, width: int, ascii_only: bool
) -> Iterator[Text]:
    step = (high - low) / max(1, height - 1) or 1.0
    blank = width - _SCALE - len(shown)
    for row in range(height):
        text = Text(no_wrap=True, overflow="crop")
        text.append(f"{price(round(high - row * step, 4)):>{_SCALE - 1}} ", "dim").append(" " * blank)
        for quote in shown:
            bid, ask = _at(quote, "bid", high, step, row), _at(quote, "ask", high, step, row)
            text.append("*" if ascii_only else "\u2022", ASK if ask else BID) if bid or ask else text.append(" ")
        yield text


def _at(quote: Quote | None, side: str, high: float, step: float, row: int) -> bool:
    return quote is not None and round((high - getattr(quote, side)) / step) == row
