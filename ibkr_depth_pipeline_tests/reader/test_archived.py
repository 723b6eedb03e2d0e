"""The reader of an archive beside the reader of the Redis that it was archived from: the same answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.archive.archiver import run_archiver
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.reader import (
    After,
    AfterId,
    ArchiveReader,
    DepthReader,
    DepthSnapshot,
    NothingRecorded,
    UnknownSymbol,
    frames,
    open_reader,
)
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline_tests.reader.filling import T0, Filler
from ibkr_depth_pipeline_tests.reader.test_frames import book_of
from ibkr_depth_pipeline_tests.reader.test_intervals import growing, store_books, two_turns

Both = tuple[DepthReader, ArchiveReader]


@pytest.fixture(scope="module")
def module_redis_url() -> Iterator[str]:
    with EmbeddedRedis() as server:
        yield server.url


@pytest.fixture(scope="module")
def both(module_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Two symbols, one of which is thin and makes pauses; no record of subscriptions."""
    folder: Path = tmp_path_factory.mktemp("archived")
    with Filler(module_redis_url) as spy, Filler(module_redis_url, "QQQ") as qqq:
        store_books(spy, *growing(1, T0, 4, 6), *growing(11, T0 + 20_000, 3, 3))
        maker = book_of([(5.0, 1.0, "A"), (5.0, 2.0, ""), (0.0, 3.0, "B")], [], 17)
        store_books(spy, DepthSnapshot("SPY", T0 + 20_010, 17, "ARCA", maker.bids_json, maker.asks_json))
        qqq.add(10)
    settings = load_settings(redis_url=module_redis_url, archive_url=str(folder / "archive"), archive_flush_secs=0.2)
    run_archiver(settings, once=True)
    with DepthReader(module_redis_url) as reader, ArchiveReader(settings.archive_url) as archived:
        yield reader, archived


CALLS: list[Callable[[Any], Any]] = [
    lambda reader: reader.symbols(),
    lambda reader: reader.range(),
    lambda reader: reader.range("SPY", limit=3),
    lambda reader: reader.range(["QQQ", "SPY"], 3, 8),
    lambda reader: reader.range("SPY", After(3), AfterId(f"{T0 + 7}-8")),
    lambda reader: reader.range("SPY", "2023-11-14T22:13:20.003Z", T0 + 9),
    lambda reader: reader.range("SPY", date(2023, 11, 14), "2023-11-15"),
    lambda reader: reader.range("SPY", end=f"{T0 + 7}-8", settled=True),
    lambda reader: reader.range(start={"QQQ": 9, "SPY": 16}),
]


@pytest.mark.parametrize("call", range(len(CALLS)))
def test_archive_gives_what_redis_gives(both: Both, call: int) -> None:
    reader, archived = both
    assert (found := CALLS[call](reader)) == CALLS[call](archived)
    assert found


def test_marks_and_levels_are_those_of_redis(both: Both) -> None:
    reader, archived = both
    for mine, theirs in zip(reader.range(), archived.range(), strict=True):
        assert [getattr(mine, mark) for mark in frames.MARKS] == [getattr(theirs, mark) for mark in frames.MARKS]
        assert mine.levels() == theirs.levels()


@pytest.mark.parametrize("columns", ["lists", "rows", "levels"])
def test_frames_are_those_of_redis(both: Both, columns: Any) -> None:
    reader, archived = both
    for options in ({}, {"symbols": ("SPY",), "start": 5, "limit": 4}, {"settled": True}):
        names = options.pop("symbols", ())
        mine, theirs = (each.to_arrow(*names, columns=columns, **options) for each in (reader, archived))
        theirs.validate(full=True)
        assert theirs.schema.names == mine.schema.names
        assert theirs.to_pylist() == mine.to_pylist()
    assert archived.to_arrow().schema == frames.schema()
    assert archived.to_pandas(columns="levels").equals(reader.to_pandas(columns="levels"))
    assert archived.to_polars().equals(reader.to_polars())


def test_inferred_intervals_and_bars_are_those_of_redis(both: Both) -> None:
    reader, archived = both
    moments = [
        [(each.symbol, each.first_row, each.complete, each.until, each.first_seq, each.last_seq) for each in found]
        for found in (reader.intervals(), archived.intervals())
    ]
    assert moments[0] == moments[1]
    for options in ({}, {"start": T0 + 5, "end": T0 + 30_000}):
        bars = [each.resample("1s", form="arrow", **options).to_pylist() for each in both]
        assert bars[0] == bars[1]


def test_record_of_subscriptions_is_archived_and_read_as_that_in_redis(shared_redis_url: str, tmp_path: Path) -> None:
    with Filler(shared_redis_url) as filler:
        two_turns(filler)
        filler.skip(3)
        filler.begin(3, complete=1)
        filler.add(5)
        filler.end()
    settings = load_settings(redis_url=shared_redis_url, archive_url=str(tmp_path / "archive"), archive_flush_secs=0.2)
    run_archiver(settings, once=True)
    with DepthReader(shared_redis_url) as reader, ArchiveReader(settings.archive_url) as archived:
        assert archived.intervals() == reader.intervals()
        assert [each.subscription for each in archived.intervals("SPY", T0 + 1_000, T0 + 50_000)] == [2]
        assert archived.to_arrow().to_pylist() == reader.to_arrow().to_pylist()
        assert archived.to_arrow(settled=True)["seq"].to_pylist() == [3, 4, 5, 6, 8, 9, 10, 15, 16, 17, 18]
        assert archived.resample("1s", form="arrow").equals(reader.resample("1s", form="arrow"))
        [gap] = archived.gaps()
        assert (gap.first_seq, gap.last_seq) == (11, 13)


def test_batches_are_the_range_in_pieces(both: Both) -> None:
    _, archived = both
    assert [seq for table in archived.batches("SPY", 5) for seq in table["seq"].to_pylist()] == list(range(5, 18))


def test_symbol_or_time_that_is_not_archived_is_an_error_that_names_those_archived(both: Both) -> None:
    _, archived = both
    for call in (archived.range, archived.to_arrow, archived.intervals, archived.gaps):
        with pytest.raises(UnknownSymbol, match=r"'SPX' in the archive .*did you mean SPY\?.*QQQ, SPY"):
            call("SPX")
    with pytest.raises(NothingRecorded, match=r"from 2030-01-01 on in the archive .*QQQ, SPY from 2023-11-14 to"):
        archived.to_polars("SPY", start="2030-01-01")
    assert archived.to_arrow("SPX", missing_ok=True).num_rows == 0


def test_reader_is_chosen_by_the_url(both: Both, module_redis_url: str) -> None:
    kinds = {module_redis_url: DepthReader, "rediss://127.0.0.1:1/0": DepthReader, "/tmp": ArchiveReader}
    for url, kind in kinds.items():
        with open_reader(url) as reader:
            assert isinstance(reader, kind)


def test_empty_archive_is_an_error(tmp_path: Path) -> None:
    with ArchiveReader(str(tmp_path)) as archived:
        assert archived.symbols() == ()
        assert archived.range() == []
        with pytest.raises(NothingRecorded, match="it is empty"):
            archived.to_arrow()
