"""Programs that know only Parquet read the archive as docs/archive.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline_tests.archive.conftest import DAY, Desk, Mirror


@pytest.fixture
def folder(mirror: Mirror, desk: Desk) -> Path:
    """An archive with a compacted day of two symbols."""
    mirror.write("BRK B", range(1, 101))
    mirror.write("SPY", range(1, 51))
    desk.keep()
    compact_day(desk.store, DAY)
    return Path(desk.settings.archive_url)


def test_polars_scans_the_days_with_date_and_symbol_as_columns(folder: Path) -> None:
    pl = pytest.importorskip("polars")
    books = pl.scan_parquet(folder / "days", hive_partitioning=True).filter(pl.col("symbol") == "BRK B")
    found = books.select("ts", "date", mid=(pl.col("bid_price").arr.get(0) + pl.col("ask_price").arr.get(0)) / 2)
    frame = found.collect()
    assert frame.height == 100
    assert frame["date"].unique().to_list() == [DAY]
    assert frame["mid"][0] == pytest.approx(100.005)


def test_pandas_reads_one_symbols_day(folder: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.read_parquet(folder / "days" / f"date={DAY}" / "symbol=SPY")
    assert len(frame) == 50
    assert str(frame["ts"].dtype) == "datetime64[ms, UTC]"
    assert frame["bid_price"][0][0] == 100.0
