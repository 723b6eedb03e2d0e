"""The reader beside a real Redis: newest books, ranges, heartbeats, venues, and what is wrong in words."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.reader import AsyncDepthReader, DepthReader, Level, SchemaMismatch, SinkUnavailable
from ibkr_depth_pipeline.reader.queries import PAGE_ENTRIES
from ibkr_depth_pipeline.schema.encoding import venue_fields
from ibkr_depth_pipeline.schema.keys import heartbeat_key, last_key, stream_key, venue_key
from ibkr_depth_pipeline_tests.reader.filling import T0, Filler


def test_newest_book_is_typed_with_ten_levels_a_side(filler: Filler, reader: DepthReader) -> None:
    filler.add(3)
    book = reader.latest("SPY")
    assert book is not None
    assert (book.symbol, book.ts, book.seq, book.venue) == ("SPY", T0 + 20, 3, "ARCA")
    assert len(book.bids) == len(book.asks) == 10
    assert book.best_bid == Level(100.0, 3.0, "ISLAND")
    assert book.best_ask == Level(100.01, 1.0, "ISLAND")
    assert book.time == datetime(2023, 11, 14, 22, 13, 20, 20_000, timezone.utc)
    assert book.stream_id == f"{T0 + 20}-3"


def test_last_value_hash_and_stream_give_equal_snapshots(filler: Filler, reader: DepthReader) -> None:
    filler.add(3)
    assert reader.newest("SPY", 1) == [reader.latest("SPY")]


def test_snapshot_cannot_be_changed_and_can_be_a_key(filler: Filler, reader: DepthReader) -> None:
    filler.add()
    book = reader.latest("SPY")
    assert book is not None
    with pytest.raises(AttributeError):
        book.seq = 5  # type: ignore[misc]
    assert {book: 1}[book] == 1


def test_empty_side_has_no_best_price(filler: Filler, reader: DepthReader) -> None:
    empty = b"[" + b",".join([b'[0.0,0.0,""]'] * 10) + b"]"
    filler.client.hset(
        last_key("SPY"), mapping={"ts": 1, "seq": 1, "venue": "", "bids_json": empty, "asks_json": empty}
    )
    book = reader.latest("SPY")
    assert book is not None
    assert book.best_bid is None
    assert book.best_ask is None
    assert book.bids == (Level(0.0, 0.0, ""),) * 10


def test_all_newest_books_come_at_once_and_by_name(shared_redis_url: str, reader: DepthReader) -> None:
    for symbol in ("SPY", "BRK B", "AAPL"):
        with Filler(shared_redis_url, symbol) as filler:
            filler.add()
    assert reader.symbols() == ("AAPL", "BRK B", "SPY")
    assert {symbol: book.symbol for symbol, book in reader.latest_all().items()} == {
        symbol: symbol for symbol in reader.symbols()
    }
    assert list(reader.latest_all(["SPY", "NOSUCH"], missing_ok=True)) == ["SPY"]


def test_nothing_recorded_is_none_and_no_error(shared_redis_url: str, reader: DepthReader) -> None:
    assert reader.latest("SPY") is None
    assert reader.latest_all() == {}
    assert reader.heartbeat("SPY") is None
    assert reader.venue("SPY") is None
    assert reader.range("SPY") == []
    assert reader.symbols() == ()


def test_key_that_the_recorders_check_leaves_for_a_moment_is_no_symbol(filler: Filler, reader: DepthReader) -> None:
    filler.add()
    filler.client.xadd(stream_key("check-17"), {"ts": 0})
    assert reader.symbols() == ("SPY",)


def test_key_whose_name_is_no_text_is_no_symbol(filler: Filler, reader: DepthReader) -> None:
    filler.add()
    filler.client.xadd(stream_key("").encode() + b"\xff", {"a": 1})
    assert reader.symbols() == ("SPY",)
    assert list(reader.latest_all()) == ["SPY"]


def test_heartbeat_that_holds_no_time_is_refused(filler: Filler, reader: DepthReader) -> None:
    filler.client.set(heartbeat_key("SPY"), b"\xff", ex=30)
    with pytest.raises(SchemaMismatch, match="the heartbeat of SPY"):
        reader.heartbeat("SPY")


def test_range_includes_its_start_and_excludes_its_end(filler: Filler, reader: DepthReader) -> None:
    filler.add(10)
    assert [each.seq for each in reader.range("SPY", T0 + 20, T0 + 50)] == [3, 4, 5]
    start = datetime.fromtimestamp((T0 + 20) / 1000, timezone.utc)
    assert [each.seq for each in reader.range("SPY", start, start + timedelta(milliseconds=30))] == [3, 4, 5]
    assert [each.seq for each in reader.range("SPY", limit=2)] == [1, 2]
    assert reader.range("SPY", T0 + 50, T0 + 20) == []
    assert reader.range("SPY", None, 0) == []


def test_range_longer_than_a_page_is_whole_even_within_one_millisecond(shared_redis_url: str) -> None:
    count = 2 * PAGE_ENTRIES + 1
    with Filler(shared_redis_url, step_ms=0) as filler, DepthReader(shared_redis_url) as reader:
        filler.add(count)
        assert [each.seq for each in reader.range("SPY", T0, T0 + 1)] == list(range(1, count + 1))


def test_first_and_last_of_a_span_exclude_its_end(filler: Filler, reader: DepthReader) -> None:
    filler.add(5)
    spans = [("SPY", T0 + 10, T0 + 30), ("SPY", T0 + 30, None), ("SPY", 0, T0), ("SPY", T0 + 11, T0 + 20)]
    assert [found and found.seq for found in reader.first_of(spans)] == [2, 4, None, None]
    assert [found and found.seq for found in reader.last_of(spans)] == [3, 5, None, None]


def test_moment_without_a_time_zone_is_refused(reader: DepthReader) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        reader.range("SPY", datetime(2024, 1, 2))


def test_heartbeat_gives_the_time_of_the_last_row_and_its_own_expiry(filler: Filler, reader: DepthReader) -> None:
    filler.client.set(heartbeat_key("SPY"), T0, ex=30)
    beat = reader.heartbeat("SPY")
    assert beat is not None
    assert beat.last_row_ts == T0
    assert 0 < beat.ttl_secs <= 30
    assert reader.heartbeats(["AAPL", "SPY"], missing_ok=True).keys() == {"SPY"}


def test_venue_is_read_as_the_recorder_wrote_it(filler: Filler, reader: DepthReader) -> None:
    spy = Instrument("SPY", 756733, "STK", "USD", "ARCA", "ARCA", ("SMART", "ARCA"))
    filler.client.hset(venue_key("SPY"), mapping=venue_fields(spy, T0, "354: not subscribed"))
    venue = reader.venue("SPY")
    assert venue is not None
    assert (venue.con_id, venue.exchange, venue.valid_exchanges) == (756733, "ARCA", ("SMART", "ARCA"))
    assert not venue.depth_supported
    assert venue.reason == "354: not subscribed"


def test_entry_of_another_schema_is_named_in_the_error(filler: Filler, reader: DepthReader) -> None:
    filler.client.xadd(stream_key("SPY"), {"foo": "bar"}, id="5-1")
    with pytest.raises(SchemaMismatch, match="entry 5-1 of the stream of SPY"):
        reader.range("SPY")
    filler.client.hset(last_key("SPY"), "ts", "soon")
    with pytest.raises(SchemaMismatch, match="hash of SPY"):
        reader.latest("SPY")


def test_fields_in_another_order_and_more_of_them_are_read_all_the_same(filler: Filler, reader: DepthReader) -> None:
    filler.add()
    [(_, fields)] = filler.client.xrange(stream_key("SPY"))
    filler.client.xadd(stream_key("SPY"), {b"new": b"1", **dict(sorted(fields.items())), b"ts": "5"}, id=f"{T0 + 1}-2")
    assert [each.ts for each in reader.range("SPY")] == [T0, 5]


def test_error_about_an_absent_redis_names_it_without_its_password() -> None:
    with DepthReader("redis://user:hunter2@127.0.0.1:1/0") as reader:
        with pytest.raises(SinkUnavailable, match=r"^Redis at 127.0.0.1:1: ") as caught:
            reader.latest("SPY")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://user:hunter2@localhost", "redis://user:hunter2@localhost:port"])
def test_error_about_a_bad_url_hides_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="no Redis URL") as caught:
        DepthReader(url)
    assert "hunter2" not in str(caught.value)


async def test_async_reader_gives_the_same_answers(filler: Filler, reader: DepthReader, shared_redis_url: str) -> None:
    filler.add(5)
    filler.client.set(heartbeat_key("SPY"), T0, ex=30)
    filler.client.hset(venue_key("SPY"), mapping=venue_fields(Instrument("SPY", 1, "STK", "USD", "ARCA", "ARCA"), T0))
    async with AsyncDepthReader(shared_redis_url) as other:
        assert await other.symbols() == reader.symbols()
        assert await other.latest("SPY") == reader.latest("SPY")
        assert await other.latest_all() == reader.latest_all()
        assert await other.range("SPY", T0, T0 + 30) == reader.range("SPY", T0, T0 + 30)
        assert await other.newest("SPY", 2) == reader.newest("SPY", 2)
        assert await other.venue("SPY") == reader.venue("SPY")
        assert await other.venues(["SPY"]) == reader.venues(["SPY"])
        assert (await other.heartbeat("SPY")) is not None
        assert (await other.heartbeats(["SPY"])).keys() == {"SPY"}
        assert (await other.to_arrow("SPY")).equals(reader.to_arrow("SPY"))


def test_importing_the_reader_loads_nothing_heavy() -> None:
    program = "import sys, ibkr_depth_pipeline.reader; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"dagster", "ib_insync", "pydantic", "structlog", "pyarrow", "polars", "pandas", "numpy", "redis", "rich"}
    assert heavy & set(loaded) == set()
    assert "ibkr_depth_pipeline.settings" not in loaded
