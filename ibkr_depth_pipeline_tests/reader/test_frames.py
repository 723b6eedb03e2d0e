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


def test_table_holds_what_the_snapshots_hold(reader: DepthReader) -> None:
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


def test_table_of_a_part_of_the_time_holds_that_part(reader: DepthReader) -> None:
    assert reader.to_arrow("SPY", "QQQ", start=T0 + 90, end=T0 + 120)["seq"].to_pylist() == [10, 11, 12, 10]


def test_polars_frame_holds_ten_levels_as_arrays(reader: DepthReader) -> None:
    pl = pytest.importorskip("polars")
    frame = reader.to_polars("SPY")
    assert frame["bid_price"].dtype == pl.Array(pl.Float64, 10)
    assert frame["ts"].dtype == pl.Datetime("ms", "UTC")
    assert frame["bid_size"].arr.first().to_list() == [float(number) for number in range(1, 21)]


def test_pandas_frame_has_a_column_per_level(reader: DepthReader) -> None:
    pytest.importorskip("pandas")
    frame = reader.to_pandas("SPY")
    assert list(frame["bid_size_0"]) == [float(number) for number in range(1, 21)]
    assert frame["ask_price_9"].iloc[0] == pytest.approx(100.1)
    assert frame["ts"].iloc[0] == datetime.fromtimestamp(T0 / 1000, timezone.utc)
    assert len(frame.columns) == len(frames.HEAD) + 2 * 3 * 10


async def test_async_reader_gives_the_same_frames(reader: DepthReader, shared_redis_url: str) -> None:
    pytest.importorskip("polars")
    pytest.importorskip("pandas")
    async with AsyncDepthReader(shared_redis_url) as other:
        assert (await other.to_polars("SPY")).equals(reader.to_polars("SPY"))
        assert (await other.to_pandas("SPY")).equals(reader.to_pandas("SPY"))


@pytest.mark.parametrize(
    ("ask", "extra", "missing"),
    [("to_arrow", "arrow", "pyarrow"), ("to_polars", "polars", "polars"), ("to_pandas", "pandas", "pandas")],
)
def test_missing_library_is_named_with_the_extra_that_brings_it(
    reader: DepthReader, monkeypatch: pytest.MonkeyPatch, ask: str, extra: str, missing: str
) -> None:
    find_spec: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(ModuleNotFoundError, match=rf"{missing}.*pip install 'ibkr_depth_pipeline\[{extra}\]'"):
        getattr(reader, ask)("SPY")


def test_side_of_another_depth_is_refused() -> None:
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
        reader.to_arrow("TSLA", limit=1)  # loads pyarrow
        began = time.process_time()
        table = reader.to_arrow("TSLA")
        print(f"\n10,000 snapshots from Redis into an Arrow table: {time.process_time() - began:.3f} s of a core")
    assert table.num_rows == 10_000


def book_of(bids: list[tuple[float, float, str]], asks: list[tuple[float, float, str]], seq: int = 1) -> DepthSnapshot:
    """A snapshot of these rows, filled up with empty ones."""
    sides = [orjson.dumps([*side, *[(0.0, 0.0, "")] * (10 - len(side))]) for side in (bids, asks)]
    return DepthSnapshot("SPY", T0 + seq, seq, "ISLAND", *sides)


MAKERS = book_of([(100.0, 3.0, "NITE"), (100.0, 4.0, "CDRG"), (99.9, 1.0, "NITE")], [(100.2, 5.0, "NITE")])
MOVING = book_of([(99.9, 1.0, "A"), (100.0, 2.0, "B"), (99.9, 3.0, "A")], [(100.2, 5.0, "A"), (100.1, 6.0, "B")], 2)
EMPTY = book_of([], [], 3)


def test_levels_add_up_the_rows_of_one_price_and_count_them_best_first() -> None:
    bids, asks = MAKERS.levels()
    assert bids == ((100.0, 7.0, 2), (99.9, 1.0, 1))
    assert (bids[0].price, bids[0].size, bids[0].count) == (100.0, 7.0, 2)
    assert asks == ((100.2, 5.0, 1),)
    assert MOVING.levels().bids == ((100.0, 2.0, 1), (99.9, 4.0, 2))
    assert MOVING.levels().asks == ((100.1, 6.0, 1), (100.2, 5.0, 1))
    assert EMPTY.levels() == ((), ())


def test_columns_of_levels_hold_what_levels_gives() -> None:
    books = [MAKERS, MOVING, EMPTY]
    table = frames.arranged(frames.to_arrow(books), "levels")
    names = [
        f"{side}_{part}_{level:02d}" for level in range(10) for side in ("bid", "ask") for part in ("px", "sz", "ct")
    ]
    assert table.column_names == [*frames.HEAD, *names]
    for row, book in zip(table.to_pylist(), books, strict=True):
        for side, levels in zip(("bid", "ask"), book.levels(), strict=True):
            found = [tuple(row[f"{side}_{part}_{at:02d}"] for part in ("px", "sz", "ct")) for at in range(10)]
            assert found == [*levels, *[(None, None, None)] * (10 - len(levels))]


def test_empty_rows_are_null_in_every_arrangement() -> None:
    pl = pytest.importorskip("polars")
    table = frames.to_arrow([MAKERS, EMPTY])
    assert table["bid_price"].to_pylist() == [[100.0, 100.0, 99.9, *[None] * 7], [None] * 10]
    assert table["ask_venue"].to_pylist() == [["NITE", *[None] * 9], [None] * 10]
    rows = frames.arranged(table, "rows")
    assert (rows["bid_size_2"].to_pylist(), rows["bid_size_3"].to_pylist()) == ([1.0, None], [None, None])
    frame = frames.to_polars(table)
    spread = frame.select(pl.col("ask_price").arr.first() - pl.col("bid_price").arr.first()).to_series()
    assert spread.mean() == pytest.approx(0.2)
    in_pandas = frames.to_pandas(table)
    assert in_pandas["bid_price_0"].mean() == 100.0
    assert [str(in_pandas[name].dtype) for name in ("subscription", "settled")] == ["Int64", "boolean"]


def test_row_of_size_zero_or_price_zero_is_not_empty() -> None:
    table = frames.to_arrow([book_of([(0.0, 5.0, "A"), (-1.0, 0.0, "A"), (0.0, 0.0, "A")], [])])
    assert table["bid_price"].to_pylist()[0][:4] == [0.0, -1.0, 0.0, None]


def test_arrangement_of_columns_is_a_choice_and_another_one_is_refused(reader: DepthReader) -> None:
    assert reader.to_polars("SPY", columns="levels")["bid_px_00"].to_list() == [100.0] * 20
    assert reader.to_pandas("SPY", columns="levels")["ask_ct_09"].to_list() == [1] * 20
    assert reader.to_arrow("SPY", columns="rows").column_names[-1] == "ask_venue_9"
    with pytest.raises(ValueError, match="'wide' is none that there is: it may be 'lists', 'rows', 'levels'"):
        reader.to_arrow("SPY", columns="wide")  # type: ignore[arg-type]
