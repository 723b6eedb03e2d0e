"""Renders a probe with rich: a table, ladders and a summary. Progress and reports in, renderables out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ibkr_depth_pipeline.model import Level
from ibkr_depth_pipeline.probe.report import Outcome, ProbeReport, RedisUse, SymbolReport, l2_word, seconds
from ibkr_depth_pipeline.probe.session import Progress

WIDE_COLUMNS = 110
"""Width from which the table also has the market makers of the rows, and the codes."""

NARROW_COLUMNS = 72
"""Width below which the table has little more than the verdict."""

_LADDER_COLUMNS = 40
_FRAME_LINES = 4  # of the live screen: its head, the table's head and rule, one to spare
_LADDER_HEAD_LINES = 2
_STYLES = {Outcome.DEPTH: "green", Outcome.VENUE_ONLY: "yellow", Outcome.PENDING: "cyan"}


def final_view(report: ProbeReport, console: Console) -> RenderableType:
    """A finished probe: ladders, table, and the summary last, next to the prompt."""
    ladders = [_ladder(each, len(each.bids) + len(each.asks)) for each in report.symbols if each.bids or each.asks]
    parts: list[RenderableType] = [_in_columns(ladders, console.width)] if ladders else []
    parts.append(_table(report.symbols, console.width, one_line=False))
    return Group(*parts, *summary(report))


def live_view(progress: Progress, console: Console) -> RenderableType:
    """A running probe, in no more lines than the console has."""
    room = max(console.height - _FRAME_LINES, 1)
    shown = _most_interesting(progress.symbols, room)
    over = sum(each.outcome is not Outcome.PENDING for each in progress.symbols)
    head = (
        f"{progress.where}   {over} of {len(progress.symbols)} symbols done   {progress.elapsed:.0f} s   (Ctrl-C ends)"
    )
    parts: list[RenderableType] = [Text(head, style="bold", no_wrap=True, overflow="ellipsis")]
    parts.append(_table(shown, console.width, one_line=True))
    levels = room - len(shown) - _LADDER_HEAD_LINES
    with_book = [each for each in shown if each.bids or each.asks]
    if with_book and levels > 0:
        across = max(console.width // _LADDER_COLUMNS, 1)
        parts.append(_in_columns([_ladder(each, levels) for each in with_book[-across:]], console.width))
    return Group(*parts)


def summary(report: ProbeReport) -> Iterator[Text]:
    """The summary, one line each: warnings first."""
    if report.ingest is not None:
        yield Text(f"note: {report.ingest.text}; contracts and venues were checked, books were not", style="yellow")
    if report.redis is RedisUse.UNAVAILABLE:
        lost = "venues were not recorded, and whether an ingest runs is unknown"
        yield Text(f"warning: {report.redis_error.rstrip('.')}; {lost}", style="yellow")
    for notice in report.notices:
        yield Text(f"note: the gateway says {notice.code}: {notice.text}", style="dim")
    if report.interrupted_by is not None:
        yield Text(f"interrupted ({report.interrupted_by})", style="red")
    good, every = sum(each.passed for each in report.symbols), len(report.symbols)
    what = "have depth" if report.ingest is None else "have depth as far as it could be checked"
    yield Text(f"{good} of {every} symbols {what}", style="bold green" if report.passed else "bold red")


def changes(before: Sequence[SymbolReport], now: Sequence[SymbolReport]) -> Iterator[str]:
    """A line for each symbol whose verdict changed."""
    known = {each.symbol: each.verdict for each in before}
    for each in now:
        if known.get(each.symbol) != each.verdict:
            yield f"{each.symbol}: {each.verdict}"


def _most_interesting(symbols: Sequence[SymbolReport], room: int) -> Sequence[SymbolReport]:
    """All symbols if they fit, else those in progress before those that are over, in the order of the universe."""
    if len(symbols) <= room:
        return symbols
    chosen = sorted(symbols, key=lambda each: (each.outcome is not Outcome.PENDING, not each.bids, each.l2 is None))
    names = {each.symbol for each in chosen[:room]}
    return [each for each in symbols if each.symbol in names]


def _table(symbols: Sequence[SymbolReport], width: int, *, one_line: bool) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("Symbol", "Venue", "L2"):
        table.add_column(name, no_wrap=True)
    if width >= NARROW_COLUMNS:
        table.add_column("Bid/Ask", justify="right", no_wrap=True)
        table.add_column("First row", justify="right", no_wrap=True)
        table.add_column("Sizes", no_wrap=True)
    if width >= WIDE_COLUMNS:
        table.add_column("Rows name", max_width=24)
        table.add_column("Codes", no_wrap=True)
    table.add_column("Verdict", ratio=1)  # takes the width that is left
    for each in symbols:
        table.add_row(*_cells(each, width, one_line))
    return table


def _cells(report: SymbolReport, width: int, one_line: bool) -> Iterator[Text]:
    yield Text(report.symbol, style="bold")
    yield Text(report.venue_requested or "-")
    yield Text(l2_word(report.l2))
    if width >= NARROW_COLUMNS:
        yield Text(f"{len(report.bids)}/{len(report.asks)}")
        yield Text(seconds(report.first_row_secs))
        yield Text(report.sizes.text if report.sizes else "-")
    if width >= WIDE_COLUMNS:
        yield _cut(_plain(", ".join(report.venues_granted)) or "-", "", one_line)
        yield Text(", ".join(map(str, report.codes)) or "-")
    yield _cut(_plain(report.verdict), _STYLES.get(report.outcome, "red"), one_line)


def _cut(text: str, style: str, one_line: bool) -> Text:
    return Text(text, style=style, no_wrap=one_line, overflow="ellipsis" if one_line else "fold")


def _ladder(report: SymbolReport, levels: int) -> Table:
    """Bids on the left, asks on the right, best on top."""
    title = Text(f"{report.symbol} on {report.venue_requested}", style="bold")
    ladder = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name, style in (("size", "dim"), ("bid", "green"), ("ask", "red"), ("size", "dim")):
        ladder.add_column(name, style=style, justify="left" if name == "ask" else "right", min_width=8, no_wrap=True)
    for row in range(min(levels, max(len(report.bids), len(report.asks)))):
        bid, ask = _at(report.bids, row), _at(report.asks, row)
        ladder.add_row(_size(bid), _price(bid), _price(ask), _size(ask))
    return ladder


def _in_columns(ladders: Sequence[Table], width: int) -> RenderableType:
    if width < _LADDER_COLUMNS:
        return Group(*ladders)
    return Columns(ladders, padding=(1, 3), width=_LADDER_COLUMNS - 3)


def _at(side: Sequence[Level], row: int) -> Level | None:
    return side[row] if row < len(side) else None


def _price(level: Level | None) -> str:
    """Two digits if the price is whole cents, else all of its digits."""
    if level is None:
        return ""
    price = level[0]
    return f"{price:,.2f}" if round(price, 2) == price else f"{price:,.10g}"


def _size(level: Level | None) -> str:
    return "" if level is None else f"{level[1]:,.10g}"


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
