"""Every call takes one name, several or none, and starts and ends in any form; a name that is wrong is an error."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from ibkr_depth_pipeline.reader import (
    After,
    AfterId,
    AsyncDepthReader,
    At,
    DepthReader,
    DepthSnapshot,
    NothingRecorded,
    Now,
    UnknownSymbol,
)
from ibkr_depth_pipeline.reader.model import position_of, unix_ms
from ibkr_depth_pipeline.schema.keys import heartbeat_key, venue_key
from ibkr_depth_pipeline_tests.reader.filling import T0, Filler

BEGIN = datetime.fromtimestamp(T0 / 1000, timezone.utc)
"""Of the first snapshot of each symbol; 2023-11-14T22:13:20Z."""

CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "latest": lambda reader, names: reader.latest(names),
    "latest_all": lambda reader, names: reader.latest_all(names),
    "heartbeat": lambda reader, names: reader.heartbeat(names),
    "heartbeats": lambda reader, names: reader.heartbeats(names),
    "venue": lambda reader, names: reader.venue(names),
    "venues": lambda reader, names: reader.venues(names),
    "range": lambda reader, names: reader.range(names),
    "newest": lambda reader, names: reader.newest(names, 2),
    "intervals": lambda reader, names: reader.intervals(names),
    "follow": lambda reader, names: reader.follow(names, start=0).read(0.01),
    "to_arrow": lambda reader, names: reader.to_arrow(names),
    "to_polars": lambda reader, names: reader.to_polars(names),
    "to_pandas": lambda reader, names: reader.to_pandas(names),
}


@pytest.fixture
def reader(shared_redis_url: str) -> Iterator[DepthReader]:
    with Filler(shared_redis_url) as spy, Filler(shared_redis_url, "QQQ") as qqq:
        spy.add(6)
        qqq.add(6)
        for symbol in ("SPY", "QQQ"):
            spy.client.set(heartbeat_key(symbol), T0, ex=30)
            fields = ("con_id", "exchange", "primary_exchange", "valid_exchanges", "depth_supported", "reason")
            spy.client.hset(venue_key(symbol), mapping={**dict.fromkeys(fields, 1), "checked_ts": T0})
    with DepthReader(shared_redis_url) as reader:
        yield reader


def symbols_in(found: Any) -> set[str]:
    """The symbols that an answer is about."""
    if isinstance(found, dict):
        return set(found)
    if isinstance(found, list):
        return {each.symbol for each in found}
    if hasattr(found, "column_names"):
        return set(found["symbol"].to_pylist())
    return set(found["symbol"]) if hasattr(found, "columns") else {getattr(found, "symbol", "SPY")}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_takes_a_name_a_collection_or_none_for_all(reader: DepthReader, call: str) -> None:
    both = {"SPY", "QQQ"}
    forms: list[tuple[Any, set[str]]] = [
        ("SPY", {"SPY"}),
        (["SPY"], {"SPY"}),
        (("SPY", "QQQ"), both),
        ({"QQQ"}, {"QQQ"}),
        (iter(["QQQ", "SPY", "QQQ"]), both),
        (None, both),
    ]
    for form, expected in forms:
        assert symbols_in(CALLS[call](reader, form)) == expected


@pytest.mark.parametrize("call", CALLS)
def test_unknown_symbol_is_an_error_that_lists_what_is_there(reader: DepthReader, call: str) -> None:
    for form in ("SPX", ["SPY", "SPX"]):
        with pytest.raises(UnknownSymbol, match=r"'SPX'.*Redis at 127\.0\.0\.1.*mean SPY\?.*QQQ, SPY") as raised:
            CALLS[call](reader, form)
        assert (raised.value.symbols, raised.value.known) == (("SPX",), ("QQQ", "SPY"))


@pytest.mark.parametrize("call", CALLS)
def test_empty_collection_and_what_is_no_name_are_refused(reader: DepthReader, call: str) -> None:
    with pytest.raises(ValueError, match="leave it out for all"):
        CALLS[call](reader, [])
    for wrong in (1.5, b"SPY", [5], [""], object()):
        with pytest.raises(TypeError, match="no symbol"):
            CALLS[call](reader, wrong)


def test_one_name_gives_one_value_and_several_give_a_mapping(reader: DepthReader) -> None:
    book = reader.latest("SPY")
    assert isinstance(book, DepthSnapshot)
    assert reader.latest(["SPY"]) == reader.latest_all("SPY") == {"SPY": book}
    assert reader.latest() == reader.latest_all() == reader.latest_all("SPY", "QQQ")


def test_name_in_lower_case_is_unknown_and_the_right_one_is_suggested(reader: DepthReader) -> None:
    with pytest.raises(UnknownSymbol, match=r"'qqq'.*did you mean QQQ\?"):
        reader.range("qqq")


def test_missing_ok_leaves_out_what_is_not_there(reader: DepthReader) -> None:
    assert reader.latest("NOPE", missing_ok=True) is None
    assert reader.range(["NOPE", "SPY"], missing_ok=True, limit=1)[0].symbol == "SPY"
    assert reader.to_arrow("NOPE", missing_ok=True).num_rows == 0
    assert reader.follow("NOPE", missing_ok=True).read(0.01) == []


def test_frame_of_nothing_is_an_error_that_says_what_there_is(reader: DepthReader) -> None:
    for ask in (reader.to_arrow, reader.to_polars, reader.to_pandas):
        with pytest.raises(NothingRecorded, match=r"from 2030-01-01 on.*SPY: 2023-11-14T22:13:20Z \(seq 1\)"):
            ask("SPY", start="2030-01-01")
        assert len(ask("SPY", start="2030-01-01", missing_ok=True)) == 0


def test_frame_of_an_empty_redis_is_an_error(shared_redis_url: str) -> None:
    with DepthReader(shared_redis_url) as reader:
        for ask in (reader.to_arrow, reader.to_polars, reader.to_pandas):
            with pytest.raises(NothingRecorded, match=r"nothing is recorded in Redis at 127\.0\.0\.1"):
                ask()
        with pytest.raises(NothingRecorded):
            reader.follow().read()


def seqs(books: list[Any]) -> list[int]:
    return [book.seq for book in books]


STARTS: list[tuple[Any, int]] = [
    (T0 + 20, 3),
    (BEGIN + timedelta(milliseconds=20), 3),
    ((BEGIN + timedelta(milliseconds=20)).astimezone(timezone(timedelta(hours=-5))), 3),
    ("2023-11-14T22:13:20.020Z", 3),
    ("2023-11-14T22:13:20.020+00:00", 3),
    ("2023-11-14 22:13:20.020", 3),
    ("2023-11-14T17:13:20.020-05:00", 3),
    ("2023-11-14", 1),
    (date(2023, 11, 14), 1),
    (0, 1),
    (1, 1),
    (3, 3),
    (f"{T0 + 20}-3", 3),
    (After(2), 3),
    (AfterId(f"{T0 + 10}-2"), 3),
    (At(T0 + 11), 3),
    (At("2023-11-14T22:13:20.011Z"), 3),
    (At(date(2023, 11, 14)), 1),
]


@pytest.mark.parametrize(("point", "first"), STARTS)
def test_start_and_end_have_the_same_forms_in_ranges_frames_and_followings(
    reader: DepthReader, point: Any, first: int
) -> None:
    after, before = list(range(first, 7)), list(range(1, first))
    assert seqs(reader.range("SPY", point)) == after
    assert seqs(reader.range("SPY", end=point)) == before
    assert reader.to_arrow("SPY", start=point)["seq"].to_pylist() == after
    assert reader.to_arrow("SPY", end=point, missing_ok=True)["seq"].to_pylist() == before
    assert seqs(reader.follow("SPY", start=point).read()) == after


@pytest.mark.parametrize(
    "times", [(2, 5), (T0 + 10, T0 + 40), (After(1), "2023-11-14T22:13:20.040Z"), (f"{T0 + 10}-2", 5)]
)
def test_start_and_end_may_follow_the_symbols_in_frames_as_in_ranges(reader: DepthReader, times: Any) -> None:
    asked: Any = ("SPY", *times)
    assert seqs(reader.range(*asked)) == [2, 3, 4]
    assert reader.to_arrow(*asked)["seq"].to_pylist() == [2, 3, 4]
    assert reader.to_polars(*asked)["seq"].to_list() == [2, 3, 4]
    assert list(reader.to_pandas(["SPY"], times[0], end=times[1])["seq"]) == [2, 3, 4]
    assert reader.to_arrow("QQQ", *asked).num_rows == 6
    assert sum(filter(None, reader.resample("1ms", *asked, form="arrow")["count"].to_pylist())) == 3
    with pytest.raises(TypeError, match="more than one start"):
        reader.to_arrow(*asked, start=1)
    with pytest.raises(TypeError, match="more than one start"):
        reader.to_arrow(*asked, 5)


def test_second_name_in_the_place_of_a_start_is_told_what_to_do(reader: DepthReader) -> None:
    with pytest.raises(ValueError, match=r"'QQQ' is no time: .*several symbols are a list"):
        reader.range("SPY", "QQQ")


def test_start_and_end_may_be_of_different_forms_and_differ_by_symbol(reader: DepthReader) -> None:
    assert seqs(reader.range("SPY", 2, T0 + 40)) == [2, 3, 4]
    assert seqs(reader.range("SPY", date(2023, 11, 14), After(2))) == [1, 2]
    assert seqs(reader.range(start={"SPY": 5, "QQQ": After(5)})) == [6, 5, 6]
    assert seqs(reader.range("SPY", start=Now())) == []
    assert seqs(reader.range("SPY", end=Now())) == [1, 2, 3, 4, 5, 6]
    assert {each.symbol for each in reader.follow(start={"QQQ": 1}).read()} == {"QQQ"}


@pytest.mark.parametrize(
    ("point", "why"),
    [
        (datetime(2023, 11, 14), "no time zone"),
        ("yesterday", "'yesterday' is no time: allowed is"),
        ("QQQ", "is no time"),
        (1_700_000_000, "looks like unix seconds: give unix ms, 1700000000000"),
        (T0 * 1000, "not microseconds"),
        (AfterId("x"), "no stream id"),
    ],
)
def test_point_that_is_none_is_refused_and_the_error_says_what_is_allowed(
    reader: DepthReader, point: Any, why: str
) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: reader.range("SPY", point),
        lambda: reader.range("SPY", end=point),
        lambda: reader.to_polars("SPY", start=point),
        lambda: reader.intervals("SPY", point),
        lambda: reader.follow("SPY", start=point),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=why):
            call()


@pytest.mark.parametrize("point", [1.5, True, object(), [1]])
def test_point_of_another_type_is_refused(point: Any) -> None:
    with pytest.raises(TypeError, match="no time and no position"):
        position_of(point)


def test_moment_is_a_time_whatever_its_size() -> None:
    assert unix_ms(5) == 5
    assert position_of(At(5)) == At(5)
    assert position_of(5) == After(4)


def test_limit_is_of_each_symbol_and_frames_take_what_ranges_take(reader: DepthReader) -> None:
    assert seqs(reader.range(limit=2)) == [1, 2, 1, 2]
    assert list(reader.to_pandas("SPY", start=2, end=6, limit=3)["seq"]) == [2, 3, 4]
    assert len(reader.to_polars(limit=1)) == 2
    assert reader.to_arrow("SPY", limit=0).num_rows == 0
    with pytest.raises(ValueError, match="limit=-1"):
        reader.range("SPY", limit=-1)


async def test_async_reader_takes_the_same(reader: DepthReader, shared_redis_url: str) -> None:
    async with AsyncDepthReader(shared_redis_url) as other:
        assert await other.latest("SPY") == reader.latest("SPY")
        assert await other.latest() == reader.latest()
        assert await other.range(["SPY"], "2023-11-14", 3) == reader.range("SPY", end=3)
        assert seqs(await other.follow(start=5).read()) == [5, 6, 5, 6]
        with pytest.raises(UnknownSymbol, match="QQQ, SPY"):
            await other.to_pandas("NOPE")
        with pytest.raises(UnknownSymbol, match="QQQ, SPY"):
            await anext(other.follow("NOPE"))


def test_both_readers_have_the_same_methods_with_the_same_arguments() -> None:
    names = {name for name in dir(DepthReader) if not name.startswith("_")} - {"close"}
    assert names == {name for name in dir(AsyncDepthReader) if not name.startswith("_")} - {"aclose"}
    for name in names - {"follow"}:
        assert getattr(DepthReader, name) is getattr(AsyncDepthReader, name)
    follow, other = inspect.signature(DepthReader.follow), inspect.signature(AsyncDepthReader.follow)
    assert follow.parameters == other.parameters
