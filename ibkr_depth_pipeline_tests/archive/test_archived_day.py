"""A day is read with its intervals: which subscription a snapshot belongs to, and whether its book is settled."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from ibkr_depth_pipeline.archive.archived_day import DAY_COLUMNS, ArchivedDay, open_day
from ibkr_depth_pipeline.archive.intervals import IntervalIndex, intervals_in, intervals_of, table_of
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.parquet_schema import ENDED_INTERVALS
from ibkr_depth_pipeline.archive.reading import read_day
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON, Desk, Mirror, observed
from ibkr_depth_pipeline_tests.archive.midway import MeanwhileAt


def columns_of(archived: ArchivedDay, *names: str) -> list[tuple[Any, ...]]:
    table = pa.Table.from_batches(list(archived.batches(names)))
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def test_batches_have_every_snapshot_of_the_day_in_order_and_two_columns_more(mirror: Mirror, desk: Desk) -> None:
    for first in (1, 101, 301):
        mirror.write("SPY", range(first, first + 100), start=NOON + first)
        desk.keep()
    archived = open_day(desk.store, DAY, "SPY")
    table = pa.Table.from_batches(list(archived.batches()))
    assert table.schema.equals(DAY_COLUMNS)
    assert table.drop_columns(["subscription", "settled"]).to_pylist() == read_day(desk.store, DAY, "SPY").to_pylist()
    assert archived.snapshots == 300
    assert [(gap.first_seq, gap.last_seq) for gap in archived.gaps] == [(201, 300)]


def test_day_without_a_record_of_intervals_has_inferred_ones(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 11))
    mirror.write("SPY", range(11, 21), start=NOON + 20_000)
    desk.keep()
    archived = open_day(desk.store, DAY, "SPY")
    assert archived.inferred
    assert [(each.first_seq, each.last_seq, each.end) for each in archived.intervals] == [
        (1, 10, EndReason.UNKNOWN),
        (11, 20, None),
    ]
    assert [(each.first_row, each.until) for each in archived.intervals] == [
        (NOON, NOON + 9),
        (NOON + 20_000, NOON + 20_009),
    ]
    assert {subscription for (subscription,) in columns_of(archived, "subscription")} == {None}


def test_day_of_no_snapshot_is_empty(desk: Desk) -> None:
    archived = open_day(desk.store, DAY, "SPY")
    assert (list(archived.batches()), archived.intervals, archived.gaps, archived.snapshots) == ([], (), (), 0)


@pytest.mark.parametrize("at", range(8))
def test_day_that_is_compacted_while_its_batches_are_read_has_each_snapshot_once(
    mirror: Mirror, desk: Desk, at: int
) -> None:
    for first in (1, 101, 201):
        mirror.write("SPY", range(first, first + 100), start=NOON + first)
        desk.keep()
    store = MeanwhileAt(desk.settings.archive_url, at, lambda: compact_day(desk.store, DAY))
    assert [seq for (seq,) in columns_of(open_day(store, DAY, "SPY"), "seq")] == list(range(1, 301))


def test_snapshots_of_one_ms_belong_to_the_interval_that_holds_their_seq() -> None:
    index = IntervalIndex(
        [
            observed(7, 1, 3, at=0, complete=1, until=5),
            observed(8, 4, 5, at=5, complete=5, until=5),
            observed(9, 6, 8, at=5, complete=None, until=9),
        ]
    )
    ts = pa.array([0, 1, 5, 5, 5, 5, 9, 9]).to_numpy() + NOON
    number = index.of(ts, pa.array([1, 2, 3, 4, 5, 6, 8, 9]).to_numpy())
    assert index.subscriptions(number).tolist() == [7, 7, 7, 8, 8, 9, 9, 0]
    assert index.complete(number, ts).tolist() == [False, True, True, True, True, False, False, False]


def test_intervals_are_the_same_after_their_table() -> None:
    refused = SubscriptionInterval("SPY", 2, "ISLAND", requested=NOON, end=EndReason.SLOT_REFUSED)
    whole = observed(1, 5, 9, at=3, complete=4, until=70)
    table = table_of([(NOON + 71, whole), (NOON + 80, refused)])
    assert table.schema.equals(ENDED_INTERVALS)
    assert table["ended"].cast(pa.int64()).to_pylist() == [NOON + 71, NOON + 80]
    assert intervals_in("SPY", table) == [whole, refused]


@pytest.fixture
def two_turns(mirror: Mirror, desk: Desk) -> Desk:
    """Two intervals of four snapshots, of which two came in one read each, then two that belong to none as yet."""
    for seq, at in enumerate((0, 1, 5, 5, 20_000, 20_001, 20_003, 20_003, 20_050, 20_051), 1):
        mirror.write("SPY", [seq], start=NOON + at)
    mirror.write_interval(observed(7, 1, 4, at=0, complete=1, until=2000), ended=NOON + 2005)
    mirror.write_interval(
        SubscriptionInterval("SPY", 8, "ISLAND", requested=NOON + 9000, end=EndReason.REFUSED), NOON + 9001
    )
    mirror.write_interval(observed(9, 5, 8, at=20_000, complete=20_003, until=20_040), ended=NOON + 20_049)
    desk.keep()
    return desk


def test_snapshots_have_the_subscription_and_settled_books_are_marked(two_turns: Desk) -> None:
    archived = open_day(two_turns.store, DAY, "SPY")
    assert columns_of(archived, "subscription", "settled") == [
        (7, False),  # not complete yet
        (7, True),
        (7, False),  # the same read changed it again
        (7, True),
        (9, False),
        (9, False),
        (9, False),
        (9, True),
        (None, True),
        (None, True),
    ]
    assert [(each.subscription, each.end) for each in archived.intervals] == [
        (7, EndReason.TURN_OVER),
        (8, EndReason.REFUSED),
        (9, EndReason.TURN_OVER),
        (0, None),
    ]
    assert archived.inferred


def test_interval_over_midnight_is_of_both_dates(mirror: Mirror, desk: Desk) -> None:
    midnight = 12 * 3_600_000
    for seq, at in enumerate((midnight - 5, midnight - 1, midnight, midnight + 3), 1):
        mirror.write("SPY", [seq], start=NOON + at)
    whole = observed(3, 1, 4, at=midnight - 5, complete=midnight - 5, until=midnight + 10)
    mirror.write_interval(whole, ended=NOON + midnight + 11)
    mirror.write_interval(observed(4, 5, 5, at=midnight + 50, until=midnight + 60), ended=NOON + midnight + 61)
    desk.keep()
    before, after = (open_day(desk.store, day, "SPY") for day in (DAY, DAY + timedelta(days=1)))
    assert [each.subscription for each in before.intervals] == [3]
    assert [each.subscription for each in after.intervals] == [3, 4]
    assert columns_of(before, "subscription") == columns_of(after, "subscription") == [(3,), (3,)]
    assert intervals_of(desk.store, DAY - timedelta(days=1), "SPY") == []


def test_two_reads_of_one_ms_are_told_apart_by_their_receive_time(mirror: Mirror, desk: Desk) -> None:
    for seq, recv_ns in enumerate((10, 10, 20), 1):
        mirror.write("SPY", [seq], start=NOON, recv_ns=NOON * 1_000_000 + recv_ns)
    mirror.write_interval(observed(1, 1, 3, at=0, complete=0, until=9), ended=NOON + 10)
    desk.keep()
    found = columns_of(open_day(desk.store, DAY, "SPY"), "settled", "recv_ns")
    assert found == [(False, NOON * 1_000_000 + 10), (True, NOON * 1_000_000 + 10), (True, NOON * 1_000_000 + 20)]
