"""What Redis stores of a snapshot: ten rows a side, growing ids, JSON that reads back to the same numbers."""

from __future__ import annotations

import json

import hiredis
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.model import Instrument, Level, Levels, Unresolved
from ibkr_depth_pipeline.schema.encoding import (
    EMPTY_SIDE,
    EntryPacker,
    LastValue,
    level_text,
    read_levels,
    venue_field,
    venue_fields,
)
from ibkr_depth_pipeline.schema.keys import StreamId, heartbeat_key, last_key, stream_key, venue_key
from ibkr_depth_pipeline_tests.sink.writing import side_json, side_text

EMPTY_ROW = [0.0, 0.0, ""]
finite = st.floats(allow_nan=False, allow_infinity=False)
# what ib_insync hands on was decoded with backslashreplace: any text, but no half of a surrogate pair
venues = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
levels: st.SearchStrategy[Level] = st.tuples(finite, finite, venues)
sides: st.SearchStrategy[Levels] = st.lists(levels, max_size=15).map(tuple)


def entry(packer: EntryPacker, seq: int, ts: int, bids: Levels = (), asks: Levels = ()) -> bytes:
    return packer.pack(ts, seq, venue_field("ARCA"), side_text(bids), side_text(asks))


def packer() -> EntryPacker:
    return EntryPacker(stream_key("SPY"), 10_000)


def words(packed: bytes) -> list[bytes]:
    """As Redis reads it."""
    parser = hiredis.Reader()
    parser.feed(packed)
    read: list[bytes] = parser.gets()
    assert parser.gets() is False
    return read


def rows(encoded: bytes) -> list[list[float | str]]:
    decoded: list[list[float | str]] = json.loads(encoded)
    return decoded


@given(sides, st.integers(1, 10))
def test_every_side_is_exactly_ten_rows_and_reads_back_to_the_same_numbers(side: Levels, shown: int) -> None:
    found = rows(side_json(side, shown))
    filled = [list(level) for level in side[:shown]]
    assert found == filled + [EMPTY_ROW] * (10 - len(filled))
    assert all(isinstance(number, float) for row in found for number in row[:2])
    assert side_json(side, shown) == orjson.dumps(found)
    assert words(side_text(side, shown)) == side_json(side, shown)


@given(sides)
def test_texts_of_a_book_read_back_to_its_rows(side: Levels) -> None:
    assert read_levels([level_text(level) for level in side]) == side


@given(sides, sides, st.integers(0, 2**45), st.integers(1, 2**40))
def test_entry_is_the_xadd_of_the_schema(bids: Levels, asks: Levels, ts: int, seq: int) -> None:
    assert words(entry(packer(), seq, ts, bids, asks)) == [
        *(b"XADD", b"raw:ibkr:depth:stream:SPY", b"MAXLEN", b"~", b"10000", b"%d-%d" % (ts, seq)),
        *(b"ts", b"%d" % ts, b"bids", side_json(bids), b"asks", side_json(asks)),
        *(b"seq", b"%d" % seq, b"venue", b"ARCA"),
    ]


@given(st.lists(st.integers(0, 3), min_size=1), st.integers(0, 2**45), st.integers(1, 2**40))
def test_ids_grow_by_redis_own_order_with_every_snapshot(steps: list[int], start: int, first: int) -> None:
    packing, ts, before = packer(), start, (-1, -1)
    for seq, step in enumerate(steps, start=first):
        ts += step  # a time never falls within a symbol, but may stand still
        packed = entry(packing, seq, ts)
        assert StreamId.of(words(packed)[5]) == packing.position(packed) == StreamId(ts, seq)
        assert (ts, seq) > before
        before = (ts, seq)


def test_foreign_id_without_a_second_part_is_read() -> None:
    assert StreamId.of(b"1700000000000") == StreamId(1700000000000, 0)


@given(sides, sides)
def test_last_value_hash_holds_what_the_specification_names(bids: Levels, asks: Levels) -> None:
    last = LastValue.of_entry(entry(packer(), 7, 1000, bids, asks))
    fields = dict(zip(last.fields[::2], last.fields[1::2], strict=True))
    assert (last.ts, last.seq, last.live) == (1000, 7, side_text(bids) != EMPTY_SIDE or side_text(asks) != EMPTY_SIDE)
    assert (float(fields.pop(b"bid0")), float(fields.pop(b"ask0"))) == (
        bids[0][0] if bids else 0.0,
        asks[0][0] if asks else 0.0,
    )
    assert fields == {
        b"ts": b"1000",
        b"bids_json": side_json(bids),
        b"asks_json": side_json(asks),
        b"venue": b"ARCA",
        b"seq": b"7",
    }


def test_keys_are_those_of_the_specification() -> None:
    assert stream_key("SPY") == "raw:ibkr:depth:stream:SPY"
    assert last_key("SPY") == "raw:ibkr:depth:last:SPY"
    assert heartbeat_key("BRK B") == "raw:ibkr:depth:hb:BRK B"
    assert venue_key("SPY") == "raw:ibkr:depth:venue:SPY"


def test_venue_hash_of_a_symbol_with_depth_is_that_of_the_specification() -> None:
    instrument = Instrument("SPY", 756733, "STK", "USD", "ARCA", "ARCA", ("SMART", "ARCA"))
    assert venue_fields(instrument, 1000) == {
        "con_id": 756733,
        "exchange": "ARCA",
        "primary_exchange": "ARCA",
        "valid_exchanges": "SMART,ARCA",
        "depth_supported": 1,
        "reason": "",
        "checked_ts": 1000,
    }


def test_venue_hash_of_a_refused_symbol_keeps_its_venue_and_the_reason() -> None:
    instrument = Instrument("SPY", 756733, "STK", "USD", "ARCA", "ARCA", ("SMART", "ARCA"))
    fields = venue_fields(instrument, 1000, "10092: not supported")
    assert (fields["depth_supported"], fields["reason"], fields["exchange"]) == (0, "10092: not supported", "ARCA")


@pytest.mark.parametrize("reason", ["no such contract (200)", ""])
def test_unresolved_symbol_never_counts_as_supported(reason: str) -> None:
    fields = venue_fields(Unresolved("NOSUCH", reason), 1000)
    assert fields["depth_supported"] == 0
    assert fields["reason"]
    assert all(isinstance(value, str | int) for value in fields.values())
