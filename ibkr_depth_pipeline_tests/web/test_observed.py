"""Observed time: no book is carried on past the stretch in which it was observed."""

from __future__ import annotations

from ibkr_depth_pipeline.reader import DepthSnapshot, NewTurns
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline.tui.observed import (
    JOIN_MS,
    UNCHANGED,
    UNOBSERVED,
    Stretch,
    TileSpan,
    observed_now,
    stretches_between,
    tile_columns,
)
from ibkr_depth_pipeline.tui.turn_record import KEPT_MS, SILENT_MS, TurnRecord

SIDE = b'[[100.0,5.0,"ARCA"]' + b',[0.0,0.0,""]' * 9 + b"]"
SPAN = TileSpan(step=100, number=10, count=6)  # 6000 to 6600
LATER = 10_000


def at(ts: int) -> DepthSnapshot:
    return DepthSnapshot("SPY", ts, ts, "ARCA", SIDE, SIDE)


def shown(columns: list[object]) -> list[object]:
    """Each column as the ts of its book, or as it is."""
    return [column[0] if isinstance(column, list) else column for column in columns]


def test_book_is_carried_on_within_its_stretch_alone() -> None:
    newest = [None, at(6150), None, None, at(6450), None]
    columns = tile_columns(SPAN, None, newest, [Stretch(6150, 6260), Stretch(6450, 9000)], LATER)
    assert shown(columns) == [UNOBSERVED, 6150, UNCHANGED, UNOBSERVED, 6450, UNCHANGED]


def test_book_of_before_the_tile_is_shown_while_its_stretch_lasts() -> None:
    nothing = [None] * 6
    assert shown(tile_columns(SPAN, at(100), nothing, [Stretch(50, 6250)], LATER)) == [100, 0, 0, None, None, None]
    # the stretch that goes on is another one: its first book is still to come
    assert shown(tile_columns(SPAN, at(100), nothing, [Stretch(5000, 6250)], LATER)) == [None] * 6


def test_tile_ends_where_nothing_is_known_yet() -> None:
    assert len(tile_columns(SPAN, at(100), [None] * 6, [Stretch(50, 9000)], 6250)) == 3
    assert tile_columns(SPAN, at(100), [None] * 6, [Stretch(50, 9000)], 5999) == []


def test_long_pause_without_a_record_is_not_observed() -> None:
    assert stretches_between([0, 9_000, 30_000, 30_001]) == [Stretch(0, 9_000), Stretch(30_000, 30_001)]


def test_rows_extend_the_stretch_that_goes_on() -> None:
    assert observed_now(None, Stretch(1000, 4000), True, [4100, 4900]) == Stretch(1000, 4900)
    assert observed_now(Stretch(1000, 4900), Stretch(1000, 4000), True, []) == Stretch(1000, 4900)


def test_quiet_book_is_observed_as_long_as_the_recorder_says() -> None:
    assert observed_now(Stretch(1000, 4000), Stretch(1000, 9000), True, []) == Stretch(1000, 9000)


def test_row_after_an_ended_stretch_begins_another() -> None:
    ended = Stretch(1000, 4000)
    assert observed_now(Stretch(1000, 4000), ended, False, [4010]) == Stretch(4010, 4010)
    assert observed_now(Stretch(4010, 4010), ended, False, [4100]) == Stretch(4010, 4100)
    assert observed_now(Stretch(4010, 4100), Stretch(4005, 4005), True, []) == Stretch(4005, 4100)


def test_end_on_record_counts_more_than_what_was_believed() -> None:
    assert observed_now(Stretch(1000, 4000), Stretch(1000, 3500), False, []) == Stretch(1000, 3500)


def test_row_long_after_the_last_of_an_open_stretch_begins_another() -> None:
    late = 4000 + JOIN_MS + 1
    assert observed_now(Stretch(1000, 4000), Stretch(1000, 4000), True, [late]) == Stretch(late, late)


# ---- what is on record


def turn(number: int, requested: int, until: int | None, *, ended: bool = True) -> SubscriptionInterval:
    return SubscriptionInterval(
        *("SPY", number, "ARCA"),
        requested=requested,
        first_row=None if until is None else requested + 100,
        until=until,
        end=EndReason.TURN_OVER if ended else None,
    )


def record_of(*turns: SubscriptionInterval, now: int) -> TurnRecord:
    record = TurnRecord()
    assert record.cursors(["SPY"], now) == {"SPY": str(max(0, now - KEPT_MS))}
    goes_on = next((each for each in turns if each.open), None)
    record.take({"SPY": NewTurns([each for each in turns if not each.open], goes_on, "77-1")}, now)
    return record


def test_lanes_show_the_wait_for_the_first_row_and_what_goes_on() -> None:
    record = record_of(turn(1, 1000, 3000), turn(2, 4000, None), turn(3, 5000, 5500, ended=False), now=6000)
    assert record.lanes(6000, {"SPY"}) == {
        "SPY": [[1000, 1100, 3000, "turn_over"], [4000, None, 4000, "turn_over"], [5000, 5100, None, ""]]
    }
    assert record.newest("SPY") == Stretch(5100, 5500)
    assert record.cursors(["SPY"], 6000) == {"SPY": "77-1"}


def test_subscription_of_a_recorder_that_died_does_not_go_on() -> None:
    record = record_of(turn(1, 1000, 3000, ended=False), now=3000)
    assert record.goes_on("SPY", 3000 + SILENT_MS - 1)
    assert not record.goes_on("SPY", 3000 + SILENT_MS)
    assert record.lanes(3000 + SILENT_MS, {"SPY"}) == {"SPY": [[1000, 1100, 3000, ""]]}


def test_subscription_that_is_over_but_for_its_record_does_not_go_on() -> None:
    record = record_of(turn(1, 1000, 3000, ended=False), now=3000)
    assert record.lanes(3100, {"SPY"}) == {"SPY": [[1000, 1100, None, ""]]}
    assert record.lanes(3100, {"QQQ"}) == {"SPY": [[1000, 1100, 3000, ""]]}


def test_old_subscriptions_are_dropped() -> None:
    now = KEPT_MS + 5000
    assert record_of(turn(1, 1000, 3000), turn(2, 4000, 6000), now=now).lanes(now, ()) == {
        "SPY": [[4000, 4100, 6000, "turn_over"]]
    }
