"""Snapshots as bars of equal length. Pure: numpy and pyarrow, for what is read from Redis and from an archive alike.

Only settled books count, and a book stands until the next settled one, but not past the last moment at which its
interval was known to be live: time in which a symbol was not observed is null, never filled from what was before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ibkr_depth_pipeline.reader import frames
from ibkr_depth_pipeline.reader.marking import beginning
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval

if TYPE_CHECKING:
    import pyarrow as pa

Form: TypeAlias = Literal["polars", "pandas", "arrow"]
"""Which library's table is returned."""

MOST_BARS = 10_000_000
"""Of one symbol: a day of bars of 10 ms."""

NEEDED = ("ts", "seq", "settled", *(f"{side}_{part}" for side in frames.SIDES for part in ("price", "size")))
"""The columns of frames.schema() that bars are made of."""

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_LAST_BOOK = ("bid_px", "bid_sz", "ask_px", "ask_sz")


def bar_ms(every: str | int | timedelta) -> int:
    """The length of a bar in ms: of a text such as "1s", "500ms" or "5m", of a timedelta, or that number."""
    if isinstance(every, timedelta):
        found = every / timedelta(milliseconds=1)
    elif isinstance(every, str):
        match = re.fullmatch(r"(\d+)\s*([a-z]+)", every.strip().lower())
        found = int(match[1]) * _UNITS.get(match[2], 0) if match else 0
    else:
        found = 0 if isinstance(every, bool) else every
    if found < 1 or found != int(found):
        raise ValueError(f"every={every!r} is no length of a bar: give 1s, 500ms, 5m, 1h, 1d, a timedelta or whole ms")
    return int(found)


def need(form: Form) -> None:
    """Raises ModuleNotFoundError, which names the extra, if its library is not installed; ValueError for no form."""
    needs = {"arrow": frames.need_arrow, "polars": frames.need_polars, "pandas": frames.need_pandas}
    if form not in needs:
        raise ValueError(f"form={form!r} is none that there is: it may be {', '.join(map(repr, needs))}")
    needs[form]()


def in_form(table: pa.Table, form: Form) -> Any:
    """The table as that library has it."""
    match form:
        case "polars":
            return frames.to_polars(table)
        case "pandas":
            return table.to_pandas()
        case _:
            return table


def schema() -> pa.Schema:
    """The columns of bars.

    ts is the beginning of the bar. open, high, low and close are of the mid price; bid_px ... ask_sz the best levels of
    its last book; spread the mean over the time that books stood; observed the part of the bar in which the book was
    observed; count how many snapshots were stored. Where nothing was observed all but symbol, ts and observed is null.
    """
    import pyarrow as pa

    numbers = ("open", "high", "low", "close", *_LAST_BOOK, "spread", "observed")
    return pa.schema(
        [
            pa.field("symbol", pa.string(), nullable=False),
            pa.field("ts", pa.timestamp("ms", "UTC"), nullable=False),
            *(pa.field(name, pa.float64(), nullable=name != "observed") for name in numbers),
            pa.field("count", pa.int64()),
        ]
    )


@dataclass(frozen=True)
class Grid:
    """The bars: `edges` are the unix ms at which they begin, and one more."""

    edges: Any
    every: int

    @classmethod
    def over(cls, first: int, last: int, every: int) -> Grid:
        """The bars, aligned with the epoch, from the one that holds `first` to the one that ends at or after `last`."""
        import numpy as np

        begin, count = first // every, -(-last // every) - first // every
        if count > MOST_BARS:
            raise ValueError(f"{count:,} bars are more than {MOST_BARS:,}: give start and end, or longer bars")
        return cls((begin + np.arange(max(count, 0) + 1)) * every, every)

    def __len__(self) -> int:
        return len(self.edges) - 1

    def within(self, ts: Any) -> Any:
        """The number of the bar of each time; those outside are below 0, or not below the length."""
        return (ts - self.edges[0]) // self.every


