"""Ranges as Arrow, Polars and pandas: the same numbers as the snapshots, typed; and how long ten thousand take."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import orjson
import pytest

from ibkr_depth_pipeline.reader import AsyncDepthReader, DepthReader, DepthSnapshot, SchemaMismatch, frames
from ibkr_depth_pipeline_tests.reader.filling import T0, Filler

pa = pytest.importorskip("pyarrow")


@pytest.fixture
def reader(shared_redis_url: str) -> Iterator[DepthReader]:
    with Filler(shared_redis_url) as spy, Filler(shared_redis_url, "QQQ") as qqq:
        spy.add(20)
        qqq.add(10)
    with DepthReader(shared_redis_url) as reader:
        yield reader


def test_a_table_holds_what_the_snapshots_hold(reader: DepthReader) -> None:
    table = reader.to_arrow("SPY", "QQQ")
    books = reader.range("SPY") + reader.range("QQQ")
    assert table.schema == frames.schema()
    table.validate(full=True)
    rows = table.to_pylist()
    assert [(row["symbol"], row["seq"], row["venue"]) for row in rows] == [
        (book.symbol, book.seq, book.venue) for book in books
    ]
    assert [row["ts"] for row in rows] == [book.time for book in books]
    for side, levels in (("bid", [book.bids for book in books]), ("ask", [book.asks for book in books])):
        for part in frames.PARTS:
            assert [row[f"{side}_{part}"] for row in rows] == [[getattr(row, part) for row in each] for each in levels]


def test_a_table_of_a_part_of_the_time(reader: DepthReader) -> None:
    assert reader.to_arrow("SPY", "QQQ", start=T0 + 90, end=T0 + 120)["seq"].to_pylist() == [10, 11, 12, 10]


def test_nothing_recorded_is_an_empty_table_of_the_same_schema(reader: DepthReader) -> None:
    table = reader.to_arrow("NOSUCH")
    assert table.num_rows == 0
    assert table.schema == frames.schema()
    assert reader.to_arrow().schema == frames.schema()


def test_a_polars_frame_holds_ten_levels_as_arrays(reader: DepthReader) -> None:
    pl = pytest.importorskip("polars")
    frame = reader.to_polars("SPY")
    assert frame["bid_price"].dtype == pl.Array(pl.Float64, 10)
    assert frame["ts"].dtype == pl.Datetime("ms", "UTC")
    assert frame["bid_size"].arr.first().to_list() == [float(number) for number in range(1, 21)]


def test_a_pandas_frame_has_a_column_a_level(reader: DepthReader) -> None:
    pytest.importorskip("pandas")
    frame = reader.to_pandas("SPY")
    assert list(frame["bid_size_0"]) == [float(number) for number in range(1, 21)]
    assert frame["ask_price_9"].iloc[0] == pytest.approx(100.1)
    assert frame["ts"].iloc[0] == datetime.fromtimestamp(T0 / 1000, timezone.utc)
    assert len(frame.columns) == 4 + 2 * 3 * 10


async def test_the_async_reader_gives_the_same_frames(reader: DepthReader, shared_redis_url: str) -> None:
    pytest.importorskip("polars")
    pytest.importorskip("pandas")
    async with AsyncDepthReader(shared_redis_url) as other:
        assert (await other.to_polars("SPY")).equals(reader.to_polars("SPY"))
        assert (await other.to_pandas("SPY")).equals(reader.to_pandas("SPY"))


@pytest.mark.parametrize(
    ("ask", "extra", "missing"),
    [("to_arrow", "arrow", "pyarrow"), ("to_polars", "polars", "polars"), ("to_pandas", "pandas", "pandas")],
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    reader: DepthReader, monkeypatch: pytest.MonkeyPatch, ask: str, extra: str, missing: str
) -> None:
    find_spec: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(ModuleNotFoundError, match=rf"{missing}.*pip install 'ibkr_depth_pipeline\[{extra}\]'"):
        getattr(reader, ask)("SPY")


def test_a_side_of_another_depth_is_refused() -> None:
    nine = b"[" + b",".join([b'[0.0,0.0,""]'] * 9) + b"]"
    with pytest.raises(SchemaMismatch, match="10 rows a side"):
        frames.to_arrow([DepthSnapshot("SPY", T0, 1, "ARCA", nine, nine)])


def test_sides_written_with_blanks_or_with_odd_venues_are_read_all_the_same() -> None:
    odd = [[100.0 - level, 1.0, 'a],["b' if level == 3 else ""] for level in range(10)]
    texts = [json.dumps(odd).encode(), orjson.dumps(odd)]
    table = frames.to_arrow([DepthSnapshot("SPY", T0, seq, "ARCA", text, texts[0]) for seq, text in enumerate(texts)])
    assert table["bid_venue"].to_pylist() == [[venue for _, _, venue in odd]] * 2
    assert table["bid_price"].to_pylist() == table["ask_price"].to_pylist() == [[price for price, _, _ in odd]] * 2


def test_ten_thousand_snapshots_go_into_a_table(shared_redis_url: str) -> None:
    with Filler(shared_redis_url, "TSLA") as filler, DepthReader(shared_redis_url) as reader:
        filler.add(10_000)
        began = time.perf_counter()
        table = reader.to_arrow("TSLA")
        print(f"\n10,000 snapshots from Redis into an Arrow table: {time.perf_counter() - began:.3f} s")
    assert table.num_rows == 10_000
