"""A recorded day into memory: bare pyarrow, this reader, DuckDB, and databento on our own DBN export of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import databento
import duckdb
import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bench.figures import Measured
from bench.processes import BenchmarkFailed
from bench.tape import Tape, books
from ibkr_depth_pipeline.archive.decoding import SymbolBuffer
from ibkr_depth_pipeline.archive.intervals import table_of
from ibkr_depth_pipeline.archive.layout import IdSpan, first_ms_of, part_place
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.parquet_schema import INTERVAL_TABLE, SNAPSHOTS, part_bytes
from ibkr_depth_pipeline.archive.reading import files_of
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.export.exporting import ExportRequest, export_day
from ibkr_depth_pipeline.export.formats import ExportFormat
from ibkr_depth_pipeline.reader.archived import ArchiveReader
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import StreamId

SYMBOL, DAY = "AAPL", date(2026, 1, 5)
OPEN_MS = first_ms_of(DAY) + 52_200_000  # 14:30 UTC
SESSION_MS, TURN_MS, EVERY_MS = 23_400_000, 15_000, 60_000
"""The symbol has a slot for 15 s of each minute of a session."""

COLUMNS = ["ts", "seq", "venue", *(f"{side}_{part}" for side in ("bid", "ask") for part in ("price", "size", "venue"))]
BARE, OURS = "pyarrow, the bare columns", "this reader, marked, empty rows null"
BARE_POLARS, OURS_POLARS = "pyarrow, the bare columns, to Polars", "this reader to Polars"

Sample = dict[str, Any]


def measure(tape: Tape, folder: Path, snapshots: int, runs: int, say: Callable[[str], None]) -> list[Sample]:
    """One row of the table for each contender, interleaved. Raises BenchmarkFailed if one reads another number."""
    store = ArchiveStore(str(folder / "archive"))
    make_day(store, tape, snapshots)
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(runs + 1):
        for name, read in contenders(store, folder).items():
            began, worked = time.perf_counter(), time.process_time()
            rows = read()
            secs = time.perf_counter() - began, time.process_time() - worked
            if rows != snapshots and "bars" not in name:
                raise BenchmarkFailed(f"{name} read {rows} of {snapshots} snapshots")
            if number:  # the first round loads libraries
                found.setdefault(name, []).append(secs)
                say(f"  round {number}: {name}: {secs[0]:.2f} s")
    return [
        {"name": name, "secs": _figure([wall for wall, _ in each]), "cpu": _figure([cpu for _, cpu in each])}
        for name, each in found.items()
    ]


def _figure(values: list[float]) -> dict[str, Any]:
    return Measured.of(values).as_json()


def contenders(store: ArchiveStore, folder: Path) -> dict[str, Callable[[], int]]:
    """Name -> reads the day and returns how many rows that were."""
    [file] = [Path(store.url) / each.place.name for each in files_of(store, DAY, SYMBOL)]
    reader, exported = ArchiveReader(store.url), folder / "day.dbn.zst"
    if not exported.exists():
        request = ExportRequest(DAY, SYMBOL, ExportFormat.DBN, exported)
        export_day(store, request, now=datetime.now(timezone.utc), progress=lambda *_: None)
    records = len(databento.DBNStore.from_file(exported).to_ndarray())
    snapshots = pq.ParquetFile(file).metadata.num_rows

    def dbn() -> int:
        if len(databento.DBNStore.from_file(exported).to_df()) != records:
            raise BenchmarkFailed("databento reads another number of records each time")
        return snapshots  # the records of borders are more

    return {
        BARE: lambda: bare(file).num_rows,
        OURS: lambda: reader.to_arrow(SYMBOL).num_rows,
        BARE_POLARS: lambda: len(pl.from_arrow(bare(file))),
        OURS_POLARS: lambda: len(reader.to_polars(SYMBOL)),
        "DuckDB to Arrow": lambda: duckdb.sql(f"select {', '.join(COLUMNS)} from '{file}'").to_arrow_table().num_rows,
        "this reader, a column a level": lambda: reader.to_arrow(SYMBOL, columns="levels").num_rows,
        "databento, DBNStore.to_df of our export": dbn,
        "this reader, bars of 1 s": lambda: len(reader.resample("1s", SYMBOL)),
    }


def bare(file: Path) -> Any:
    """The columns as they are stored."""
    with pq.ParquetFile(file) as opened:
        return opened.read(COLUMNS)


# ---- the day


def make_day(store: ArchiveStore, tape: Tape, snapshots: int) -> None:
    """An archived and compacted day of the tape's books, over and over, in turns that are on record."""
    base = books_table(tape)
    ts = times(snapshots)
    for first in range(0, snapshots, base.num_rows):
        last = min(first + base.num_rows, snapshots)
        table = base.slice(0, last - first)
        for at, values in ((0, ts[first:last]), (1, np.arange(first + 1, last + 1))):
            table = table.set_column(at, SNAPSHOTS.field(at), pa.array(values).cast(SNAPSHOTS.field(at).type))
        span = IdSpan(StreamId(int(ts[first]), first + 1), StreamId(int(ts[last - 1]), last))
        store.put(part_place(SYMBOL, DAY, span), part_bytes(SYMBOL, span, table))
    ended = list(turns(ts))
    span = IdSpan(*(StreamId(at, each.subscription) for at, each in (ended[0], ended[-1])))
    place = part_place(SYMBOL, DAY, span, INTERVAL_TABLE.tree)
    store.put(place, part_bytes(SYMBOL, span, table_of(ended), INTERVAL_TABLE))
    compact_day(store, DAY)
    os.sync()


def books_table(tape: Tape) -> Any:
    """The books of the tape as the archiver keeps them."""
    every = chain.from_iterable(books(stream, tape.depth, "ISLAND") for stream in tape.streams)
    buffer = SymbolBuffer(SYMBOL, StreamId())
    for number, (bids, asks) in enumerate(every, 1):
        fields = {b"bids": orjson.dumps(bids), b"asks": orjson.dumps(asks), b"venue": b"ISLAND"}
        buffer.add([(b"%d-%d" % (OPEN_MS, number), fields)])
    [batch] = buffer.take_all()
    return batch.table


def times(count: int) -> Any:
    """Unix ms of so many snapshots, spread over the turns of a session, often several in one ms."""
    live_ms = SESSION_MS * TURN_MS // EVERY_MS
    at = np.sort(np.random.default_rng(1).integers(0, live_ms, count))
    return OPEN_MS + at // TURN_MS * EVERY_MS + at % TURN_MS


def turns(ts: Any) -> Iterator[tuple[int, SubscriptionInterval]]:
    """The intervals, each with the moment of its end."""
    borders = np.flatnonzero(np.append(True, np.diff((ts - OPEN_MS) // EVERY_MS) > 0))
    for number, (first, last) in enumerate(zip(borders, [*borders[1:], len(ts)], strict=True), 1):
        begin, until = int(ts[first]), int(ts[last - 1])
        yield (
            until,
            SubscriptionInterval(
                *(SYMBOL, number, "ISLAND"),
                requested=begin,
                first_row=begin,
                complete=begin + 100,
                until=until,
                first_seq=int(first) + 1,
                last_seq=int(last),
                rows=int(last - first),
                end=EndReason.TURN_OVER,
            ),
        )
