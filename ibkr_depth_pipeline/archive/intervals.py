"""Observed intervals: their table in the archive, which snapshot belongs to which, and what is inferred without them.

A table of intervals has one row a subscription that has ended (schema/intervals.py), on the UTC date of its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import date, timedelta
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ibkr_depth_pipeline.archive.checks import LIVE_MS, Array
from ibkr_depth_pipeline.archive.layout import INTERVALS, first_ms_of
from ibkr_depth_pipeline.archive.parquet_schema import ENDED_INTERVALS
from ibkr_depth_pipeline.archive.reading import SpannedFile, files_of, ids_of, matrix, settled, tables
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval


def table_of(intervals: Iterable[tuple[int, SubscriptionInterval]]) -> Any:
    """Ended intervals, each with the unix ms of its end, as a table of ENDED_INTERVALS."""
    names = ENDED_INTERVALS.names[1:]
    rows = [{"ended": ended, **{name: getattr(each, name) for name in names}} for ended, each in intervals]
    return pa.Table.from_pylist([{**row, "end": EndReason(row["end"]).value} for row in rows], ENDED_INTERVALS)


def intervals_in(symbol: str, table: Any) -> list[SubscriptionInterval]:
    """A table of ENDED_INTERVALS, as intervals. Columns that it lacks have their defaults."""
    known = [each.name for each in fields(SubscriptionInterval) if each.name in table.column_names]
    for at, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type):
            table = table.set_column(at, column.name, table.column(at).cast(pa.int64()))
    return [
        SubscriptionInterval(symbol, **{**row, "end": EndReason(row["end"])}) for row in table.select(known).to_pylist()
    ]


def intervals_of(store: ArchiveStore, day: date, symbol: str) -> list[SubscriptionInterval]:
    """The recorded intervals that reach into that UTC date, in order, each once. Raises ArchiveUnavailable.

    An interval is kept on the date of its end. One that began on this date and ends on a later one is the first there.
    """
    found = settled(store, lambda: list(tables(store, _files(store, day, symbol))))
    intervals = [each for table in found for each in intervals_in(symbol, table)]
    starts, ends = first_ms_of(day), first_ms_of(day + timedelta(days=1))
    return [each for each in intervals if begin_of(each)[0] < ends and (each.until or ends) >= starts]


def begin_of(interval: SubscriptionInterval) -> tuple[int, int]:
    """What intervals of a symbol are sorted by: their first row, or else their request."""
    return interval.first_row or interval.requested, interval.subscription


def observed_ms(intervals: Iterable[SubscriptionInterval], start: int, end: int) -> int:
    """For how many ms from `start` to `end` (unix ms) a book was observed."""
    return sum(high - low for low, high in observed_spans(intervals, start, end))


def observed_spans(intervals: Iterable[SubscriptionInterval], start: int, end: int) -> list[tuple[int, int]]:
    """The observed times from `start` to `end` (unix ms), in order, none overlapping another."""
    spans: list[tuple[int, int]] = []
    for each in sorted(intervals, key=begin_of):
        if each.first_row is None or each.until is None:
            continue
        low = max(each.first_row, start, spans[-1][1] if spans else start)
        high = min(each.until, end)
        if high > low:
            spans.append((low, high))
    return spans


def _files(store: ArchiveStore, day: date, symbol: str) -> list[SpannedFile]:
    later = min(
        (place.day for place in store.places(INTERVALS) if place.symbol == symbol and place.day > day), default=None
    )
    found = files_of(store, day, symbol, INTERVALS)
    return found if later is None else [*found, *files_of(store, later, symbol, INTERVALS)[:1]]


# ---- which snapshot belongs to which interval


class IntervalIndex:
    """Finds the interval of each of many snapshots. Intervals without a snapshot are passed over."""

    def __init__(self, intervals: Sequence[SubscriptionInterval]) -> None:
        observed = sorted((each for each in intervals if each.first_row is not None), key=begin_of)
        self._starts = _numbers(each.first_row for each in observed)
        self._first = _numbers(each.first_seq for each in observed)
        self._last = _numbers(each.last_seq for each in observed)
        self._until = _numbers(each.until for each in observed)
        self._subscriptions = _numbers(each.subscription for each in observed)
        never = np.iinfo(np.int64).max
        self._complete = _numbers(never if each.complete is None else each.complete for each in observed)

    def of(self, ts: Array, seq: Array) -> Array:
        """The number of the interval of each snapshot, for `subscriptions` and `complete`; -1 if it is in none."""
        if not len(self._starts):
            return np.full(len(ts), -1)
        number = np.searchsorted(self._starts, ts, side="right") - 1
        # Two may begin in the same ms, or one in the ms in which another ends: then the seqs distinguish them.
        for _ in range(len(self._starts)):
            earlier = (number >= 0) & (seq < self._first[number])
            if not earlier.any():
                break
            number = np.where(earlier, number - 1, number)
        return np.where((number >= 0) & (seq <= self._last[number]), number, -1)

    def subscriptions(self, number: Array) -> Array:
        """The subscription of each snapshot, 0 if it is not known, by the numbers of `of`."""
        return self._of(number, self._subscriptions, 0)

    def until(self, number: Array) -> Array:
        """The unix ms up to which the interval of each snapshot was observed, -1 without one."""
        return self._of(number, self._until, -1)

    def complete(self, number: Array, ts: Array) -> Array:
        """Whether each book was complete, by the numbers of `of`."""
        return ts >= self._of(number, self._complete, np.iinfo(np.int64).max)

    def _of(self, number: Array, values: Array, otherwise: int) -> Array:
        return np.where(number >= 0, values[number], otherwise) if len(values) else np.full(len(number), otherwise)


def _numbers(values: Iterable[int | None]) -> Array:
    return np.array([-1 if value is None else value for value in values], dtype=np.int64)


# ---- without a record


class InferredIntervals:
    """Infers intervals from snapshots that no recorded interval holds: a rule of thumb, kept for older recordings.

    An interval begins with a snapshot that comes more than LIVE_MS after the one before it, that does not follow it in
    `seq`, or that has a single row although the one before had more. It ends with its last snapshot. Its book is
    complete from the first snapshot that is not one row longer than the one before it, or from its beginning, if that
    has more than one row.
    """

    COLUMNS: ClassVar[Sequence[str]] = ("ts", "seq", "venue", "bid_price", "ask_price")

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._pieces: list[tuple[Array, ...]] = []

    def add(self, table: Any) -> None:
        """The next snapshots, with COLUMNS at least."""
        if table.num_rows:
            rows = sum(np.count_nonzero(matrix(table, f"{side}_price"), axis=1) for side in ("bid", "ask"))
            self._pieces.append((*ids_of(table), np.asarray(rows), table["venue"].to_numpy()))

    def result(self) -> list[SubscriptionInterval]:
        """The intervals, in order. The last one may go on: it has no end."""
        if not self._pieces:
            return []
        ts, seq, rows, venues = map(np.concatenate, zip(*self._pieces, strict=True))
        begins = np.append(True, (np.diff(ts) > LIVE_MS) | (np.diff(seq) != 1) | ((rows[1:] == 1) & (rows[:-1] > 1)))
        grown = np.append(False, np.diff(rows) == 1) & ~begins
        borders = [*np.flatnonzero(begins).tolist(), len(ts)]
        found = []
        for start, end in pairwise(borders):
            steady = np.flatnonzero(~grown[start:end] & (~begins[start:end] | (rows[start:end] > 1)))
            found.append(
                SubscriptionInterval(
                    self._symbol,
                    subscription=0,
                    venue=str(venues[start]),
                    requested=int(ts[start]),
                    first_row=int(ts[start]),
                    complete=int(ts[start + steady[0]]) if len(steady) else None,
                    until=int(ts[end - 1]),
                    first_seq=int(seq[start]),
                    last_seq=int(seq[end - 1]),
                    rows=end - start,
                    end=EndReason.UNKNOWN if end < len(ts) else None,
                )
            )
        return found
