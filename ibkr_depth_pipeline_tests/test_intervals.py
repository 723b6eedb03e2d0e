"""The records of subscriptions as Redis stores them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.errors import SchemaMismatch
from ibkr_depth_pipeline.schema.intervals import (
    EndReason,
    SubscriptionInterval,
    decode_interval,
    encode_interval,
    interval_of_entry,
)
from ibkr_depth_pipeline.schema.keys import open_turn_hash, rows_stream, turns_stream

_SPY = SubscriptionInterval(
    *("SPY", 7, "ARCA", 756733, "SPY", 1000, 1200, 1350, 9000, 41, 99, 59),
    end=EndReason.TURN_OVER,
)

moments = st.none() | st.integers(0, 2**53)
intervals = st.builds(
    SubscriptionInterval,
    symbol=st.just("BRK B"),
    subscription=st.integers(1, 2**53),
    venue=st.text(max_size=12),
    con_id=st.integers(0, 2**31),
    local_symbol=st.text(max_size=12),
    requested=st.integers(0, 2**53),
    first_row=moments,
    complete=moments,
    until=moments,
    first_seq=moments,
    last_seq=moments,
    rows=st.integers(0, 2**53),
    end=st.none() | st.sampled_from(EndReason),
    size_unit=st.sampled_from(("", "lots", "shares")),
    min_size=st.none() | st.floats(0, 1e9),
    size_increment=st.none() | st.floats(0, 1e9),
    server_version=st.integers(0, 300),
    rows_requested=st.integers(0, 100),
    rows_stored=st.integers(0, 50),
)


def _as_redis_sends(fields: dict[str, str]) -> list[bytes]:
    return [word.encode() for pair in fields.items() for word in pair]


@given(intervals)
def test_stored_interval_is_read_back_as_it_was(interval: SubscriptionInterval) -> None:
    words = _as_redis_sends(encode_interval(interval))
    assert decode_interval("BRK B", words) == interval
    assert decode_interval("BRK B", dict(zip(words[::2], words[1::2], strict=True))) == interval
    assert interval_of_entry("BRK B", [b"5-1", words]) == interval


def test_interval_without_rows_has_no_moments_of_rows() -> None:
    refused = SubscriptionInterval("SPY", 1, "ARCA", requested=5, end=EndReason.SLOT_REFUSED)
    assert not {"first_row", "complete", "until", "first_seq", "last_seq"} & encode_interval(refused).keys()
    assert not refused.observes(5)


def test_open_interval_has_no_end() -> None:
    fields = encode_interval(SubscriptionInterval("SPY", 1, "ARCA", requested=5))
    assert "end" not in fields
    assert decode_interval("SPY", _as_redis_sends(fields)).open


def test_interval_observes_from_its_first_row_to_its_last_live_moment() -> None:
    assert [_SPY.observes(ts) for ts in (1199, 1200, 9000, 9001)] == [False, True, True, False]
    assert [_SPY.is_complete_at(ts) for ts in (1349, 1350, 9000, 9001)] == [False, True, True, False]


def test_fields_of_a_later_version_are_passed_over() -> None:
    words = [*_as_redis_sends(encode_interval(_SPY)), b"colour", b"blue"]
    assert decode_interval("SPY", words) == _SPY


def test_end_of_a_later_version_is_unknown() -> None:
    fields = encode_interval(_SPY) | {"end": "eclipse"}
    assert decode_interval("SPY", _as_redis_sends(fields)).end is EndReason.UNKNOWN


@pytest.mark.parametrize("words", [[b"ts", b"5"], [b"subscription", b"one", b"venue", b"ARCA"], [b"odd"], []])
def test_other_fields_are_refused(words: list[bytes]) -> None:
    with pytest.raises(SchemaMismatch, match="a turn of SPY is not"):
        decode_interval("SPY", words)


def test_keys_of_intervals_and_rows_stand_beside_the_snapshots() -> None:
    assert turns_stream("BRK B") == "raw:ibkr:depth:turns:BRK B"
    assert open_turn_hash("SPY") == "raw:ibkr:depth:turn:SPY"
    assert rows_stream("SPY") == "raw:ibkr:depth:rows:SPY"
