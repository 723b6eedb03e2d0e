"""What Redis stores of a snapshot: ten rows a side, growing ids, JSON that reads back to the same numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.model import BookSnapshot, Instrument, Level, Levels, Unresolved
from ibkr_depth_pipeline.sink.encoding import Entry, SnapshotEncoder, StreamPosition, encode_levels, venue_fields
from ibkr_depth_pipeline.sink.keys import heartbeat_key, last_key, stream_key, venue_key

EMPTY_ROW = [0.0, 0.0, ""]
EMPTY_SIDE = b"[" + b",".join([b'[0.0,0.0,""]'] * 10) + b"]"
finite = st.floats(allow_nan=False, allow_infinity=False)
# what ib_insync hands on was decoded with backslashreplace: any text, but no half of a surrogate pair
venues = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
levels: st.SearchStrategy[Level] = st.tuples(finite, finite, venues)
sides: st.SearchStrategy[Levels] = st.lists(levels, max_size=15).map(tuple)


def snapshot(seq: int, ts: int, bids: Levels = (), asks: Levels = ()) -> BookSnapshot:
    return BookSnapshot("SPY", seq, ts, "ARCA", bids, asks)


def rows(encoded: bytes) -> list[list[float | str]]:
    decoded: list[list[float | str]] = json.loads(encoded)
    return decoded


@given(sides)
def test_every_side_is_exactly_ten_rows_and_reads_back_to_the_same_numbers(side: Levels) -> None:
    found = rows(encode_levels(side))
    assert len(found) == 10
    assert found == [list(level) for level in side[:10]] + [EMPTY_ROW] * (10 - len(side))
    assert all(isinstance(number, float) for row in found for number in row[:2])


@given(st.integers(1, 12), sides, sides)
def test_an_entry_shows_as_many_rows_as_were_asked_for_and_the_best_prices(
    shown: int, bids: Levels, asks: Levels
) -> None:
    entry = SnapshotEncoder(shown).encode(snapshot(5, 1000, bids, asks))
    for side, encoded in ((bids, entry.bids), (asks, entry.asks)):
        filled = [list(level) for level in side[: min(shown, 10)]]
        assert rows(encoded) == filled + [EMPTY_ROW] * (10 - len(filled))
    assert entry.bid0 == (bids[0][0] if bids else 0.0)
    assert entry.ask0 == (asks[0][0] if asks else 0.0)


@given(st.lists(st.tuples(st.sampled_from(["bids", "asks", "both", "reset"]), sides)))
def test_a_side_encoded_once_is_right_in_every_later_snapshot(changes: list[tuple[str, Levels]]) -> None:
    encoder = SnapshotEncoder()
    bids: Levels = ()
    asks: Levels = ()
    for seq, (which, side) in enumerate(changes, start=1):
        bids = () if which == "reset" else side if which in ("bids", "both") else bids
        asks = () if which == "reset" else side if which in ("asks", "both") else asks
        entry = encoder.encode(snapshot(seq, seq, bids, asks))
        assert (entry.bids, entry.asks) == (encode_levels(bids), encode_levels(asks))
        assert entry.live == (entry.bids != EMPTY_SIDE or entry.asks != EMPTY_SIDE)


def test_an_untouched_side_is_not_encoded_again() -> None:
    encoder = SnapshotEncoder()
    bids: Levels = ((1.0, 2.0, "ARCA"),)
    first = encoder.encode(snapshot(1, 1, bids, ((2.0, 1.0, ""),)))
    second = encoder.encode(snapshot(2, 2, bids, ((3.0, 1.0, ""),)))
    assert second.bids is first.bids
    assert second.asks != first.asks


@given(st.lists(st.integers(0, 3), min_size=1), st.integers(0, 2**45))
def test_ids_grow_by_redis_own_order_with_every_snapshot(steps: list[int], start: int) -> None:
    encoder, ts, before = SnapshotEncoder(), start, (-1, -1)
    for seq, step in enumerate(steps, start=1):
        ts += step  # a time never falls within a symbol, but may stand still
        stream_id = encoder.encode(snapshot(seq, ts)).stream_id
        position = StreamPosition.of_stream_id(stream_id.encode())
        assert position == StreamPosition(ts, seq)
        assert (position.ts, position.seq) > before
        before = (position.ts, position.seq)


def test_a_foreign_id_without_a_second_part_is_read() -> None:
    assert StreamPosition.of_stream_id(b"1700000000000") == StreamPosition(1700000000000, 0)


def test_the_hash_holds_what_the_specification_names() -> None:
    entry = SnapshotEncoder().encode(snapshot(7, 1000, ((10.0, 1.0, "ARCA"),)))
    assert entry.last_fields() == {
        "ts": 1000,
        "bid0": 10.0,
        "ask0": 0.0,
        "bids_json": entry.bids,
        "asks_json": entry.asks,
        "venue": "ARCA",
        "seq": 7,
    }


@given(sides, sides)
def test_the_cost_of_an_entry_covers_its_payload(bids: Levels, asks: Levels) -> None:
    entry: Entry = SnapshotEncoder().encode(snapshot(1, 1, bids, asks))
    assert entry.cost > len(entry.bids) + len(entry.asks)


def test_the_keys_are_those_of_the_specification() -> None:
    assert stream_key("SPY") == "raw:ibkr:depth:stream:SPY"
    assert last_key("SPY") == "raw:ibkr:depth:last:SPY"
    assert heartbeat_key("BRK B") == "raw:ibkr:depth:hb:BRK B"
    assert venue_key("SPY") == "raw:ibkr:depth:venue:SPY"


def test_the_venue_hash_of_a_symbol_with_depth() -> None:
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


def test_the_venue_hash_of_a_refused_symbol_keeps_its_venue_and_the_reason() -> None:
    instrument = Instrument("SPY", 756733, "STK", "USD", "ARCA", "ARCA", ("SMART", "ARCA"))
    fields = venue_fields(instrument, 1000, "10092: not supported")
    assert (fields["depth_supported"], fields["reason"], fields["exchange"]) == (0, "10092: not supported", "ARCA")


@pytest.mark.parametrize("reason", ["no such contract (200)", ""])
def test_an_unresolved_symbol_never_counts_as_supported(reason: str) -> None:
    fields = venue_fields(Unresolved("NOSUCH", reason), 1000)
    assert fields["depth_supported"] == 0
    assert fields["reason"]
    assert all(isinstance(value, str | int) for value in fields.values())
