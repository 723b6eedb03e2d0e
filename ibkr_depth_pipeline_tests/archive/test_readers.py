"""Programs that know only Parquet read the books of an archive with one glob, as docs/archive.md says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.archive.layout import ReportPlace
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline_tests.archive.conftest import DAY, MS_PER_DAY, NOON, Desk, Mirror

STATES = ("parts", "compacted", "compacted and late parts", "compacted and parts of the next date")
Row = tuple[str, str, int]


def made(mirror: Mirror, desk: Desk, state: str) -> Path:
    """An archive in that state, with every other table and file beside the books."""
    for first in (1, 51):
        for symbol in ("BRK B", "SPY"):
            mirror.write(symbol, range(first, first + 50), start=NOON + first)
        desk.keep()
    mirror.write("SPY", [103], start=NOON + 200)  # and a hole, which is a table of its own
    desk.keep()
    if state != "parts":
        compact_day(desk.store, DAY)
    if state.startswith("compacted and"):
        next_day = MS_PER_DAY if "next" in state else 0
        mirror.write("SPY", [104, 105], start=NOON + 300 + next_day)
        desk.keep()
    with desk.store.written_aside("put") as aside:
        aside.write_text("<html></html>")
        desk.store.publish(aside, ReportPlace(DAY))
    return Path(desk.settings.archive_url)


def by_duckdb(archive: Path) -> list[Row]:
    duckdb = pytest.importorskip("duckdb")
    query = f"SELECT date, symbol, seq FROM read_parquet('{archive}/books/*/*/*.parquet', hive_partitioning = true)"
    return [(str(day), symbol, seq) for day, symbol, seq in duckdb.sql(query).fetchall()]


def by_duckdb_with_two_stars(archive: Path) -> list[Row]:
    duckdb = pytest.importorskip("duckdb")
    query = f"SELECT date, symbol, seq FROM '{archive}/books/**/*.parquet'"
    return [(str(day), symbol, seq) for day, symbol, seq in duckdb.sql(query).fetchall()]


def by_polars(archive: Path) -> list[Row]:
    pl = pytest.importorskip("polars")
    frame = pl.scan_parquet(archive / "books", hive_partitioning=True).select("date", "symbol", "seq").collect()
    return [(str(day), symbol, seq) for day, symbol, seq in frame.rows()]


def by_polars_with_a_glob(archive: Path) -> list[Row]:
    pl = pytest.importorskip("polars")
    frame = pl.read_parquet(f"{archive}/books/*/*/*.parquet", hive_partitioning=True).select("date", "symbol", "seq")
    return [(str(day), symbol, seq) for day, symbol, seq in frame.rows()]


def by_pyarrow(archive: Path) -> list[Row]:
    import pyarrow.dataset as dataset

    table: Any = dataset.dataset(archive / "books", partitioning="hive").to_table(columns=["date", "symbol", "seq"])
    return [(row["date"], row["symbol"], row["seq"]) for row in table.to_pylist()]


def by_pandas(archive: Path) -> list[Row]:
    pd = pytest.importorskip("pandas")
    frame = pd.read_parquet(archive / "books", columns=["date", "symbol", "seq"])
    return [(str(day), str(symbol), int(seq)) for day, symbol, seq in frame.itertuples(index=False)]


@pytest.mark.parametrize("state", STATES)
def test_one_glob_of_every_program_finds_each_snapshot_once_in_any_state(
    mirror: Mirror, desk: Desk, state: str
) -> None:
    archive = made(mirror, desk, state)
    days = {NOON // MS_PER_DAY: str(DAY), NOON // MS_PER_DAY + 1: "2026-01-06"}
    written = sorted(
        (days[entry.ts // MS_PER_DAY], symbol, entry.seq) for symbol, ids in mirror.written.items() for entry in ids
    )
    programs: list[Callable[[Path], list[Row]]] = [
        by_duckdb,
        by_duckdb_with_two_stars,
        by_polars,
        by_polars_with_a_glob,
        by_pyarrow,
        by_pandas,
    ]
    assert {program.__name__: sorted(program(archive)) == written for program in programs} == {
        program.__name__: True for program in programs
    }


def test_polars_and_pandas_read_times_and_levels(mirror: Mirror, desk: Desk) -> None:
    pl, pd = pytest.importorskip("polars"), pytest.importorskip("pandas")
    archive = made(mirror, desk, "compacted and late parts")
    books = pl.scan_parquet(archive / "books", hive_partitioning=True).filter(pl.col("symbol") == "BRK B")
    mid = books.select("ts", "date", mid=(pl.col("bid_price").arr.get(0) + pl.col("ask_price").arr.get(0)) / 2)
    frame = mid.collect()
    assert frame.height == 100
    assert frame["date"].unique().to_list() == [DAY]
    assert frame["mid"][0] == pytest.approx(100.005)
    day = pd.read_parquet(archive / "books" / f"date={DAY}" / "symbol=SPY")
    assert len(day) == 103
    assert str(day["ts"].dtype) == "datetime64[ms, UTC]"
    assert day["bid_price"][0][0] == 100.0
