"""Reads an archive as DepthReader reads Redis: the same names, starts and ends, frames and bars.

Needs the extra `archive`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ibkr_depth_pipeline.archive import reading
from ibkr_depth_pipeline.archive.archived_day import DAY_COLUMNS, ArchivedDay, open_day
from ibkr_depth_pipeline.archive.layout import day_of
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import NothingRecorded, UnknownSymbol
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.reader import frames, resampling
from ibkr_depth_pipeline.reader.marking import beginning
from ibkr_depth_pipeline.reader.model import After, AfterId, At, Point, Points, Start, point_for, unix_ms
from ibkr_depth_pipeline.reader.selection import Names, asked_for, names_in
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot
from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import parts_of_id

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_SIDES = tuple(f"{side}_{part}" for side in frames.SIDES for part in frames.PARTS)
_STORED = [name for name in (*frames.HEAD, *_SIDES) if name in DAY_COLUMNS.names]


class _Part(NamedTuple):
    """What is wanted of one symbol, and the dates that it has."""

    symbol: str
    first: Start | None
    last: Start | None
    days: Sequence[date]

    @property
    def times(self) -> tuple[int | None, int | None]:
        """The unix ms of the start and the end, which is not held; None for a seq, since its time is not known."""
        low, high = map(_time_of, (self.first, self.last))
        return low, high + 1 if high is not None and isinstance(self.last, AfterId) else high


class ArchiveReader:
    """Reads the archive at `url`: a folder, or anything that fsspec knows, such as s3://bucket/archive.

    What is common with DepthReader has its names, arguments and columns. Every method raises ArchiveUnavailable if the
    archive can't be read. Its newest snapshots are as old as its last part; for those use DepthReader.
    """

    def __init__(self, url: str) -> None:
        self._store = ArchiveStore(url)
        self._where = f"the archive {url}"

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held open: for programs that read from either reader."""

    # ---- what there is

    def days(self) -> list[date]:
        """The UTC dates that have snapshots, in order."""
        return reading.days(self._store)

    def symbols(self) -> tuple[str, ...]:
        """Every symbol that has snapshots, sorted."""
        return tuple(reading.dates_of_symbols(self._store))

    def intervals(
        self,
        symbols: Names = None,
        start: Points | None = None,
        end: Points | None = None,
        *,
        missing_ok: bool = False,
    ) -> list[SubscriptionInterval]:
        """See DepthReader.intervals."""
        found = []
        for part in self._chosen(symbols, start, end, missing_ok):
            each_once = {beginning(each): each for day in self._open(part) for each in day.intervals}
            low, high = part.times
            found += [each for each in sorted(each_once.values(), key=beginning) if _touches(each, low, high)]
        return found

    def gaps(
        self,
        symbols: Names = None,
        start: Points | None = None,
        end: Points | None = None,
        *,
        missing_ok: bool = False,
    ) -> list[Gap]:
        """The snapshots that are missing, one symbol after the other, of the dates that the time touches."""
        chosen = self._chosen(symbols, start, end, missing_ok)
        return [gap for part in chosen for day in self._open(part) for gap in day.gaps]

    # ---- snapshots

    def batches(
        self,
        symbols: Names = None,
        start: Points | None = None,
        end: Points | None = None,
        *,
        settled: bool = False,
        missing_ok: bool = False,
    ) -> Iterator[pa.Table]:
        """The snapshots of `range` piece by piece, as tables of frames.schema(): they need not fit into memory."""
        for part in self._chosen(symbols, start, end, missing_ok):
            yield from self._tables(part, settled)

    def range(
        self,
        symbols: Names = None,
        start: Points | None = None,
        end: Points | None = None,
        *,
        limit: int | None = None,
        settled: bool = False,
        missing_ok: bool = False,
    ) -> list[DepthSnapshot]:
        """See DepthReader.range. For more than some thousand snapshots a frame is far faster."""
        table = self._table(symbols, start, end, limit, settled, missing_ok)
        return list(_snapshots(table))

    def to_arrow(
        self,
        *symbols: Names | Point,
        start: Points | None = None,
        end: Points | None = None,
        limit: int | None = None,
        settled: bool = False,
        columns: frames.Columns = "lists",
        missing_ok: bool = False,
    ) -> pa.Table:
        """See DepthReader.to_arrow."""
        named, start, end = asked_for(symbols, start, end)
        table = self._table(named, start, end, limit, settled, missing_ok)
        if not table.num_rows and not missing_ok and limit != 0:
            raise self._nothing(start, end)
        return frames.arranged(table, columns)

    def to_polars(
        self,
        *symbols: Names | Point,
        start: Points | None = None,
        end: Points | None = None,
        limit: int | None = None,
        settled: bool = False,
        columns: frames.Columns = "lists",
        missing_ok: bool = False,
    ) -> pl.DataFrame:
        """See DepthReader.to_polars."""
        frames.need_polars()
        options: dict[str, Any] = {"start": start, "end": end, "limit": limit, "settled": settled}
        return frames.to_polars(self.to_arrow(*symbols, columns=columns, missing_ok=missing_ok, **options))

    def to_pandas(
        self,
        *symbols: Names | Point,
        start: Points | None = None,
        end: Points | None = None,
        limit: int | None = None,
        settled: bool = False,
        columns: Literal["rows", "levels"] = "rows",
        missing_ok: bool = False,
    ) -> pd.DataFrame:
        """See DepthReader.to_pandas."""
        frames.need_pandas()
        options: dict[str, Any] = {"start": start, "end": end, "limit": limit, "settled": settled}
        return frames.to_pandas(self.to_arrow(*symbols, columns=columns, missing_ok=missing_ok, **options))

    def resample(
        self,
        every: str | int | timedelta,
        *symbols: Names | Point,
        start: Points | None = None,
        end: Points | None = None,
        form: resampling.Form = "polars",
        missing_ok: bool = False,
    ) -> Any:
        """See DepthReader.resample."""
        resampling.need(form)
        length = resampling.bar_ms(every)
        found = []
        named, start, end = asked_for(symbols, start, end)
        for part in self._chosen(named, start, end, missing_ok):
            days = list(self._open(part))
            columns = [name for name in _STORED if name in resampling.NEEDED]
            tables = [_framed(part.symbol, batch) for day in days for batch in day.batches(columns)]
            if tables:
                intervals = {beginning(each): each for day in days for each in day.intervals}
                books, spans = pa.concat_tables(tables), [*intervals.values()]
                bars = resampling.bars(part.symbol, books, spans, length, *part.times)
                found += [] if bars is None else [bars]
        if not found and not missing_ok:
            raise self._nothing(start, end)
        return resampling.in_form(resampling.stacked(found), form)

    # ---- how

    def _chosen(self, names: Names, start: Points | None, end: Points | None, missing_ok: bool) -> list[_Part]:
        """The symbols, each with its start and end. Raises UnknownSymbol."""
        named, known = names_in(names), reading.dates_of_symbols(self._store)
        unknown = [name for name in named or () if name not in known]
        if unknown and not missing_ok:
            raise UnknownSymbol(unknown, list(known), self._where)
        chosen = [name for name in named or known if name in known]
        return [_Part(name, point_for(name, start), point_for(name, end), known[name]) for name in chosen]

    def _open(self, part: _Part) -> Iterator[ArchivedDay]:
        """The dates that can hold a part of it."""
        low, high = part.times
        first, last = (None if each is None else day_of(max(each, 0)) for each in (low, high))
        for day in part.days:
            if (first is None or day >= first) and (last is None or day <= last):
                yield open_day(self._store, day, part.symbol)

    def _table(
        self,
        names: Names,
        start: Points | None,
        end: Points | None,
        limit: int | None,
        settled: bool,
        missing_ok: bool,
    ) -> pa.Table:
        if limit is not None and limit < 0:
            raise ValueError(f"limit={limit} is below 0")
        found = [frames.schema().empty_table()]
        for part in self._chosen(names, start, end, missing_ok):
            left = limit
            for table in self._tables(part, settled):
                found.append(table if left is None else table.slice(0, left))
                left = None if left is None else left - found[-1].num_rows
                if left == 0:
                    break
        return pa.concat_tables(found)

    def _tables(self, part: _Part, settled: bool) -> Iterator[pa.Table]:
        for day in self._open(part):
            for batch in day.batches(_STORED):
                kept = _within(batch, part.first, part.last, settled)
                if kept.num_rows:
                    yield _framed(part.symbol, kept)

    def _nothing(self, start: Points | None, end: Points | None) -> NothingRecorded:
        days = self.days()
        there = f"there are {', '.join(self.symbols())} from {days[0]} to {days[-1]}" if days else "it is empty"
        asked = "" if start is None else f" from {start} on"
        asked += "" if end is None else f" before {end}"
        return NothingRecorded(f"nothing is recorded{asked} in {self._where}; {there}")


