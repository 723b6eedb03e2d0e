"""A day is read with its intervals: which subscription a snapshot belongs to, and whether its book is settled."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from ibkr_depth_pipeline.archive.archived_day import DAY_COLUMNS, ArchivedDay, open_day
from ibkr_depth_pipeline.archive.intervals import SCHEMA, IntervalIndex, intervals_in, table_of
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.reading import read_day
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON, Desk, Mirror
from ibkr_depth_pipeline_tests.archive.midway import MeanwhileAt


def interval(number: int, first: int, last: int, *, at: int, complete: int | None, until: int) -> SubscriptionInterval:
    """Moments are ms after NOON."""
    return SubscriptionInterval(
        "SPY",
        number,
        "ISLAND",
        requested=NOON + at,
        first_row=NOON + at,
        complete=None if complete is None else NOON + complete,
        until=NOON + until,
        first_seq=first,
        last_seq=last,
        rows=last - first + 1,
        end=EndReason.TURN_OVER,
    )


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
            interval(7, 1, 3, at=0, complete=1, until=5),
            interval(8, 4, 5, at=5, complete=5, until=5),
            interval(9, 6, 8, at=5, complete=None, until=9),
        ]
    )
    ts = pa.array([0, 1, 5, 5, 5, 5, 9, 9]).to_numpy() + NOON
    number = index.of(ts, pa.array([1, 2, 3, 4, 5, 6, 8, 9]).to_numpy())
    assert index.subscriptions(number).tolist() == [7, 7, 7, 8, 8, 9, 9, 0]
    assert index.complete(number, ts).tolist() == [False, True, True, True, True, False, False, False]


def test_intervals_are_the_same_after_their_table() -> None:
    refused = SubscriptionInterval("SPY", 2, "ISLAND", requested=NOON, end=EndReason.SLOT_REFUSED)
    whole = interval(1, 5, 9, at=3, complete=4, until=70)
    table = table_of([whole, refused])
    assert table.schema.equals(SCHEMA)
    assert intervals_in("SPY", table) == [whole, refused]
