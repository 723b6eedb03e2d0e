"""Which books are out of step: each kind of disorder, moments that are none, and no false alarm on real captures."""

from __future__ import annotations

import csv
import random
from itertools import pairwise
from pathlib import Path

import pytest

from ibkr_depth_pipeline.book.order_book import OrderBook
from ibkr_depth_pipeline.ingest.books import BookState
from ibkr_depth_pipeline.ingest.line_monitor import (
    CHECK_SECS,
    CROSSED,
    DELETE_LOST,
    FORGIVEN_SECS,
    INSERT_LOST,
    PERSISTENT_SECS,
    REPEATED,
    RESUBSCRIBE_PACE,
    ROW_LOST,
    ROWS_LOST,
    STANDING_SECS,
    UNSORTED,
    BookIntegrity,
    ResubscribeBackoff,
)
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Levels, RowFault, Side
from ibkr_depth_pipeline_tests.end_to_end.test_real_data import states_of_file

CROSSED_SECS = 3.0


def side(*prices: float, names: str = "NSDQ") -> Levels:
    return tuple((price, 100.0, names) for price in prices)


BIDS, ASKS = side(10.0, 9.9, 9.8), side(10.1, 10.2, 10.3)


class Looker:
    """Looks at one book as often as the recorder does, from a second after its first row on."""

    def __init__(self) -> None:
        self.integrity = BookIntegrity(CROSSED_SECS)
        self.now = 0.0
        self.rows = 0
        assert self.see(BIDS, ASKS, 2.0) == ""

    def see(self, bids: Levels, asks: Levels, secs: float, rows_flow: bool = True) -> str:
        """The first reason that is found while the book stands like this for so long."""
        end = self.now + secs
        while self.now < end:
            self.now += CHECK_SECS
            self.rows += rows_flow
            reason = self.integrity.check(BookState(1, self.rows, bids, asks), self.now)
            if reason:
                return reason
        return ""


@pytest.mark.parametrize(
    ("bids", "asks", "reason", "secs"),
    [
        (side(10.0, 9.8, 9.9), ASKS, UNSORTED, PERSISTENT_SECS),
        (BIDS, side(10.1, 10.2, 10.3, 10.1, 10.2), UNSORTED, PERSISTENT_SECS),
        (BIDS, side(10.1, 10.2, 10.2), REPEATED, PERSISTENT_SECS),
        (side(10.15), ASKS, CROSSED, CROSSED_SECS),
        (side(10.1), ASKS, CROSSED, CROSSED_SECS),
    ],
)
def test_disorder_that_lasts_is_found_and_not_before_it_has_lasted(
    bids: Levels, asks: Levels, reason: str, secs: float
) -> None:
    looker = Looker()
    assert looker.see(bids, asks, secs - CHECK_SECS) == ""
    assert looker.see(bids, asks, 3 * CHECK_SECS) == reason


def test_moments_of_disorder_with_order_between_them_are_a_price_move() -> None:
    looker = Looker()
    for _ in range(1000):
        assert looker.see(side(10.0, 10.0, 9.8), ASKS, PERSISTENT_SECS - CHECK_SECS) == ""
        assert looker.see(side(10.2), ASKS, CROSSED_SECS - CHECK_SECS) == ""
        assert looker.see(BIDS, ASKS, CHECK_SECS) == ""


def test_disorder_may_last_longer_without_rows_as_the_rest_may_be_in_flight() -> None:
    looker = Looker()
    bad = side(10.0, 9.8, 9.9)
    assert looker.see(bad, ASKS, STANDING_SECS - CHECK_SECS, rows_flow=False) == ""
    assert looker.see(bad, ASKS, 3 * CHECK_SECS, rows_flow=False) == UNSORTED


def test_several_names_at_one_price_are_in_order() -> None:
    bids = (*side(10.0, names="ARCA"), *side(10.0, 9.9, names="NSDQ"))
    assert Looker().see(bids, ASKS, 60) == ""


def test_venue_whose_opening_image_repeats_levels_may_do_so() -> None:
    repeated, integrity = side(10.0, 10.0, 9.9), BookIntegrity(CROSSED_SECS)
    for look in range(400):
        assert integrity.check(BookState(1, look, repeated, ASKS), look * CHECK_SECS) == ""