def _time_of(position: Start | None) -> int | None:
    match position:
        case At(moment):
            return unix_ms(moment)
        case AfterId(stream_id):
            return parts_of_id(stream_id)[0]
        case _:
            return None


def _touches(interval: SubscriptionInterval, low: int | None, high: int | None) -> bool:
    last = interval.until or interval.requested
    return (low is None or interval.open or last >= low) and (high is None or interval.requested < high)


def _within(batch: Any, first: Start | None, last: Start | None, settled: bool) -> Any:
    """The snapshots behind `first` and not behind `last`."""
    if first is None and last is None and not settled:
        return batch
    ts, seq = batch.column("ts").cast(pa.int64()).to_numpy(), batch.column("seq").to_numpy()
    kept = np.ones(len(ts), bool) if first is None else _behind(first, ts, seq)
    if last is not None:
        kept &= ~_behind(last, ts, seq)
    if settled:
        kept &= batch.column("settled").to_numpy(zero_copy_only=False)
    return batch if kept.all() else batch.filter(pa.array(kept))


def _behind(position: Start, ts: Any, seq: Any) -> Any:
    match position:
        case At(moment):
            return ts >= moment
        case After(number):
            return seq > number
        case AfterId(stream_id):
            after_ts, after_seq = parts_of_id(stream_id)
            return (ts > after_ts) | ((ts == after_ts) & (seq > after_seq))
        case _:
            return np.zeros(len(ts), bool)


