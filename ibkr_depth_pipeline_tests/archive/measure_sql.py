"""How long questions about a day of a million snapshots take: `python -m
ibkr_depth_pipeline_tests.archive.measure_sql`.

The made-up day of report/measure.py, of ten symbols, one of which has 1,560 turns of 15 s each. Medians of five runs,
files in the cache.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.compute as pc

from ibkr_depth_pipeline.archive.archived_day import open_day
from ibkr_depth_pipeline.archive.intervals import table_of
from ibkr_depth_pipeline.archive.layout import INTERVALS, IdSpan, part_place
from ibkr_depth_pipeline.archive.parquet_schema import INTERVAL_TABLE, part_bytes
from ibkr_depth_pipeline.archive.reading import ids_of, read_day
from ibkr_depth_pipeline.archive.sql import query
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline_tests.report.measure import DAY, SYMBOLS, make_day

SNAPSHOTS, TURN_MS = 1_000_000, 15_000
SPREAD = "avg(ask_price[1] - bid_price[1])"


def with_turns(store: ArchiveStore, symbol: str) -> None:
    """Puts intervals of TURN_MS over all of the symbol's snapshots."""
    ts, seq = ids_of(read_day(store, DAY, symbol))
    found = []
    for number, start in enumerate(range(int(ts[0]), int(ts[-1]) + 1, TURN_MS), 1):
        first, end = ts.searchsorted((start, start + TURN_MS))
        fields = {"requested": start, "first_row": int(ts[first]), "complete": int(ts[first]), "until": start + TURN_MS}
        seqs = {"first_seq": int(seq[first]), "last_seq": int(seq[end - 1]), "rows": int(end - first)}
        interval = SubscriptionInterval(symbol, number, "ARCA", end=EndReason.TURN_OVER, **fields, **seqs)
        found.append((start + TURN_MS, interval))
    span = IdSpan(StreamId(found[0][0], 1), StreamId(found[-1][0], len(found)))
    store.put(part_place(symbol, DAY, span, INTERVALS), part_bytes(symbol, span, table_of(found), INTERVAL_TABLE))


def median_secs(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_day(Path(folder), SNAPSHOTS)
        store = ArchiveStore(folder)
        symbol = SYMBOLS[0]
        with_turns(store, symbol)
        glob = f"{folder}/books/*/*/*.parquet"
        questions: dict[str, Callable[[], object]] = {
            "DuckDB, count": lambda: duckdb.sql(f"SELECT count(*) FROM '{glob}' WHERE symbol = '{symbol}'").fetchall(),
            "DuckDB, mean spread": lambda: duckdb.sql(
                f"SELECT {SPREAD} FROM '{glob}' WHERE symbol = '{symbol}'"
            ).fetchall(),
            "Polars, mean spread": lambda: (
                pl.scan_parquet(f"{folder}/books", hive_partitioning=True)
                .filter(pl.col("symbol") == symbol)
                .select((pl.col("ask_price").arr.get(0) - pl.col("bid_price").arr.get(0)).mean())
                .collect()
            ),
            "ibkr_depth_archive sql, mean spread": lambda: query(
                store, f"SELECT {SPREAD} FROM books WHERE symbol = '{symbol}'"
            ),
            "ibkr_depth_archive sql, mean spread of settled books": lambda: query(
                store, f"SELECT {SPREAD} FROM observed_books WHERE settled AND symbol = '{symbol}'"
            ),
            "open_day, ts and settled": lambda: [
                pc.sum(batch["settled"]) for batch in open_day(store, DAY, symbol).batches(["ts", "settled"])
            ],
            "open_day, all columns": lambda: sum(batch.num_rows for batch in open_day(store, DAY, symbol).batches()),
            "pyarrow, all columns": lambda: read_day(store, DAY, symbol).num_rows,
        }
        for name, work in questions.items():
            print(f"{name}: {median_secs(work):.2f} s", flush=True)


if __name__ == "__main__":
    main()
