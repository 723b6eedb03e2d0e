"""Entries become columns that hold exactly what they held, and every missing seq is a hole."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.archive.decoding import SymbolBuffer
from ibkr_depth_pipeline.archive.layout import NOTHING
from ibkr_depth_pipeline.archive.parquet_schema import SNAPSHOTS
from ibkr_depth_pipeline.schema.gaps import GapCause
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline_tests.archive.conftest import DAY, MS_PER_DAY, NOON, ids_of

Rows = list[list[Any]]
levels = st.tuples(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 1e9, allow_nan=False) | st.integers(0, 10**6),
    st.sampled_from(["", "ISLAND", "ARCA", "NSDQ", "Ünïcode"]),
).map(list)
sides = st.lists(levels, min_size=10, max_size=10)
EMPTY: Rows = [[0.0, 0.0, ""]] * 10


def entry(seq: int, bids: Rows = EMPTY, asks: Rows = EMPTY, ts: int = NOON) -> tuple[bytes, dict[bytes, bytes]]:
    fields = {"ts": ts, "seq": seq, "venue": "ARCA", "bids": orjson.dumps(bids), "asks": orjson.dumps(asks)}
    return f"{ts}-{seq}".encode(), {
        name.encode(): value if isinstance(value, bytes) else str(value).encode() for name, value in fields.items()
    }


def side(row: dict[str, Any], name: str) -> Rows:
    columns = (row[f"{name}_{what}"] for what in ("price", "size", "venue"))
    return [list(level) for level in zip(*columns, strict=True)]


@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=6))
def test_columns_hold_what_the_json_held(books: list[tuple[Rows, Rows]]) -> None:
    buffer = SymbolBuffer("SPY", StreamId(NOON - 1, 4))
    assert buffer.add([entry(5 + index, bids, asks) for index, (bids, asks) in enumerate(books)]) == []
    (batch,) = buffer.take_all()
    assert batch.day == DAY
    assert batch.table.schema.equals(SNAPSHOTS)
    rows = batch.table.to_pylist()
    assert [(side(row, "bid"), side(row, "ask")) for row in rows] == books
    assert {row["venue"] for row in rows} == {"ARCA"}
    assert (batch.span.first, batch.span.last) == (StreamId(NOON, 5), StreamId(NOON, 4 + len(books)))


@given(st.sets(st.integers(1, 60), min_size=1), st.integers(1, 10))
def test_missing_and_present_seqs_make_up_the_numbering(present: set[int], at_once: int) -> None:
    buffer = SymbolBuffer("SPY", NOTHING)
    entries = [entry(seq, ts=NOON + seq) for seq in sorted(present)]
    gaps = [gap for at in range(0, len(entries), at_once) for gap in buffer.add(entries[at : at + at_once])]
    missing = [seq for gap in gaps for seq in range(gap.first_seq, gap.last_seq + 1)]
    kept = [found.seq for batch in buffer.take_all() for found in ids_of(batch.table)]
    assert kept == sorted(present)
    assert sorted(missing + kept) == list(range(1, max(present) + 1))


def test_batch_is_split_in_two_at_midnight() -> None:
    midnight = NOON + MS_PER_DAY // 2
    buffer = SymbolBuffer("SPY", NOTHING)
    buffer.add([entry(seq, ts=midnight - 2 + seq) for seq in range(1, 5)])
    first, second = buffer.take_all()
    assert [found.seq for found in ids_of(first.table)] == [1]
    assert [found.seq for found in ids_of(second.table)] == [2, 3, 4]
    assert (second.day - first.day).days == 1


def test_numbering_that_starts_over_is_no_hole_but_seqs_missing_of_it_are() -> None:
    buffer = SymbolBuffer("SPY", StreamId(NOON, 900))
    assert buffer.add([entry(1, ts=NOON + 1)]) == []
    (gap,) = SymbolBuffer("SPY", StreamId(NOON, 900)).add([entry(4, ts=NOON + 1)])
    assert (gap.first_seq, gap.last_seq, gap.after) == (1, 3, StreamId(NOON, 900))


@pytest.mark.parametrize(
    "broken", [b"[]", b"not json", b"[[1,2]]", orjson.dumps(EMPTY[:9]), orjson.dumps([["x", 1, ""]] * 10)]
)
def test_entry_that_cannot_be_read_is_a_hole_and_holds_up_nothing(broken: bytes) -> None:
    buffer = SymbolBuffer("SPY", StreamId(NOON - 1, 1))
    bad = entry(3)
    bad[1][b"asks"] = broken
    (gap,) = buffer.add([entry(2), bad, entry(4)])
    assert (gap.first_seq, gap.last_seq, gap.cause) == (3, 3, GapCause.UNREADABLE)
    assert [found.seq for batch in buffer.take_all() for found in ids_of(batch.table)] == [2, 4]


def test_unreadable_entry_at_the_end_is_not_read_again_and_again() -> None:
    buffer = SymbolBuffer("SPY", StreamId(NOON - 1, 1))
    bad = entry(2)
    del bad[1][b"bids"]
    assert buffer.add([bad]) == []
    assert (buffer.cursor.seq, buffer.position.seq) == (2, 1)


def test_hole_behind_an_entry_that_still_stands_was_never_stored() -> None:
    at = StreamId(NOON, 4)
    for before, reason in ((at, GapCause.NEVER_STORED), (None, GapCause.TRIMMED)):
        (gap,) = SymbolBuffer("SPY", at).add([entry(7, ts=NOON + 9)], before)
        assert (gap.first_seq, gap.last_seq, gap.after, gap.cause) == (5, 6, at, reason)


@pytest.mark.parametrize("dropped", [0, 1, 30])
def test_numbering_goes_on_from_what_was_left_when_the_newest_entries_were_lost(dropped: int) -> None:
    """50 of 900 that are kept went; of what came then the first `dropped` never reached the stream."""
    buffer, left = SymbolBuffer("SPY", StreamId(NOON, 900)), StreamId(NOON - 50, 850)
    gaps = buffer.add([entry(851 + dropped, ts=NOON + 9), entry(852 + dropped, ts=NOON + 9)], before=left)
    found = [(gap.first_seq, gap.last_seq, gap.cause) for gap in gaps]
    assert found == [(851, 850 + dropped, GapCause.NEVER_STORED)] * bool(dropped)


def test_all_missing_seqs_of_a_new_numbering_are_a_hole_if_nothing_stands_before() -> None:
    (gap,) = SymbolBuffer("SPY", StreamId(NOON, 900)).add([entry(41, ts=NOON + 1)], before=None)
    assert (gap.first_seq, gap.last_seq, gap.cause) == (1, 40, GapCause.TRIMMED)


def test_unreadable_entry_before_a_hole_is_part_of_it() -> None:
    buffer = SymbolBuffer("SPY", StreamId(NOON, 4))
    bad = entry(5, ts=NOON + 1)
    del bad[1][b"bids"]
    assert buffer.add([bad]) == []
    (gap,) = buffer.add([entry(8, ts=NOON + 2)], before=StreamId(NOON + 1, 5))
    assert (gap.first_seq, gap.last_seq) == (5, 7)


def test_unreadable_entry_at_a_fall_of_the_numbering_is_all_that_is_missing() -> None:
    buffer = SymbolBuffer("SPY", StreamId(NOON, 900))
    bad = entry(851, ts=NOON + 1)
    del bad[1][b"bids"]
    (gap,) = buffer.add([bad, entry(852, ts=NOON + 2)], before=StreamId(NOON - 9, 850))
    assert (gap.first_seq, gap.last_seq, gap.cause) == (851, 851, GapCause.UNREADABLE)
