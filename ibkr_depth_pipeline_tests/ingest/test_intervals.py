"""Intervals as the recorder decides them: when a book is complete, what splits a subscription, what costs nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.ingest.hot_path import LiveBook, Numbering
from ibkr_depth_pipeline.ingest.intervals import LONGEST_CLOSING_MS, QUIET_MS, IntervalRecorder
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Side
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline.schema.size_units import SizeUnit
from ibkr_depth_pipeline_tests.ingest.wiring import instrument

INSERT, UPDATE, DELETE = DepthOperation
ROWS = 3


class Sink:
    """Keeps what it is given; `known` is the newest of each number."""

    def __init__(self) -> None:
        self.known: dict[int, SubscriptionInterval] = {}
        self.steps: list[tuple[str, int, int]] = []

    def begin(self, interval: SubscriptionInterval, after_seq: int) -> None:
        self.steps.append(("begin", interval.subscription, after_seq))
        self.known[interval.subscription] = interval

    def update(self, interval: SubscriptionInterval) -> None:
        self.known[interval.subscription] = interval

    def end(self, interval: SubscriptionInterval, last_seq: int) -> None:
        self.steps.append(("end", interval.subscription, last_seq))
        self.known[interval.subscription] = interval


class Line:
    """One subscription and its recorder; rows come at `now`."""

    def __init__(self) -> None:
        self.sink = Sink()
        self.recorder = IntervalRecorder(lambda symbol: self.sink, rows_requested=ROWS, rows_stored=ROWS)
        self.recorder.number_from({"SPY": 6})
        self.book = LiveBook(1, "SPY", "ARCA", Numbering(900, 40), lambda *snapshot: None, ROWS, ROWS)
        self.recorder.requested(self.book, instrument("SPY"), SizeUnit(), 1000)

    def row(self, position: int, side: Side = Side.BID, operation: DepthOperation = INSERT, at: int = 2000) -> None:
        assert self.book.apply(DepthRow(operation, side, position, 10.0, 100.0, ""), at) is None
        self.recorder.row_came(1)

    def fill(self, rows: int = ROWS, at: int = 2000) -> None:
        for position in range(rows):
            self.row(position, at=at)
            self.row(position, Side.ASK, at=at)

    def ended(self, reason: EndReason = EndReason.TURN_OVER) -> SubscriptionInterval:
        self.recorder.ended(1, reason)
        self.recorder.close()
        return self.sink.known[max(self.sink.known)]


def test_book_is_complete_once_both_sides_are_full() -> None:
    line = Line()
    line.fill(ROWS - 1, at=2000)
    line.row(ROWS - 1, at=2010)
    assert line.book.is_filling
    line.row(ROWS - 1, Side.ASK, at=2020)
    assert not line.book.is_filling
    assert line.ended().complete == 2020


@pytest.mark.parametrize(
    ("position", "operation"), [(0, UPDATE), (1, UPDATE), (0, DELETE), (1, DELETE), (0, INSERT), (1, INSERT)]
)
def test_book_is_complete_at_the_first_row_that_is_no_append(position: int, operation: DepthOperation) -> None:
    line = Line()
    line.fill(2)
    line.row(position, operation=operation, at=2500)
    assert line.ended().complete == 2500


def test_update_of_the_first_empty_row_appends() -> None:
    line = Line()
    line.row(0)
    line.row(1, operation=UPDATE)
    assert line.book.is_filling


def test_shallow_book_is_complete_since_its_last_row_once_it_was_quiet() -> None:
    line = Line()
    line.fill(2, at=2000)
    line.recorder.refresh({"SPY"}, 2000 + QUIET_MS - 1)
    assert line.sink.known[7].complete is None
    line.recorder.refresh({"SPY"}, 2000 + QUIET_MS)
    assert line.sink.known[7].complete == 2000


def test_line_without_a_row_is_never_complete() -> None:
    line = Line()
    line.recorder.refresh({"SPY"}, 1_000_000)
    ended = line.ended()
    assert (ended.complete, ended.first_row, ended.until, ended.rows) == (None, None, None, 0)


@given(
    st.lists(st.tuples(st.sampled_from(DepthOperation), st.sampled_from(Side), st.integers(0, ROWS - 1)), max_size=40)
)
def test_book_that_is_complete_stays_so_and_rows_are_counted(rows: list[tuple[DepthOperation, Side, int]]) -> None:
    line = Line()
    applied, complete = 0, 0
    for number, (operation, side, position) in enumerate(rows):
        if line.book.apply(DepthRow(operation, side, position, 10.0, 1.0, ""), 2000 + number) is None:
            line.recorder.row_came(1)
            applied += 1
        assert complete in (0, line.book.complete_ms)
        complete = line.book.complete_ms
    ended = line.ended()
    assert ended.rows == applied
    assert ended.complete == (complete or None)
    if applied:
        assert (ended.first_seq, ended.last_seq) == (41, 40 + applied)


def test_end_is_stored_behind_its_last_snapshot_and_the_next_begins_behind_it() -> None:
    line = Line()
    line.fill()
    line.ended()
    assert line.sink.steps == [("begin", 7, 40), ("end", 7, 46)]


def test_quiet_line_is_live_while_the_gateway_answers_and_not_while_it_is_in_doubt() -> None:
    line = Line()
    line.fill(at=2000)
    line.recorder.heard({"SPY"}, 7000)
    assert line.sink.known[7].until is not None
    line.recorder.refresh({"SPY"}, 7100)
    assert line.sink.known[7].until == 7000
    line.recorder.doubted({1})
    line.recorder.heard({"SPY"}, 12_000)
    ended = line.ended()
    assert (ended.until, ended.end) == (2000, EndReason.IN_DOUBT)


def test_quiet_line_was_live_until_its_cancel_if_the_gateway_is_heard_after_it() -> None:
    line = Line()
    line.fill(at=2000)
    line.recorder.ended(1, EndReason.TURN_OVER)
    line.recorder.cancelled(1, 9000)
    line.recorder.spoke(8999)
    assert line.sink.known[7].open
    line.recorder.spoke(9001)
    assert (line.sink.known[7].until, line.sink.known[7].end) == (9000, EndReason.TURN_OVER)


def test_line_whose_gateway_is_heard_no_more_was_live_until_it_was_last_heard() -> None:
    line = Line()
    line.fill(at=2000)
    line.recorder.heard({"SPY"}, 4000)
    line.recorder.ended(1, EndReason.TURN_OVER)
    line.recorder.cancelled(1, 9000)
    line.recorder.refresh(set(), 9000 + LONGEST_CLOSING_MS)
    assert line.sink.known[7].open
    line.recorder.refresh(set(), 9001 + LONGEST_CLOSING_MS)
    assert (line.sink.known[7].until, line.sink.known[7].end) == (4000, EndReason.TURN_OVER)


def test_turn_that_is_over_is_stored_before_the_next_one_of_its_symbol_begins() -> None:
    line = Line()
    line.fill(at=2000)
    line.recorder.ended(1, EndReason.TURN_OVER)
    line.recorder.cancelled(1, 9000)
    line.recorder.requested(line.book, instrument("SPY"), SizeUnit(), 9001)
    assert line.sink.steps == [("begin", 7, 40), ("end", 7, 46), ("begin", 8, 46)]


def test_clock_that_is_set_back_makes_no_interval_end_before_it_began() -> None:
    line = Line()
    line.fill(at=5000)
    line.recorder.heard({"SPY"}, 3000)
    ended = line.ended()
    assert (ended.first_row, ended.complete, ended.until) == (5000, 5000, 5000)


def test_pause_after_a_report_of_trouble_splits_at_its_two_rows() -> None:
    line = Line()
    line.fill(at=2000)
    line.recorder.doubted({1})
    line.row(0, operation=UPDATE, at=2100)  # was on its way
    line.row(0, operation=UPDATE, at=9000)
    line.row(0, operation=UPDATE, at=9010)
    line.recorder.proven(1, went_on=False)
    first, second = line.sink.known[7], line.sink.known[8]
    assert (first.end, first.until, first.last_seq, first.rows) == (EndReason.IN_DOUBT, 2100, 47, 7)
    assert (second.first_row, second.complete, second.first_seq, second.rows) == (9000, 9000, 48, 2)


def test_report_of_trouble_without_a_pause_splits_nothing() -> None:
    line = Line()
    line.fill(at=2000)
    line.recorder.doubted({1})
    line.row(0, operation=UPDATE, at=2100)
    line.recorder.proven(1, went_on=True)
    line.row(0, operation=UPDATE, at=2200)
    assert line.ended().until == 2200
    assert list(line.sink.known) == [7]


def test_rows_of_a_book_out_of_step_are_not_observed_and_it_comes_right_again() -> None:
    line = Line()
    line.fill(at=2000)
    line.row(0, operation=UPDATE, at=5000)
    line.recorder.out_of_step(1, secs=2.0)
    line.row(0, operation=UPDATE, at=6000)
    line.row(0, operation=UPDATE, at=7000)
    line.recorder.in_step(1)
    line.row(0, operation=UPDATE, at=8000)
    line.ended()
    wrong, right = line.sink.known[7], line.sink.known[8]
    assert (wrong.end, wrong.until, wrong.last_seq) == (EndReason.OUT_OF_STEP, 3000, 47)
    assert (right.first_row, right.complete, right.until, right.first_seq, right.rows) == (7000, 7000, 8000, 49, 2)


def test_book_that_was_never_right_again_leaves_no_second_interval() -> None:
    line = Line()
    line.fill(at=2000)
    line.recorder.out_of_step(1, secs=9.0)
    line.recorder.ended(1, EndReason.OUT_OF_STEP)
    assert line.sink.known[7].until == 2000
    assert line.sink.known[7].end is EndReason.OUT_OF_STEP
    assert list(line.sink.known) == [7]
