"""Time, memory and size of a report: `python -m ibkr_depth_pipeline_tests.report.measure [MILLIONS | figures]`.

A made-up session of ten symbols, compacted: in each snapshot one of the twenty rows has changed, and now and then the
price has moved. The symbols are ten names of one file, so that making the day does not take longer than reading it.
MILLIONS is how many snapshots. With `figures` instead of a number: the size of a session's history of figures, of
sixty symbols.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ibkr_depth_pipeline.archive.figures import FiguresBuffer, compact_figures
from ibkr_depth_pipeline.archive.layout import FIGURES, IdSpan, day_place
from ibkr_depth_pipeline.archive.parquet_schema import (
    DAY_LEVEL,
    ROWS_PER_GROUP,
    SNAPSHOT_TABLE,
    SNAPSHOTS,
    described,
    write_options,
)
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.report.page import make_report
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures

DAY = date(2026, 1, 5)
OPEN = 1_767_623_400_000  # 14:30 UTC
SESSION_MS = 23_400_000
SYMBOLS = ("AAPL", "AMZN", "GOOGL", "IWM", "META", "MSFT", "NVDA", "QQQ", "SPY", "TSLA")


def made_up(count: int) -> Iterator[Any]:
    """Tables of `count` snapshots in all, from the open to the close."""
    rng = np.random.default_rng(1)
    ticks, sizes = 10_000, rng.integers(1, 50, 20).astype(float)
    for start in range(0, count, ROWS_PER_GROUP):
        rows = min(ROWS_PER_GROUP, count - start)
        moves = np.where(rng.random(rows) < 0.03, rng.choice([-1, 1], rows), 0)
        path = ticks + np.cumsum(moves)
        ticks = int(path[-1])
        changed = np.full((rows, 20), -1)
        changed[np.arange(rows), rng.integers(0, 20, rows)] = np.arange(rows)
        changed[0] = 0
        values = rng.integers(1, 50, (rows, 20)).astype(float)
        values[0] = sizes
        held = np.take_along_axis(values, np.maximum.accumulate(changed, axis=0), axis=0)
        sizes = held[-1]
        ts = OPEN + (np.arange(start, start + rows) * SESSION_MS) // count
        yield table(ts, np.arange(start + 1, start + rows + 1), path, held)


def table(ts: Any, seq: Any, ticks: Any, sizes: Any) -> Any:
    behind = np.arange(10)
    sides = (ticks[:, None] - behind, sizes[:, :10]), (ticks[:, None] + 1 + behind, sizes[:, 10:])
    names = pa.array(np.full(len(ts) * 10, ""), pa.string())
    columns = [
        pa.array(ts, pa.int64()).cast(SNAPSHOTS.field("ts").type),
        pa.array(seq, pa.int64()),
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(ts)), pa.int16()), pa.array(["ARCA"])),
    ]
    for prices, side_sizes in sides:
        for values in (pa.array((prices / 100).ravel()), pa.array(side_sizes.ravel()), names):
            columns.append(pa.FixedSizeListArray.from_arrays(values, type=SNAPSHOTS.field(len(columns)).type))
    columns += [pa.nulls(len(ts), field.type) for field in list(SNAPSHOTS)[len(columns) :]]
    return pa.Table.from_arrays(columns, schema=SNAPSHOTS)


def make_day(root: Path, count: int) -> None:
    first, last = StreamId(OPEN, 1), StreamId(OPEN + SESSION_MS, count)
    paths = [root / day_place(symbol, DAY, IdSpan(first, last), count).name for symbol in SYMBOLS]
    for path in paths:
        path.parent.mkdir(parents=True)
    schema = described(SNAPSHOT_TABLE, "SPY", [IdSpan(first, last)])
    with pq.ParquetWriter(paths[0], schema, **write_options(SNAPSHOT_TABLE, DAY_LEVEL)) as writer:
        for piece in made_up(count):
            writer.write_table(piece.cast(schema))
    for path in paths[1:]:
        path.hardlink_to(paths[0])


def measure_figures() -> None:
    """What an ingest of sixty symbols tells of itself in a session, every 2 s, as parts and compacted."""
    rng, run = np.random.default_rng(1), RunIdentity("0123456789abcdef", "a-host", 4321, OPEN)
    rows = np.zeros(60, dtype=np.int64)
    folder = tempfile.mkdtemp()
    try:
        store, buffer = ArchiveStore(folder), FiguresBuffer()
        for at in range(0, SESSION_MS, 2000):
            first = at // 15_000 * 3
            turn = [(first + slot) % 60 for slot in range(3)]
            rows[turn] += rng.integers(50, 1000, 3)
            symbols = {f"SYM{n}": symbol_figures(OPEN + at, int(rows[n]), n in turn, 100.0 + n) for n in range(60)}
            lags = {"lag_p50_ms": float(rng.integers(1, 5)), "lag_p99_ms": float(rng.integers(5, 50))}
            buffer.add("default", FeedFigures(run, OPEN + at, turns=at // 15_000, symbols=symbols, **lags), float(at))
            for place, content in buffer.take(at - 60_000.0):
                store.put(place, content)
        parts = sum(map(store.size, store.places(FIGURES)))
        compact_figures(store, DAY)
        (day,) = store.places(FIGURES)
        print(f"figures of a session: {parts / 1e6:.1f} MB in parts, {store.size(day) / 1e6:.1f} MB compacted")
    finally:
        shutil.rmtree(folder)


def symbol_figures(now: int, rows: int, subscribed: bool, price: float) -> SymbolFigures:
    seen = now if subscribed else now - now % 300_000
    return SymbolFigures(subscribed, seen, rows, 2 * rows, price, price + 0.01, rows, rows, venue="ISLAND")


def main() -> None:
    if sys.argv[1:] == ["figures"]:
        return measure_figures()
    count = int(float(sys.argv[1]) * 1e6 if len(sys.argv) > 1 else 1e6) // len(SYMBOLS)
    folder = Path(tempfile.mkdtemp())
    try:
        make_day(folder, count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, used = time.monotonic(), time.process_time()
        now = datetime(2026, 1, 6, tzinfo=timezone.utc)
        written = make_report(str(folder), DAY.isoformat(), calendar="XNYS", now=now)
        took, used = time.monotonic() - began, time.process_time() - used
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    finally:
        shutil.rmtree(folder)
    print(f"{written.day.snapshots:,} snapshots of {len(SYMBOLS)} symbols")
    print(f"{took:.1f} s ({used:.1f} s of CPU time); the page has {written.bytes / 1000:.0f} kB")
    print(f"most memory: {after / 1024:.0f} MiB; before, with the day just made: {before / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
