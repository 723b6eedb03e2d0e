"""Whether the stored snapshots of a date are the books that its stored rows of depth lead to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import groupby
from typing import Any

import numpy as np

from ibkr_depth_pipeline.archive.checks import Array, CheckResult
from ibkr_depth_pipeline.archive.intervals import IntervalIndex, intervals_of
from ibkr_depth_pipeline.archive.layout import ROWS, first_ms_of
from ibkr_depth_pipeline.archive.reading import POSITION, ids_of, read_in_order
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.book.rebuild import RebuiltBook, rebuild
from ibkr_depth_pipeline.model import EMPTY_LEVEL, SNAPSHOT_LEVELS, Levels
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline.schema.rows import RowOperation, StoredRow

_SIDES = tuple(tuple(f"{side}_{what}" for what in ("price", "size", "venue")) for side in ("bid", "ask"))
_REQUESTED = 15
"""Rows a side that were requested if the interval's record does not have it."""


def stored_rows(store: ArchiveStore, day: date, symbol: str) -> Iterator[StoredRow]:
    """The rows of depth that are kept of that date, in order. Raises ArchiveUnavailable."""
    for table in read_in_order(store, day, symbol, tree=ROWS):
        ts, _ = ids_of(table)
        columns = [table[name].to_pylist() for name in table.column_names[1:]]
        for at, seq, recv_ns, subscription, operation, *rest in zip(ts.tolist(), *columns, strict=True):
            yield StoredRow(symbol, at, seq, recv_ns, subscription, RowOperation(operation), *rest)


def check_rows(store: ArchiveStore, day: date, symbol: str) -> CheckResult | None:
    """Compares each snapshot with the book rebuilt from the rows; None if no rows are kept of that date.

    Fails for books that differ, and for snapshots that have no row although their interval has rows. Books whose
    beginning is not among the rows (as at midnight) can't be rebuilt: they are `unknown`. Raises ArchiveUnavailable.
    """
    intervals = intervals_of(store, day, symbol)
    row_keys, with_rows = _keys_of_rows(store, day, symbol)
    if not len(row_keys):
        return None
    index = IntervalIndex(intervals)
    compared = _Comparison(_rebuilt(intervals, stored_rows(store, day, symbol)))
    missing = snapshots = 0
    for table in read_in_order(store, day, symbol):
        ts, seq = ids_of(table)
        snapshots += len(ts)
        due = np.isin(index.subscriptions(index.of(ts, seq)), with_rows)
        missing += int(np.count_nonzero(due & ~np.isin(_keys(ts, seq, day), row_keys)))
        compared.compare(ts, seq, table)
    problems = [f"the book of seq {seq} is not what its rows lead to" for seq in compared.differing[:5]]
    if missing:
        problems.append(f"{missing} snapshots have no row, although rows of their interval are kept")
    figures = {
        "rows": len(row_keys),
        "snapshots": snapshots,
        "rebuilt": compared.equal + len(compared.differing),
        "differing": len(compared.differing),
        "without_row": missing,
        "unknown": len(row_keys) - compared.equal - len(compared.differing),
    }
    return CheckResult("books_from_rows", tuple(problems), figures)


def _rebuilt(intervals: Sequence[SubscriptionInterval], rows: Iterator[StoredRow]) -> Iterator[RebuiltBook]:
    requested = {each.subscription: each.rows_requested for each in intervals if each.rows_requested}
    starts = {each.first_seq for each in intervals if each.first_seq is not None}
    for many, those in groupby(rows, lambda row: requested.get(row.subscription, _REQUESTED)):
        yield from rebuild(those, requested=many, shown=SNAPSHOT_LEVELS, starts=starts)


def _keys_of_rows(store: ArchiveStore, day: date, symbol: str) -> tuple[Array, Array]:
    """The keys of all rows, and the subscriptions that have some."""
    keys, subscriptions = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for table in read_in_order(store, day, symbol, (*POSITION, "subscription"), tree=ROWS):
        keys.append(_keys(*ids_of(table), day))
        subscriptions.append(np.unique(table["subscription"].to_numpy()))
    return np.concatenate(keys), np.unique(np.concatenate(subscriptions))


def _keys(ts: Array, seq: Array, day: date) -> Array:
    """One number for each id of that date."""
    keys: Array = (ts - first_ms_of(day)) * 2**36 + seq % 2**36
    return keys


class _Comparison:
    """Snapshots, in order, beside the books that were rebuilt."""

    def __init__(self, books: Iterator[RebuiltBook]) -> None:
        self._books = books
        self._book = next(books, None)
        self.equal = 0
        self.differing: list[int] = []

    def compare(self, ts: Array, seq: Array, table: Any) -> None:
        """The next snapshots. Those without a rebuilt book are passed over, and books without a snapshot as well."""
        sides = [list(zip(*(table[name].to_pylist() for name in side), strict=True)) for side in _SIDES]
        for entry, bids, asks in zip(map(StreamId, ts.tolist(), seq.tolist()), *sides, strict=True):
            while self._book is not None and (self._book.row.ts, self._book.row.seq) < entry:
                self._book = next(self._books, None)
            if self._book is None or (self._book.row.ts, self._book.row.seq) != entry:
                continue
            if _stored(self._book.bids) == list(zip(*bids, strict=True)) and _stored(self._book.asks) == list(
                zip(*asks, strict=True)
            ):
                self.equal += 1
            else:
                self.differing.append(entry.seq)


def _stored(side: Levels) -> list[tuple[float, float, str]]:
    return [*side, *[EMPTY_LEVEL] * (SNAPSHOT_LEVELS - len(side))]
