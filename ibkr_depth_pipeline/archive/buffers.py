"""The entries of one stream that are read and not yet in a file, whichever table they become. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Protocol

import pyarrow as pa

from ibkr_depth_pipeline.archive.alerts import AlertBuffer
from ibkr_depth_pipeline.archive.decoding import Batch, RawEntry, SymbolBuffer, check_id
from ibkr_depth_pipeline.archive.intervals import table_of
from ibkr_depth_pipeline.archive.layout import IdSpan, day_of
from ibkr_depth_pipeline.archive.parquet_schema import STORED_ROWS
from ibkr_depth_pipeline.archive.streams import Source
from ibkr_depth_pipeline.errors import SchemaMismatch
from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval, decode_interval
from ibkr_depth_pipeline.schema.keys import StreamId


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


class IntervalBuffer:
    """The ended intervals of one symbol that are read and not yet in a file. Ids are `<ms of the end>-<number>`."""

    def __init__(self, symbol: str, position: StreamId) -> None:
        self.symbol = symbol
        self.cursor = position
        self.unreadable = 0
        self._held: list[tuple[StreamId, SubscriptionInterval]] = []

    def __len__(self) -> int:
        return len(self._held)

    def follows(self, entry: StreamId) -> bool:
        """Always: snapshots of an interval that is missing are in none."""
        return True

    def add(self, entries: Sequence[RawEntry], before: StreamId | None = None) -> list[Gap]:
        """Take entries in order. There are no gaps."""
        for stream_id, fields in entries:
            self.cursor = entry = StreamId.of(stream_id)
            try:
                check_id(entry)
                interval = decode_interval(self.symbol, fields)
            except (SchemaMismatch, ValueError):
                self.unreadable += 1
                continue
            self._held.append((entry, replace(interval, end=interval.end or EndReason.UNKNOWN)))
        return []

    def take_all(self) -> list[Batch]:
        """What has been added, by date of the end; afterwards it is empty."""
        held, self._held = self._held, []
        by_day = [(day, list(each)) for day, each in groupby(held, lambda one: day_of(one[0].ts))]
        return [
            Batch(day, IdSpan(each[0][0], each[-1][0]), table_of((entry.ts, interval) for entry, interval in each))
            for day, each in by_day
        ]


class RowBuffer:
    """The rows of depth of one symbol that are read and not yet in a file. An id is that of the row's snapshot."""

    def __init__(self, symbol: str, position: StreamId) -> None:
        self.symbol = symbol
        self.cursor = position
        self.unreadable = 0
        self._columns: tuple[list[Any], ...] = tuple([] for _ in STORED_ROWS)

    def __len__(self) -> int:
        return len(self._columns[0])

    def follows(self, entry: StreamId) -> bool:
        """Always: which snapshots have no row is found by their numbers."""
        return True

    def add(self, entries: Sequence[RawEntry], before: StreamId | None = None) -> list[Gap]:
        """Take entries in order. There are no gaps: the snapshots have them."""
        for stream_id, fields in entries:
            self.cursor = entry = StreamId.of(stream_id)
            try:
                check_id(entry)
                row = _row(entry, fields)
            except (KeyError, ValueError, TypeError, OverflowError):
                self.unreadable += 1
                continue
            for column, value in zip(self._columns, row, strict=True):
                column.append(value)
        return []

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


_WORDS = {word.encode(): word for word in ("insert", "update", "delete", "reset", "bid", "ask", "")}


def _row(entry: StreamId, fields: Mapping[bytes, bytes]) -> tuple[Any, ...]:
    """A row's values in the order of STORED_ROWS."""
    return (
        entry.ts,
        entry.seq,
        int(fields[b"recv_ns"]),
        int(fields[b"subscription"]),
        _WORDS[fields[b"operation"]],
        _WORDS[fields[b"side"]],
        int(fields[b"position"]),
        float(fields[b"price"]),
        float(fields[b"size"]),
        fields[b"mm"].decode(),
    )


def buffer_of(source: Source, position: StreamId) -> EntryBuffer:
    """An empty buffer for a stream that was read up to `position`."""
    match source.tree:
        case "intervals":
            return IntervalBuffer(source.symbol, position)
        case "rows":
            return RowBuffer(source.symbol, position)
        case "alerts":
            return AlertBuffer(position)
        case _:
            return SymbolBuffer(source.symbol, position)
