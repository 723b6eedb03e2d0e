"""Books and slot use as Markdown, for metadata: a ladder as a table, and a picture of who held a slot when. Pure.

The picture is an SVG with a row per symbol, the darker the longer its book was live. Its cells are one small PNG, so
that a whole day of a large universe stays a few kilobytes: it is stored with the event.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from html import escape
from itertools import zip_longest

from ibkr_depth_pipeline.ingest.books import LiveInterval
from ibkr_depth_pipeline.model import EMPTY_LEVEL, Level, Levels
from ibkr_depth_pipeline.pictures import SlotShares, slot_timeline

_MOST_COLUMNS, _MOST_ROWS = 400, 60
_WIDTH, _LABELS, _SHARES, _AXIS = 640, 76, 48, 22
_ROW = 18
_TICKS = 5


# ---- a book


def ladder_markdown(bids: Levels, asks: Levels) -> str:
    """A book as a table, best on top, bids on the left. Rows empty on both sides are left out; "" if all are."""
    rows = [_ladder_row(bid, ask) for bid, ask in zip_longest(bids, asks, fillvalue=EMPTY_LEVEL) if bid[1] or ask[1]]
    if not rows:
        return ""
    head = "| venue | size | bid | ask | size | venue |"
    return "\n".join([head, "| --- | ---: | ---: | ---: | ---: | --- |", *rows])


def _ladder_row(bid: Level, ask: Level) -> str:
    cells = [*reversed(_cells(bid)), *_cells(ask)]
    return f"| {' | '.join(cells)} |"


def _cells(level: Level) -> list[str]:
    price, size, venue = level
    if level == EMPTY_LEVEL:
        return ["", "", ""]
    return [f"{price:,.10g}", f"{size:,.10g}", venue.replace("|", "\\|")]


# ---- slot use


def coverage_markdown(stretches: Sequence[LiveInterval], symbols: Sequence[str], start: int, end: int) -> str:
    """The picture of the time from `start` to `end` (unix ms) as Markdown; "" if there is nothing to show."""
    shown = symbols[:_MOST_ROWS]
    if not shown or end <= start:
        return ""
    return _markdown(coverage_svg(stretches, shown, start, end), len(symbols) - len(shown))


def slots_markdown(symbols: Sequence[str], shares: SlotShares, start: int, end: int) -> str:
    """As `coverage_markdown`, of shares of equal parts of that time, a row a symbol."""
    some = SlotShares(*(rows[:_MOST_ROWS] for rows in shares))
    return _markdown(_slots_svg(symbols[:_MOST_ROWS], some, start, end), max(0, len(symbols) - _MOST_ROWS))


def _markdown(svg: str, left_out: int) -> str:
    note = f"\n\nThe other {left_out} symbols are not shown." if left_out else ""
    picture = base64.b64encode(svg.encode()).decode()
    return f"![Which symbol held a slot when](data:image/svg+xml;base64,{picture}){note}"


def live_shares(stretches: Iterable[LiveInterval], symbol: str, start: int, end: int, columns: int) -> list[float]:
    """The share of each of `columns` equal parts of the time in which the symbol's book was live."""
    width = (end - start) / columns
    live = [0.0] * columns
    for stretch in stretches:
        if stretch.symbol != symbol:
            continue
        first, last = max(start, stretch.start) - start, min(end, stretch.end) - start
        for column in range(max(0, int(first / width)), min(columns - 1, int(last / width)) + 1):
            live[column] += max(0.0, min(last, (column + 1) * width) - max(first, column * width))
    return [min(1.0, each / width) for each in live]


def coverage_svg(stretches: Iterable[LiveInterval], symbols: Sequence[str], start: int, end: int) -> str:
    """The picture of `coverage_markdown`."""
    columns = max(1, min(_MOST_COLUMNS, int((end - start) / 250)))
    by_symbol: dict[str, list[LiveInterval]] = {symbol: [] for symbol in symbols}
    for stretch in stretches:
        by_symbol.get(stretch.symbol, []).append(stretch)
    rows = [live_shares(by_symbol[symbol], symbol, start, end, columns) for symbol in symbols]
    return _slots_svg(symbols, SlotShares(rows, rows), start, end)


def _slots_svg(symbols: Sequence[str], shares: SlotShares, start: int, end: int) -> str:
    """A picture with a white ground of its own, since the page may be dark."""
    plot, height = _WIDTH - _LABELS - _SHARES, _ROW * len(symbols)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height + _AXIS}" '
        'font-family="sans-serif" font-size="11" fill="#333">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<rect x="{_LABELS}" width="{plot}" height="{height}" fill="#eef0f4"/>',
        f'<image x="{_LABELS}" width="{plot}" height="{height}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="{slot_timeline(*shares)}"/>',
        *(_row(number, symbol, row) for number, (symbol, row) in enumerate(zip(symbols, shares.live, strict=True))),
        *(_tick(number, start, end, plot, height) for number in range(_TICKS)),
        "</svg>",
    ]
    return "".join(parts)


def _row(number: int, symbol: str, shares: Sequence[float]) -> str:
    middle, share = number * _ROW + 13, sum(shares) / len(shares)
    line = f'<path d="M0 {(number + 1) * _ROW}h{_WIDTH}" stroke="#fff"/>'
    label = f'<text x="{_LABELS - 6}" y="{middle}" text-anchor="end">{escape(symbol)}</text>'
    return f'{line}{label}<text x="{_WIDTH - 6}" y="{middle}" text-anchor="end">{share:.0%}</text>'


def _tick(number: int, start: int, end: int, plot: int, height: int) -> str:
    part = number / (_TICKS - 1)
    moment = datetime.fromtimestamp((start + part * (end - start)) / 1000, timezone.utc)
    text = moment.strftime("%H:%M" if end - start > 600_000 else "%H:%M:%S")
    anchor = "start" if number == 0 else "end" if number == _TICKS - 1 else "middle"
    zone = " UTC" if number == _TICKS - 1 else ""
    return f'<text x="{_LABELS + part * plot:.0f}" y="{height + 15}" text-anchor="{anchor}">{text}{zone}</text>'