@dataclass(frozen=True)
class _Books:
    """Settled books, and until when each stands. Prices are NaN if a side is empty."""

    ts: Any
    until: Any
    bid: Any
    ask: Any
    row: Any
    """Which row of the table each is."""

    @property
    def mid(self) -> Any:
        return (self.bid + self.ask) / 2


def bars(
    symbol: str,
    table: pa.Table,
    intervals: Sequence[SubscriptionInterval],
    every: int,
    start: int | None,
    end: int | None,
) -> pa.Table | None:
    """The bars of one symbol in columns of `schema()`, from `start` to `end` (unix ms), or as far as it was observed.

    `table` has the columns NEEDED of its snapshots in order, perhaps with some from before the start. None if nothing
    was observed in that time.
    """
    import numpy as np

    ts = _whole_numbers(table["ts"])
    spans = _spans(intervals, ts, _whole_numbers(table["seq"]))
    spans = spans[(spans[:, 1] > (start or 0)) & (spans[:, 0] < (np.inf if end is None else end))]
    if not len(spans):
        return None
    first, last = int(spans[0, 0]) if start is None else start, int(spans[-1, 1]) if end is None else end
    grid = Grid.over(first, last, every)
    books = _settled_books(table, ts, spans)
    columns = {**_prices(books, grid), **_last_books(table, books, grid)}
    observed = _overlap(spans, grid) / every
    known = observed > 0
    inside = grid.within(ts)
    inside = inside[(inside >= 0) & (inside < len(grid))]
    counts = np.bincount(inside, minlength=len(grid))
    return _table(symbol, grid, {**columns, "observed": observed}, counts, known)


def stacked(tables: Sequence[pa.Table]) -> pa.Table:
    """The bars of several symbols, one after the other."""
    import pyarrow as pa

    return pa.concat_tables([schema().empty_table(), *tables])


def _table(symbol: str, grid: Grid, columns: dict[str, Any], counts: Any, known: Any) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    form = schema()
    arrays = [pa.repeat(symbol, len(grid)), pa.array(grid.edges[:-1]).cast(form.field("ts").type)]
    for name in form.names[2:-1]:
        absent = np.isnan(columns[name]) | ~known
        arrays.append(pa.array(columns[name], mask=None if name == "observed" else absent))
    return pa.Table.from_arrays([*arrays, pa.array(counts, pa.int64(), mask=~known)], schema=form)


def _whole_numbers(column: Any) -> Any:
    import pyarrow as pa

    return column.cast(pa.int64()).to_numpy()


def _spans(intervals: Sequence[SubscriptionInterval], ts: Any, seq: Any) -> Any:
    """From when on and up to when, exclusively, each interval was observed; rows in order that do not overlap.

    The record of an open interval lags a little behind its snapshots.
    """
    import numpy as np

    found: list[tuple[int, int]] = []
    for interval in sorted(intervals, key=beginning):
        if interval.first_row is None and not interval.open:
            continue
        first, last = interval.first_row, interval.until
        if interval.open and len(ts):
            own = ts[seq >= (interval.first_seq or 0)] if interval.first_seq else ts[ts >= interval.requested]
            first = first if first is not None or not len(own) else int(own[0])
            last = max(last or 0, int(own[-1])) if len(own) else last
        if first is not None:
            begin = max(first, found[-1][1] if found else first)
            found.append((begin, max((last or first) + 1, begin)))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _settled_books(table: pa.Table, ts: Any, spans: Any) -> _Books:
    import numpy as np

    settled = table["settled"].fill_null(False).to_numpy()
    rows = np.flatnonzero(settled)
    of = np.searchsorted(spans[:, 0], ts[rows], side="right") - 1
    inside = (of >= 0) & (ts[rows] < spans[of, 1]) if len(spans) else np.zeros(len(rows), bool)
    rows, of = rows[inside], of[inside]
    found = ts[rows]
    until = np.minimum(spans[of, 1] if len(spans) else found, np.append(found[1:], np.iinfo(np.int64).max))
    best = [frames.matrix(table[f"{side}_price"], rows)[:, 0] for side in frames.SIDES]
    return _Books(found, until, best[0], best[1], rows)


