"""Parquet and CSV exports, read back by pyarrow, pandas, Polars: every snapshot once, null for what is not there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from ibkr_depth_pipeline.export.formats import Content, ExportFormat
from ibkr_depth_pipeline.reader.archived import ArchiveReader
from ibkr_depth_pipeline_tests.export.conftest import MakeSource, Source
from ibkr_depth_pipeline_tests.export.kept import (
    NOON,
    Kept,
    Side,
    book,
    books_by_price,
    interval_of,
    settled_of,
    turn,
)

NAMES = [f"{side}_{what}_{level:02d}" for level in range(10) for side in ("bid", "ask") for what in ("px", "sz", "ct")]


def side_of(row: dict[str, Any], side: str) -> Side:
    found = [tuple(row[f"{side}_{what}_{level:02d}"] for what in ("px", "sz", "ct")) for level in range(10)]
    return [level for level in found if level[2] is not None and not math.isnan(level[2])]


def books_in(rows: list[dict[str, Any]]) -> list[tuple[int, int, Side, Side]]:
    return [(round(row["ts"].timestamp() * 1000), row["seq"], side_of(row, "bid"), side_of(row, "ask")) for row in rows]


def read_parquet(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def read_pandas(path: Path) -> list[dict[str, Any]]:
    return pd.read_csv(path, parse_dates=["ts"]).to_dict("records")


def read_polars(path: Path) -> list[dict[str, Any]]:
    return pl.read_csv(path, try_parse_dates=True, infer_schema_length=None).to_dicts()


@pytest.mark.parametrize(
    ("form", "read"),
    [
        (ExportFormat.PARQUET, read_parquet),
        (ExportFormat.CSV, read_pandas),
        (ExportFormat.CSV, read_polars),
    ],
)
def test_every_archived_book_is_in_the_table_once(source: Source, form: ExportFormat, read: Any) -> None:
    rows = read(source.export(form, force=True).path)
    assert list(rows[0]) == ["ts", "seq", "subscription", "settled", "observed", *NAMES]
    assert books_in(rows) == books_by_price(source.snapshots)
    settled = {each.seq for each in settled_of(source.snapshots, source.intervals)}
    assert [row["seq"] for row in rows if row["settled"]] == sorted(settled)
    numbers = {row["seq"]: row["subscription"] for row in rows}
    of_interval = [
        each.subscription
        for snapshot in source.snapshots
        for each in source.intervals
        if (each.first_seq or 0) <= snapshot.seq <= (each.last_seq or 0)
    ]
    assert list(numbers.values()) == of_interval
    assert all(row["observed"] for row in rows)


def test_times_are_timestamps_and_absent_levels_null(rotation: Source) -> None:
    schema = pq.read_schema(rotation.export(ExportFormat.PARQUET).path)
    assert str(schema.field("ts").type) == "timestamp[ms, tz=UTC]"
    table = pq.read_table(rotation.folder / "spy.parquet")
    assert table["ask_px_00"].null_count == 3  # the first row of each turn is a bid
    assert table["bid_sz_09"].null_count == 3 * 18


def test_rows_as_they_came_are_levels_of_their_own(source_of: MakeSource) -> None:
    bids = [(100.0, 5.0, "A"), (100.0, 7.0, "B"), (99.0, 1.0, "A")]
    source = source_of([Kept(NOON, 1, bids, [])])
    by_price = read_parquet(source.export(ExportFormat.PARQUET).path)
    as_they_came = read_parquet(source.export(ExportFormat.PARQUET, "rows.parquet", content=Content.ROWS).path)
    assert side_of(by_price[0], "bid") == [(100.0, 12.0, 2), (99.0, 1.0, 1)]
    assert side_of(as_they_came[0], "bid") == [(100.0, 5.0, 1), (100.0, 7.0, 1), (99.0, 1.0, 1)]


def test_settled_snapshots_can_be_had_alone(rotation: Source) -> None:
    rows = read_parquet(rotation.export(ExportFormat.PARQUET, settled_only=True).path)
    assert books_in(rows) == books_by_price(settled_of(rotation.snapshots, rotation.intervals))


def test_part_of_a_day_holds_what_came_within_it(rotation: Source) -> None:
    start, end = NOON + 2_000, NOON + 52_000
    rows = read_parquet(rotation.export(ExportFormat.PARQUET, start_ms=start, end_ms=end).path)
    assert books_in(rows) == books_by_price([each for each in rotation.snapshots if start <= each.ts < end])


def test_snapshots_of_a_time_without_a_record_have_no_subscription(source_of: MakeSource) -> None:
    rows = read_parquet(source_of(turn(NOON, 1, 5), []).export(ExportFormat.PARQUET).path)
    assert {row["subscription"] for row in rows} == {None}
    assert [row["settled"] for row in rows] == [False] * 20 + [True] * 4


def in_nanoseconds() -> list[Kept]:
    """Books of three reads; two of them within one ms."""
    at = ((NOON, 5), (NOON, 900), (NOON + 1, None))
    return [Kept(ts, 1 + n, *book(n), ns and ts * 1_000_000 + ns) for n, (ts, ns) in enumerate(at)]


def test_time_of_receipt_in_nanoseconds_is_a_column_if_it_was_recorded(source_of: MakeSource) -> None:
    table = pq.read_table(source_of(in_nanoseconds()).export(ExportFormat.PARQUET).path)
    assert table.column_names[-1] == "ts_recv"
    ms = NOON * 1_000_000
    assert table["ts_recv"].cast("int64").to_pylist() == [ms + 5, ms + 900, ms + 1_000_000]
    assert table["settled"].to_pylist() == [True, True, True]


def test_export_has_the_levels_of_the_archives_reader(source: Source) -> None:
    exported = pq.read_table(source.export(ExportFormat.PARQUET, force=True).path)
    read = ArchiveReader(source.store.url).to_arrow("SPY", columns="levels")
    assert exported.select(NAMES).to_pylist() == read.select(NAMES).to_pylist()
    assert exported["settled"].to_pylist() == read["settled"].to_pylist()


def test_path_that_ends_in_gz_is_compressed(rotation: Source) -> None:
    path = rotation.export(ExportFormat.CSV, "spy.csv.gz").path
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert len(pd.read_csv(path)) == len(rotation.snapshots)


def test_subscription_that_reaches_over_midnight_is_exported_by_date(source_of: MakeSource) -> None:
    midnight = NOON - 12 * 3_600_000
    snapshots = [Kept(midnight + 100 * at, 50 + at, *book(at)) for at in range(-5, 5)]
    source = source_of(snapshots, [interval_of(snapshots, 3)])
    rows = read_parquet(source.export(ExportFormat.PARQUET).path)
    assert books_in(rows) == books_by_price(snapshots[5:])
    assert {row["subscription"] for row in rows} == {3}
