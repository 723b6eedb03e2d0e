"""One symbol's date of an archive: snapshots in order, when the book was observed, and what is missing.

    archived = open_day(store, date(2026, 1, 5), "SPY")
    for batch in archived.batches():  # pyarrow.RecordBatch, columns of DAY_COLUMNS
        ...

The contract, for exports and studies:

* `batches` has each archived snapshot of that UTC date once, in the order in which they were stored: `ts` never falls,
  and `seq` grows by one but for gaps, and where Redis lost its newest entries. Memory is that of two batches.
* `intervals` are the times in which the book was observed, in order, also those that reach in from the date before or
  out to the date after. Outside of [first_row, until] of all of them nothing is known of the book.
* `gaps` are the seqs that are missing, in order.
* Column `subscription` is the number of the snapshot's interval, null if that was not recorded. `settled` is false for
  the partial books at the beginning of a subscription (before `complete`), and for a book that the same socket read
  changed again: all rows of a read have the same `ts` and the same `recv_ns`, so the snapshot that follows a settled
  one has another `recv_ns`, or another `ts` if that is not stored: then two reads within one ms count as one.
* If snapshots lie in no recorded interval (an older recorder wrote them, or the interval is still open), `intervals`
  has inferred ones for them: `subscription` is 0, `end` is UNKNOWN, or None for the last one. The rule is that of
  `InferredIntervals`.

A compaction may replace the files meanwhile: what has been yielded stays, and the rest is read from the new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from ibkr_depth_pipeline.archive.intervals import InferredIntervals, IntervalIndex, begin_of, intervals_of
from ibkr_depth_pipeline.archive.parquet_schema import SNAPSHOTS
from ibkr_depth_pipeline.archive.reading import POSITION, gaps_of, ids_of, read_in_order
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval

SUBSCRIPTION_COLUMNS = [pa.field("subscription", pa.int64()), pa.field("settled", pa.bool_(), nullable=False)]
DAY_COLUMNS = pa.schema([*SNAPSHOTS, *SUBSCRIPTION_COLUMNS])
"""Columns of `ArchivedDay.batches`: those of the files, then `subscription` and `settled`."""


@dataclass(frozen=True, slots=True)
class ArchivedDay:
    """A symbol's UTC date; see the module for the contract. `snapshots` is how many there are."""

    store: ArchiveStore = field(repr=False)
    day: date
    symbol: str
    intervals: tuple[SubscriptionInterval, ...]
    gaps: tuple[Gap, ...]
    snapshots: int

    @property
    def inferred(self) -> bool:
        """Whether some of the intervals are inferred from the snapshots, as none were recorded."""
        return any(interval.subscription == 0 for interval in self.intervals)

    def batches(self, columns: Sequence[str] = DAY_COLUMNS.names) -> Iterator[Any]:
        """Yields the snapshots as pyarrow.RecordBatch, in order, with these columns. Raises ArchiveUnavailable."""
        needed = {*POSITION, *columns, *(["recv_ns"] if "settled" in columns else [])}
        stored = [name for name in SNAPSHOTS.names if name in needed]
        index = IntervalIndex(self.intervals)
        tables = (each for each in read_in_order(self.store, self.day, self.symbol, stored) if each.num_rows)
        table = next(tables, None)
        while table is not None:
            following = next(tables, None)
            yield from _completed(table, index, following).select(list(columns)).to_batches()
            table = following


def open_day(store: ArchiveStore, day: date, symbol: str) -> ArchivedDay:
    """Reads a symbol's intervals and gaps of that date; snapshots are read by `batches`. Raises ArchiveUnavailable."""
    recorded = intervals_of(store, day, symbol)
    index = IntervalIndex(recorded)
    outside = [index.of(*ids_of(table)) < 0 for table in read_in_order(store, day, symbol, POSITION)]
    inferred = InferredIntervals(symbol)
    if any(map(np.any, outside)):
        for table in read_in_order(store, day, symbol, InferredIntervals.COLUMNS):
            inferred.add(table.filter(pa.array(index.of(*ids_of(table)) < 0)))
    intervals = sorted([*recorded, *inferred.result()], key=begin_of)
    gaps = tuple(gaps_of(store, day, symbol))
    return ArchivedDay(store, day, symbol, tuple(intervals), gaps, sum(map(len, outside)))


def _completed(table: Any, index: IntervalIndex, following: Any) -> Any:
    """The table with `subscription` and `settled`; `following` is the table behind it, None if there is none."""
    ts, seq = ids_of(table)
    number = index.of(ts, seq)
    last_of_read = _ends_a_read(table if following is None else pa.concat_tables([table, following[:1]]))[: len(ts)]
    numbers = index.subscriptions(number)
    subscription = pa.array(numbers, pa.int64(), mask=numbers == 0)
    settled = pa.array(last_of_read & index.complete(number, ts))
    for name, column in zip(SUBSCRIPTION_COLUMNS, (subscription, settled), strict=True):
        table = table.append_column(name, column)
    return table


def _ends_a_read(table: Any) -> Any:
    """Whether each snapshot is the last one of its socket read, as far as its times show."""
    ts, _ = ids_of(table)
    ends = np.append(ts[1:] != ts[:-1], True)
    if "recv_ns" in table.column_names and table["recv_ns"].null_count < table.num_rows:
        ns, known = table["recv_ns"].fill_null(0).to_numpy(), table["recv_ns"].is_valid().to_numpy()
        ends[:-1] = np.where(known[1:] & known[:-1], ns[1:] != ns[:-1], ends[:-1])
    return ends