def _prevailing(books: _Books, grid: Grid) -> Any:
    """The place of the book that stands at the beginning of each bar, -1 if none does."""
    import numpy as np

    at = np.searchsorted(books.ts, grid.edges[:-1], side="left") - 1
    if not len(books.ts):
        return at
    return np.where((at >= 0) & (books.until[at] > grid.edges[:-1]), at, -1)


def _prices(books: _Books, grid: Grid) -> dict[str, Any]:
    """Open, high, low and close of the mid, and the mean spread: NaN if not known."""
    import numpy as np

    found = {name: np.full(len(grid), np.nan) for name in ("open", "high", "low", "close", "spread")}
    mid = books.mid
    prevailing = _prevailing(books, grid)
    stands = np.flatnonzero(prevailing >= 0)
    for name in ("open", "high", "low", "close"):
        found[name][stands] = mid[prevailing[stands]]
    bar = grid.within(books.ts)
    inside = (bar >= 0) & (bar < len(grid)) & ~np.isnan(mid)
    mid, bar = mid[inside], bar[inside]
    if len(bar):
        begins = np.flatnonzero(np.append(True, bar[1:] != bar[:-1]))
        which = bar[begins]
        found["open"][which] = np.where(np.isnan(found["open"][which]), mid[begins], found["open"][which])
        found["high"][which] = np.fmax(found["high"][which], np.maximum.reduceat(mid, begins))
        found["low"][which] = np.fmin(found["low"][which], np.minimum.reduceat(mid, begins))
        found["close"][which] = mid[np.append(begins[1:], len(mid)) - 1]
    found["spread"] = _mean_spread(books, grid)
    return found


def _mean_spread(books: _Books, grid: Grid) -> Any:
    """Over the time that two-sided books stood in each bar; NaN if none did."""
    import numpy as np

    spread = books.ask - books.bid
    there = ~np.isnan(spread) & (books.until > books.ts)
    if not there.any():
        return np.full(len(grid), np.nan)
    ts, until, spread = books.ts[there], books.until[there], spread[there]
    knots = np.stack((ts, until), axis=1).ravel()
    stood, weighted = (_integral(until - ts, weight, knots, grid.edges) for weight in (1.0, spread))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(stood > 0, weighted / stood, np.nan)


def _integral(lengths: Any, weight: Any, knots: Any, edges: Any) -> Any:
    """The integral over each bar of what is `weight` from one knot to the next, and 0 from there to the one after."""
    import numpy as np

    sums = np.repeat(np.append(0.0, np.cumsum(lengths * weight)), 2)[1:-1]
    return np.diff(np.interp(edges, knots, sums))


def _overlap(spans: Any, grid: Grid) -> Any:
    """For how many ms each bar was observed."""
    import numpy as np

    if not len(spans):
        return np.zeros(len(grid))
    return _integral(spans[:, 1] - spans[:, 0], 1.0, spans.ravel(), grid.edges)


def _last_books(table: pa.Table, books: _Books, grid: Grid) -> dict[str, Any]:
    """The best levels, by price, of the last book that stood in each bar."""
    import numpy as np

    found = {name: np.full(len(grid), np.nan) for name in _LAST_BOOK}
    if not len(books.ts):
        return found
    last = np.searchsorted(books.ts, grid.edges[1:], side="left") - 1
    stands = np.flatnonzero((last >= 0) & (books.until[last] > grid.edges[:-1]))
    rows, back = np.unique(books.row[last[stands]], return_inverse=True)
    for side in frames.SIDES:
        prices, sizes, counts = frames.levels(table, side, rows)
        absent = counts[:, 0] == 0
        for name, values in (("px", prices[:, 0]), ("sz", sizes[:, 0])):
            found[f"{side}_{name}"][stands] = np.where(absent, np.nan, values)[back]
    return found