def test_lost_insert_or_delete_counts_at_once_and_one_past_the_end_does_not() -> None:
    integrity = BookIntegrity(CROSSED_SECS)
    assert integrity.row_dropped(1, DepthOperation.INSERT, RowFault.UNREADABLE, 0.0) == INSERT_LOST
    assert integrity.row_dropped(1, DepthOperation.INSERT, RowFault.NOT_FINITE, 0.0) == INSERT_LOST
    assert integrity.row_dropped(1, DepthOperation.INSERT, RowFault.PAST_END, 0.0) == INSERT_LOST
    assert integrity.row_dropped(1, DepthOperation.DELETE, RowFault.UNKNOWN_SIDE, 0.0) == DELETE_LOST
    assert integrity.row_dropped(1, DepthOperation.DELETE, RowFault.PAST_END, 0.0) == ""
    assert integrity.row_dropped(1, DepthOperation.INSERT, RowFault.PAST_REQUESTED, 0.0) == ""


def test_lost_row_that_may_have_been_an_insert_counts_at_once() -> None:
    integrity = BookIntegrity(CROSSED_SECS)
    assert integrity.row_dropped(1, None, RowFault.UNKNOWN_OPERATION, 0.0) == ROW_LOST


def test_updates_that_are_lost_count_when_that_happens_again_and_again() -> None:
    integrity, operation = BookIntegrity(CROSSED_SECS), DepthOperation.UPDATE
    for number in range(100):
        assert integrity.row_dropped(1, operation, RowFault.PAST_END, number * FORGIVEN_SECS) == ""
    found = [integrity.row_dropped(2, operation, RowFault.PAST_END, 0.0) for _ in range(3)]
    assert found == ["", "", ROWS_LOST]


def test_symbol_is_asked_for_at_once_then_ever_more_rarely_and_at_once_again_after_a_long_calm() -> None:
    pace = ResubscribeBackoff()
    times = [now for now in range(20_000) if pace.allows("SPY", float(now))]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 0
    assert pauses[:5] == [5, 20, 80, 320, 1280]
    assert set(pauses[5:]) == {3600}
    assert pace.allows("QQQ", 0.0)
    assert pace.allows("SPY", times[-1] + 20 * RESUBSCRIBE_PACE.longest + 1)


# ---- no false alarm


def test_real_book_of_aapl_is_in_step_however_often_it_is_looked_at(shared_data: Path) -> None:
    integrity = BookIntegrity(CROSSED_SECS)
    states = states_of_file(shared_data / "aapl_2012-06-21_l10.csv.gz", 25_000)
    for number, (bids, asks) in enumerate(states):
        sides = [tuple((price, size, "NSDQ") for price, size in each) for each in (bids, asks)]
        assert integrity.check(BookState(1, number, *sides), number * 0.05) == "", number


def test_rows_of_a_real_gateway_are_in_step_after_each_row_and_each_read(shared_data: Path) -> None:
    book, integrity = OrderBook(5, "IDEALPRO"), BookIntegrity(CROSSED_SECS)
    text = (shared_data / "eurusd_idealpro_2022-02-21_rows.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    operations = list(DepthOperation)
    for number, row in enumerate(rows * 40):
        of = Side.BID if row["side"] == "1" else Side.ASK
        change = DepthRow(
            operations[int(row["operation"])], of, int(row["position"]), float(row["price"]), float(row["size"]), ""
        )
        if book.apply(change) is None:
            assert integrity.check(BookState(1, number, book.bids, book.asks), number * 24 / len(rows)) == "", number


@pytest.mark.parametrize("share_of_moves", [0.02, 0.2])
def test_day_of_looks_in_the_middle_of_price_moves_is_without_a_false_alarm(share_of_moves: float) -> None:
    chance, looker = random.Random(7), Looker()
    moves = (side(10.0, 10.0, 9.8), side(10.0, 9.8, 9.9), side(10.1, 10.0))
    for _ in range(int(23_400 / CHECK_SECS)):
        bids = chance.choice(moves) if chance.random() < share_of_moves else BIDS
        assert looker.see(bids, ASKS, CHECK_SECS) == ""
