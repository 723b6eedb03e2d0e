"""Snapshots as columns, where nothing is known between them, and their tidy table. Pure: arrays in, arrays out.

An array of a side has one row a snapshot and ten columns, best first. What a book does not have is NaN in prices and 0
in sizes and counts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.price_levels import Array, LevelArrays, by_price, level_columns

NS_PER_MS = 1_000_000
_MOST_DECIMALS = 17


@dataclass(frozen=True)
class Ladder:
    """One side of consecutive books: price, size and number of rows of each level, and how many rows the side had."""

    prices: Array
    sizes: Array
    counts: Array
    rows: Array

    def __getitem__(self, which: Any) -> Ladder:
        return Ladder(*(getattr(self, field.name)[which] for field in fields(self)))

    @property
    def levels(self) -> LevelArrays:
        """Without the number of rows."""
        return LevelArrays(self.prices, self.sizes, self.counts)

    @property
    def present(self) -> Array:
        """Which levels there are."""
        found: Array = self.counts > 0
        return found


@dataclass(frozen=True)
class Books:
    """Consecutive snapshots of one symbol.

    ts is unix ms, received unix ns. `interval` is the place of the snapshot's interval among those of the day, -1 for
    none; subscription its number, 0 if none was recorded; until the last unix ms at which its book was known to be
    live. `segment` grows from interval to interval and behind each hole; within one, no book is missing. `whole` is
    false before a segment's first settled book.
    """

    ts: Array
    received: Array
    seq: Array
    interval: Array
    subscription: Array
    until: Array
    segment: Array
    settled: Array
    whole: Array
    bids: Ladder
    asks: Ladder

    def __len__(self) -> int:
        return len(self.ts)

    def __getitem__(self, which: Any) -> Books:
        return Books(*(getattr(self, field.name)[which] for field in fields(self)))


@dataclass(frozen=True)
class Ends:
    """Where nothing more is known of the book: before the book `at`, after unix ms `ts`; `seq` is the last one known.

    received is `ts` in ns, or later if the last known book came later within that ms; `of` is that book's interval.
    """

    at: Array
    ts: Array
    received: Array
    seq: Array
    of: Array


def preceding(books: Books, before: Books | None) -> tuple[Books, Array]:
    """The book before each, and whether it is of the same segment. `before` is the one before all, if there is one."""
    earlier = joined(books[:1] if before is None else before, books[:-1])
    same = earlier.segment == books.segment
    same[:1] &= before is not None
    return earlier, same


def first_whole(books: Books, earlier: Books, same: Array) -> Array:
    """Which books are the first whole one of their segment, by what `preceding` returns."""
    begins: Array = books.whole & ~(same & earlier.whole)
    return begins


def ends(books: Books, earlier: Books, same: Array, before: Books | None) -> Ends:
    """Where segments end before or between the books, by what `preceding` returns."""
    at = np.flatnonzero(~same)
    at = at[(at > 0) | (before is not None)]
    last, next_one = earlier[at], books[at]
    hole = last.interval == next_one.interval
    ts = np.where(hole, last.ts, np.minimum(last.until, next_one.ts))
    return _ends(at, ts, last)


def end_of_all(last: Books, end_ms: int) -> Ends:
    """The end of the segment of the `last` book, if it lies before `end_ms`: then nothing is known until there."""
    last = last[last.until < end_ms]
    return _ends(np.arange(len(last)), last.until, last)


def _ends(at: Array, ts: Array, last: Books) -> Ends:
    return Ends(at, ts, np.maximum(ts * NS_PER_MS, last.received), last.seq, last.interval)


def joined(first: Books, second: Books) -> Books:
    """The one and then the other."""
    pairs = [(getattr(first, field.name), getattr(second, field.name)) for field in fields(Books)]
    return Books(*(_one(*pair) for pair in pairs))


def _one(first: Any, second: Any) -> Any:
    if isinstance(first, Ladder):
        pairs = [(getattr(first, field.name), getattr(second, field.name)) for field in fields(Ladder)]
        return Ladder(*(np.concatenate(pair) for pair in pairs))
    return np.concatenate((first, second))


def row_ladder(prices: Array, sizes: Array) -> Ladder:
    """The rows as they are, each a level of its own. A row that is not there has neither price nor size."""
    there = (prices != 0) | (sizes != 0)
    levels = LevelArrays(np.where(there, prices, np.nan), np.where(there, sizes, 0.0), there.astype(np.int32))
    return Ladder(*levels, there.sum(axis=1))


def price_ladder(prices: Array, sizes: Array, *, is_bid: bool) -> Ladder:
    """The rows of one price as one level, best first."""
    there = (prices != 0) | (sizes != 0)
    return Ladder(*by_price(np.where(there, prices, np.nan), sizes, highest_first=is_bid), there.sum(axis=1))


def decimals(values: Array) -> int:
    """How many decimal places the values have, as the shortest texts that stand for them."""
    places = 0
    while places < _MOST_DECIMALS and not np.array_equal(np.round(values, places), values):
        places += 1
    return places


# ---- as a table

_LEVELS = LevelArrays(*(np.zeros((0, SNAPSHOT_LEVELS), kind) for kind in (float, float, np.int32)))
SCHEMA = pa.schema(
    [
        pa.field("ts", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("subscription", pa.int64()),
        pa.field("settled", pa.bool_(), nullable=False),
        pa.field("observed", pa.bool_(), nullable=False),
        *(pa.field(name, column.type) for name, column in level_columns({"bid": _LEVELS, "ask": _LEVELS})),
    ]
)
"""The three columns of a level that the book does not have are null. Where it was not recorded, so is subscription."""

RECEIVED = pa.field("ts_recv", pa.timestamp("ns", "UTC"), nullable=False)
"""The last column, if the time of receipt was recorded in nanoseconds."""


def tidy_table(books: Books, *, with_received: bool = False) -> Any:
    """The books in their order as a table of SCHEMA, with RECEIVED if asked for."""
    head = [
        pa.array(books.ts).cast(SCHEMA.field("ts").type),
        pa.array(books.seq),
        pa.array(books.subscription, mask=books.subscription == 0),
        pa.array(books.settled),
        pa.array(books.interval >= 0),
    ]
    levels = dict(level_columns({"bid": books.bids.levels, "ask": books.asks.levels}))
    table = pa.Table.from_arrays([*head, *levels.values()], schema=SCHEMA)
    if with_received:
        table = table.append_column(RECEIVED, pa.array(books.received).cast(RECEIVED.type))
    return table
