"""The entries of one stream that are read and not yet in a file, whichever table they become. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa

from ibkr_depth_pipeline.archive.alerts import alert_table
from ibkr_depth_pipeline.archive.decoding import Batch, RawEntry, SymbolBuffer, check_id
from ibkr_depth_pipeline.archive.intervals import table_of
from ibkr_depth_pipeline.archive.layout import IdSpan, day_of
from ibkr_depth_pipeline.archive.parquet_schema import STORED_ROWS
from ibkr_depth_pipeline.archive.streams import Source
from ibkr_depth_pipeline.errors import SchemaMismatch
from ibkr_depth_pipeline.schema.alerts import Alert, decode_alert
from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval, decode_interval
from ibkr_depth_pipeline.schema.keys import StreamId

Decoded = TypeVar("Decoded")


class EntryBuffer(Protocol):
    """As SymbolBuffer, which is that of snapshots."""

    cursor: StreamId
    unreadable: int

    def __len__(self) -> int: ...

    def follows(self, entry: StreamId) -> bool:
        """Whether nothing need be known of what stands before `entry`."""

    def add(self, entries: Sequence[RawEntry], before: StreamId | None = None) -> list[Gap]:
        """Take entries in order. Returns the gaps before and between them."""

    def take_all(self) -> list[Batch]:
        """What has been added, by date, in order; afterwards it is empty."""


class _UnnumberedBuffer(ABC):
    """Takes entries one by one. Nothing numbers them, so there are no gaps."""

    def __init__(self, position: StreamId) -> None:
        self.cursor = position
        self.unreadable = 0

    def follows(self, entry: StreamId) -> bool:
        """Always."""
        return True

    def add(self, entries: Sequence[RawEntry], before: StreamId | None = None) -> list[Gap]:
        """Take entries in order. Returns no gap."""
        for stream_id, fields in entries:
            self.cursor = entry = StreamId.of(stream_id)
            try:
                check_id(entry)
                self._take(entry, fields)
            except (SchemaMismatch, KeyError, ValueError, TypeError, OverflowError):
                self.unreadable += 1
        return []

    @abstractmethod
    def _take(self, entry: StreamId, fields: Mapping[bytes, bytes]) -> None:
        """Hold one entry. Raises one of the errors above, and holds nothing, if it is not of docs/redis-schema.md."""


class DecodedBuffer(_UnnumberedBuffer, Generic[Decoded]):
    """Entries as `decode` reads them; `table_of` makes the table of those of a date. The ms of an id give the date."""

    def __init__(
        self,
        position: StreamId,
        decode: Callable[[Mapping[bytes, bytes]], Decoded],
        table_of: Callable[[Sequence[tuple[StreamId, Decoded]]], Any],
    ) -> None:
        super().__init__(position)
        self._decode = decode
        self._table_of = table_of
        self._held: list[tuple[StreamId, Decoded]] = []

    def __len__(self) -> int:
        return len(self._held)

    def _take(self, entry: StreamId, fields: Mapping[bytes, bytes]) -> None:
        held = (entry, self._decode(fields))
        self._table_of([held])  # raises for a number that has no room in its column
        self._held.append(held)

    def take_all(self) -> list[Batch]:
        """What has been added, by date; afterwards it is empty."""
        held, self._held = self._held, []
        by_day = [(day, list(each)) for day, each in groupby(held, lambda one: day_of(one[0].ts))]
        return [Batch(day, IdSpan(each[0][0], each[-1][0]), self._table_of(each)) for day, each in by_day]


class RowBuffer(_UnnumberedBuffer):
    """Rows of depth, column by column, as they are many. An id is that of the row's snapshot."""

    def __init__(self, position: StreamId) -> None:
        super().__init__(position)
        self._columns: tuple[list[Any], ...] = tuple([] for _ in STORED_ROWS)

    def __len__(self) -> int:
        return len(self._columns[0])

    def _take(self, entry: StreamId, fields: Mapping[bytes, bytes]) -> None:
        for column, value in zip(self._columns, _row(entry, fields), strict=True):
            column.append(value)

    def take_all(self) -> list[Batch]:
        """What has been added, by date, in order; afterwards it is empty."""
        if not len(self):
            return []
        arrays = [pa.array(column, field.type) for column, field in zip(self._columns, STORED_ROWS, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=STORED_ROWS)
        ids = list(map(StreamId, *self._columns[:2]))
        self._columns = tuple([] for _ in STORED_ROWS)
        batches, start = [], 0
        for day, each in groupby(ids, lambda entry: day_of(entry.ts)):
            end = start + len(list(each))
            batches.append(Batch(day, IdSpan(ids[start], ids[end - 1]), table.slice(start, end - start)))
            start = end
        return batches


_MOST, _MOST_ROWS = 2**63, 2**15
_WORDS = {word.encode(): word for word in ("insert", "update", "delete", "reset", "bid", "ask", "")}


def _row(entry: StreamId, fields: Mapping[bytes, bytes]) -> tuple[Any, ...]:
    """A row's values in the order of STORED_ROWS. Raises KeyError or ValueError if one has no room in its column."""
    recv_ns, subscription, position = (int(fields[name]) for name in (b"recv_ns", b"subscription", b"position"))
    if not (0 <= recv_ns < _MOST and 0 <= subscription < _MOST and 0 <= position < _MOST_ROWS):
        raise ValueError("a number has no room in its column")
    return (
        entry.ts,
        entry.seq,
        recv_ns,
        subscription,
        _WORDS[fields[b"operation"]],
        _WORDS[fields[b"side"]],
        position,
        float(fields[b"price"]),
        float(fields[b"size"]),
        fields[b"mm"].decode(),
    )


def _ended_interval(symbol: str, fields: Mapping[bytes, bytes]) -> SubscriptionInterval:
    interval = decode_interval(symbol, fields)
    return replace(interval, end=interval.end or EndReason.UNKNOWN)


def _intervals_table(intervals: Sequence[tuple[StreamId, SubscriptionInterval]]) -> Any:
    return table_of((entry.ts, interval) for entry, interval in intervals)


def _alert(fields: Mapping[bytes, bytes]) -> Alert:
    alert = decode_alert(fields)
    check_id(StreamId(alert.ts))
    return alert


def buffer_of(source: Source, position: StreamId) -> EntryBuffer:
    """An empty buffer for a stream that was read up to `position`."""
    match source.tree:
        case "intervals":
            return DecodedBuffer(position, partial(_ended_interval, source.symbol), _intervals_table)
        case "rows":
            return RowBuffer(position)
        case "alerts":
            return DecodedBuffer(position, _alert, alert_table)
        case _:
            return SymbolBuffer(source.symbol, position)
