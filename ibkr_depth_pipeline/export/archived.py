"""An archived day as books: which interval each belongs to, and where books are missing between two of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ibkr_depth_pipeline.archive.archived_day import ArchivedDay
from ibkr_depth_pipeline.archive.intervals import IntervalIndex, begin_of
from ibkr_depth_pipeline.archive.layout import ROWS
from ibkr_depth_pipeline.archive.reading import read_in_order
from ibkr_depth_pipeline.export.books import NS_PER_MS, Books, Ladder, decimals, price_ladder, row_ladder
from ibkr_depth_pipeline.export.formats import Content
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.price_levels import Array
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval

_COLUMNS = ("ts", "seq", "bid_price", "bid_size", "ask_price", "ask_size", "recv_ns", "subscription", "settled")


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a day is exported: first_ms <= ts < end_ms, in unix ms; of snapshots all or the settled ones."""

    first_ms: int
    end_ms: int
    settled_only: bool = False
    content: Content = Content.LEVELS


INCREMENTS = pa.schema(
    [
        pa.field("ts", pa.timestamp("ms", "UTC"), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("seq", "subscription")),
        *(pa.field(name, pa.string(), nullable=False) for name in ("operation", "side")),
        pa.field("position", pa.int16(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("price", "size")),
        pa.field("mm", pa.string()),
        pa.field("ts_recv", pa.timestamp("ns", "UTC"), nullable=False),
    ]
)
"""A row of depth: ts and seq are those of the snapshot that it led to; mm is null if the venue names no maker."""


def increments_of(archived: ArchivedDay, selection: Selection) -> Iterator[Any]:
    """The rows of depth that were kept, as tables of INCREMENTS, in order. Raises ArchiveUnavailable."""
    for stored in read_in_order(archived.store, archived.day, archived.symbol, tree=ROWS):
        ts = stored["ts"].cast(pa.int64()).to_numpy()
        table = stored.filter(pa.array((ts >= selection.first_ms) & (ts < selection.end_ms)))
        makers = table["mm"].cast(pa.string())
        columns = {
            **{name: table[name] for name in table.column_names},
            "mm": pc.if_else(pc.equal(makers, ""), pa.scalar(None, pa.string()), makers),
            "ts_recv": table["recv_ns"],
        }
        yield pa.table([columns[field.name].cast(field.type) for field in INCREMENTS], schema=INCREMENTS)


def observed(archived: ArchivedDay) -> list[SubscriptionInterval]:
    """The day's intervals that have a snapshot, in the order to which `Books.interval` refers."""
    return sorted((each for each in archived.intervals if each.first_row is not None), key=begin_of)


def with_contracts(archived: ArchivedDay, intervals: Sequence[SubscriptionInterval]) -> list[SubscriptionInterval]:
    """The intervals of `observed`, with the con_id of their snapshots if they were not recorded with one."""
    found = list(intervals)
    if all(each.con_id for each in found):
        return found
    index = IntervalIndex(found)
    for batch in archived.batches(("ts", "seq", "con_id")):
        batch = batch.filter(batch.column("con_id").is_valid())
        number = index.of(_numbers(batch, "ts"), _numbers(batch, "seq"))
        for at, first in zip(*np.unique(number, return_index=True), strict=True):
            if at >= 0 and not found[at].con_id:
                found[at] = replace(found[at], con_id=batch.column("con_id")[int(first)].as_py())
    return found


def books_of(archived: ArchivedDay, selection: Selection) -> Iterator[tuple[int, Books]]:
    """How many snapshots were read and those that are selected of them, batch by batch, in order.

    A day need not fit into memory. Raises ArchiveUnavailable.
    """
    reading = _Reading(archived, selection)
    for batch in archived.batches(_COLUMNS):
        yield len(batch), reading.books(batch)


def has_received(archived: ArchivedDay) -> bool:
    """Whether the recorder stored the time of receipt in ns at some time of the day. Raises ArchiveUnavailable."""
    return any(batch.column("recv_ns").null_count < len(batch) for batch in archived.batches(("recv_ns",)))


def decimals_of(archived: ArchivedDay) -> tuple[int, int]:
    """How many decimal places the prices and the sizes of the day have. Raises ArchiveUnavailable."""
    found = {"price": np.zeros(0), "size": np.zeros(0)}
    for batch in archived.batches([f"{side}_{what}" for side in ("bid", "ask") for what in found]):
        for what, values in found.items():
            sides = [np.unique(_levels(batch, f"{side}_{what}")) for side in ("bid", "ask")]
            found[what] = np.unique(np.concatenate((values, *sides)))
    return decimals(found["price"]), decimals(found["size"])


class _Reading:
    """What carries over from one batch to the next: the last snapshot's place."""

    def __init__(self, archived: ArchivedDay, selection: Selection) -> None:
        self._index = IntervalIndex(observed(archived))
        self._until = np.array([each.until or each.first_row for each in observed(archived)] + [0], np.int64)
        self._selection = selection
        self._seq, self._interval, self._segment, self._whole = -1, -1, 0, False

    def books(self, batch: Any) -> Books:
        """The selected books of the batch."""
        ts, seq, settled = (_numbers(batch, name) for name in ("ts", "seq", "settled"))
        interval = self._index.of(ts, seq)
        segment, whole = self._segments(seq, interval, settled)
        chosen = (ts >= self._selection.first_ms) & (ts < self._selection.end_ms)
        if self._selection.settled_only:
            chosen &= settled
        at = np.flatnonzero(chosen)
        kept = batch.take(pa.array(at)) if len(at) < len(ts) else batch
        return Books(
            ts=ts[at],
            received=_received(kept, ts[at]),
            seq=seq[at],
            interval=interval[at],
            subscription=_subscriptions(kept),
            until=np.maximum(ts, self._until[interval])[at],
            segment=segment[at],
            settled=settled[at],
            whole=whole[at],
            bids=self._ladder(kept, "bid"),
            asks=self._ladder(kept, "ask"),
        )

    def _segments(self, seq: Array, interval: Array, settled: Array) -> tuple[Array, Array]:
        """For each snapshot the segment's number, and whether a settled one stands at or before it in its segment."""
        breaks = np.concatenate(([self._seq], seq[:-1])) + 1 != seq
        breaks |= np.concatenate(([self._interval], interval[:-1])) != interval
        segment = self._segment + np.cumsum(breaks)
        begin = np.maximum.accumulate(np.where(breaks, np.arange(len(seq)), -1))
        last_settled = np.maximum.accumulate(np.where(settled, np.arange(len(seq)), -1))
        whole = (last_settled >= 0) & (last_settled >= begin) | ((begin < 0) & self._whole)
        if len(seq):
            self._seq, self._interval = int(seq[-1]), int(interval[-1])
            self._segment, self._whole = int(segment[-1]), bool(whole[-1])
        return segment, whole

    def _ladder(self, batch: Any, side: str) -> Ladder:
        prices, sizes = (_levels(batch, f"{side}_{what}") for what in ("price", "size"))
        if self._selection.content is Content.ROWS:
            return row_ladder(prices, sizes)
        return price_ladder(prices, sizes, is_bid=side == "bid")


def _numbers(batch: Any, name: str) -> Array:
    column = batch.column(name)
    column = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    values: Array = column.to_numpy(zero_copy_only=False)
    return values


def _subscriptions(batch: Any) -> Array:
    values: Array = batch.column("subscription").fill_null(0).to_numpy(zero_copy_only=False)
    return values


def _received(batch: Any, ts: Array) -> Array:
    column = batch.column("recv_ns")
    known = column.is_valid().to_numpy(zero_copy_only=False)
    return np.where(known, column.fill_null(0).to_numpy(), ts * NS_PER_MS)


def _levels(batch: Any, name: str) -> Array:
    values: Array = batch.column(name).flatten().to_numpy().reshape(-1, SNAPSHOT_LEVELS)
    return values