def _framed(symbol: str, batch: Any) -> pa.Table:
    """An archived batch with the columns of frames.schema() that it has."""
    form = frames.schema()
    given: dict[str, Any] = {name: batch.column(name) for name in batch.schema.names}
    given["symbol"] = pa.repeat(symbol, len(batch))
    if "venue" in given:
        given |= {"venue": given["venue"].cast(pa.string()), "observed": pa.repeat(True, len(batch))}
        given.setdefault("recv_ns", pa.nulls(len(batch), pa.int64()))
    for side in frames.SIDES:
        names = [f"{side}_{part}" for part in frames.PARTS if f"{side}_{part}" in given]
        given |= dict(zip(names, _with_nulls([given[name].flatten() for name in names]), strict=True))
    fields = [form.field(name) for name in form.names if name in given]
    return pa.Table.from_arrays([given[field.name] for field in fields], schema=pa.schema(fields))


def _with_nulls(parts: Sequence[Any]) -> list[Any]:
    """Prices, sizes and perhaps venues of a side as lists of ten, in which an empty row is null: without a copy."""
    empty = (parts[0].to_numpy() == 0) & (parts[1].to_numpy() == 0)
    if len(parts) > 2 and empty.any():
        empty &= pc.binary_length(parts[2]).to_numpy() == 0
    if empty.any():
        valid = pa.py_buffer(np.packbits(~empty, bitorder="little"))
        parts = [_with_validity(part, valid) for part in parts]
    return [pa.FixedSizeListArray.from_arrays(part, SNAPSHOT_LEVELS) for part in parts]


def _with_validity(values: Any, valid: Any) -> Any:
    if values.offset:
        values = pa.concat_arrays([values, values.slice(0, 0)])
    return pa.Array.from_buffers(values.type, len(values), [valid, *values.buffers()[1:]])


def _snapshots(table: pa.Table) -> Iterator[DepthSnapshot]:
    for row in table.set_column(1, "ts", table["ts"].cast(pa.int64())).to_pylist():
        sides = [
            orjson.dumps(
                [
                    (price or 0.0, size or 0.0, venue or "")
                    for price, size, venue in zip(*(row[f"{side}_{part}"] for part in frames.PARTS), strict=True)
                ]
            )
            for side in frames.SIDES
        ]
        head = [row[name] for name in ("symbol", "ts", "seq", "venue")]
        yield DepthSnapshot(*head, *sides, *(row[name] for name in frames.MARKS))
