"""Entries that no recorder wrote cost nothing but themselves, at the first reading and after a restart."""

from __future__ import annotations

import tracemalloc

import orjson
import pytest

from ibkr_depth_pipeline.archive.buffers import buffer_of
from ibkr_depth_pipeline.archive.decoding import SymbolBuffer
from ibkr_depth_pipeline.archive.streams import Source
from ibkr_depth_pipeline.schema.gaps import GapCause
from ibkr_depth_pipeline.schema.keys import StreamId, stream_key
from ibkr_depth_pipeline_tests.archive.conftest import NOON, Desk, Mirror
from ibkr_depth_pipeline_tests.archive.test_decoding import EMPTY, entry

MICROSECONDS = 1000 * NOON
FOREIGN_SIDES = {
    "a name that is a number": [[1.0, 1.0, 7]] * 10,
    "a name that is null": [[1.0, 1.0, None]] * 10,
    "a name that is a list": [[1.0, 1.0, []]] * 10,
    "a price that is text": [["1.0", 1.0, "A"]] * 10,
    "a price that is true": [[True, 1.0, "A"]] * 10,
    "a price that is null": [[None, 1.0, "A"]] * 10,
    "nine levels": [[1.0, 1.0, "A"]] * 9,
    "levels of two": [[1.0, 1.0]] * 10,
    "levels of four": [[1.0, 1.0, "A", 1]] * 10,
    "levels that are texts": ["12A"] * 10,
    "an object": {str(level): 1 for level in range(10)},
    "a number": 5,
    "nothing": None,
}


@pytest.mark.parametrize("side", FOREIGN_SIDES.values(), ids=FOREIGN_SIDES.keys())
@pytest.mark.parametrize("which", ["bids", "asks"])
def test_side_that_is_not_of_the_schema_is_passed_over_and_counted(side: object, which: str) -> None:
    buffer = SymbolBuffer("SPY", StreamId(NOON, 1))
    foreign = entry(2)
    foreign[1][which.encode()] = orjson.dumps(side)
    (gap,) = buffer.add([foreign, entry(3)])
    assert (gap.first_seq, gap.last_seq, gap.cause) == (2, 2, GapCause.UNREADABLE)
    assert buffer.unreadable == 1
    (batch,) = buffer.take_all()
    assert batch.table["seq"].to_pylist() == [3]


@pytest.mark.parametrize("foreign_id", [f"{MICROSECONDS}-2", f"{2**64 - 1}-2", f"{NOON}-{2**64 - 1}"])
def test_id_that_is_no_time_in_ms_and_number_is_passed_over(foreign_id: str) -> None:
    buffer = SymbolBuffer("SPY", StreamId(NOON, 1))
    assert buffer.add([(foreign_id.encode(), entry(2)[1])]) == []
    assert (len(buffer), buffer.unreadable) == (0, 1)
    assert buffer.take_all() == []


ENTRIES = {
    "rows": {
        "recv_ns": "1",
        "subscription": "1",
        "operation": "insert",
        "side": "bid",
        "position": "0",
        "price": "1",
        "size": "1",
        "mm": "",
    },
    "intervals": {"subscription": "1", "venue": "ARCA", "requested": str(NOON), "end": "cancelled"},
    "alerts": {"ts": str(NOON), "kind": "trouble", "cause": "x", "title": "", "text": ""},
}


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        *(("rows", name) for name in ("recv_ns", "subscription", "position")),
        *(("intervals", name) for name in ("subscription", "con_id", "first_row", "rows", "rows_stored")),
        ("alerts", "ts"),
    ],
)
def test_number_without_room_in_its_column_is_passed_over_and_counted(tree: str, field: str) -> None:
    buffer = buffer_of(Source(tree, "SPY"), StreamId(NOON, 0))
    sound = {name.encode(): value.encode() for name, value in ENTRIES[tree].items()}
    buffer.add([(b"%d-1" % NOON, sound | {field.encode(): str(2**63).encode()}), (b"%d-2" % NOON, sound)])
    assert buffer.unreadable == 1
    (batch,) = buffer.take_all()
    assert batch.table.num_rows == 1


def test_more_names_and_venues_than_codes_of_two_bytes_are_kept_or_counted() -> None:
    buffer = SymbolBuffer("SPY", StreamId(NOON, 0))
    rows = [[[1.0, 1.0, f"N{20 * seq + level}"] for level in range(10)] for seq in range(4000)]
    buffer.add([entry(seq + 1, bids, EMPTY) for seq, bids in enumerate(rows)])
    venues = []
    for seq in range(4001, 4001 + 2**15 + 5):
        each = entry(seq)
        each[1][b"venue"] = b"V%d" % seq
        venues.append(each)
    buffer.add(venues)
    assert len(buffer) == 4000 + 2**15 - 1
    assert buffer.unreadable == 6
    (batch,) = buffer.take_all()
    assert batch.table["bid_venue"][3999].as_py() == [f"N{20 * 3999 + level}" for level in range(10)]


def test_hole_of_millions_takes_the_room_of_one() -> None:
    buffer = SymbolBuffer("SPY", StreamId(NOON, 1))
    tracemalloc.start()
    foreign = (b"%d-2" % NOON, {b"foo": b"bar"})
    (gap,) = buffer.add([foreign, entry(3_000_000)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (gap.size, gap.cause) == (2_999_998, GapCause.NEVER_STORED)
    assert peak < 1_000_000


def test_many_unreadable_entries_in_a_row_are_one_unreadable_hole() -> None:
    buffer = SymbolBuffer("SPY", StreamId(NOON, 1))
    buffer.add([(b"%d-%d" % (NOON, seq), {b"foo": b"bar"}) for seq in range(2, 50_002)])
    (gap,) = buffer.add([entry(50_002)])
    assert (gap.first_seq, gap.last_seq, gap.cause) == (2, 50_001, GapCause.UNREADABLE)


def test_foreign_entry_ends_no_run_and_costs_no_other_symbol_also_after_a_restart(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 4))
    mirror.redis.xadd(stream_key("SPY"), {"foo": "bar"}, id=f"{NOON + 10}-0")
    numbers = orjson.dumps([[1.0, 1.0, 7]] * 10)
    fields = {"ts": NOON, "seq": 4, "venue": "ARCA", "bids": numbers, "asks": numbers}
    mirror.redis.xadd(stream_key("SPY"), fields, id=f"{NOON + 11}-4")
    mirror.write("SPY", range(5, 8), start=NOON + 20)
    mirror.redis.xadd(stream_key("SPY"), {"foo": "bar"}, id=f"{MICROSECONDS}-8")
    mirror.write("QQQ", range(1, 6))
    first = desk.keep().summary
    assert first.snapshots == {"SPY": 6, "QQQ": 5}
    assert first.unreadable == {"SPY": 3}
    again = desk.keep().summary
    assert (again.snapshots, again.unreadable) == ({}, {"SPY": 1})
    assert [found.seq for found in desk.kept()["SPY"]] == [1, 2, 3, 5, 6, 7]
