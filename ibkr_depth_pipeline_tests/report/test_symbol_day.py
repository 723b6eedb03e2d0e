"""A symbol's day from its snapshots: what is counted, and that it does not matter how they come in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.archive.checks import LIVE_MS
from ibkr_depth_pipeline.report.symbol_day import SymbolDay, SymbolFold, UncoveredTime, Window
from ibkr_depth_pipeline.report.timeline import Bins, SnapshotColumns
from ibkr_depth_pipeline_tests.report.made_up import START, books, part, quoted

BINS = Bins(START, 1000, 60)
MINUTE = Window(START, START + 60_000)


def counted(*pieces: SnapshotColumns, window: Window = MINUTE) -> SymbolDay:
    fold = SymbolFold("SPY", BINS, window)
    for piece in pieces:
        fold.add(piece, {"ARCA": len(piece)})
    return fold.result()


def test_rows_are_counted_in_the_second_in_which_they_came() -> None:
    day = counted(books(quoted(0), quoted(999), quoted(1000), quoted(59_999)))
    assert day.rows.tolist() == [2, 1, *[0] * 57, 1]
    assert (day.snapshots, day.venues) == (4, {"ARCA": 4})


def test_book_is_live_until_the_next_snapshot() -> None:
    day = counted(books(quoted(500), quoted(2500)))
    assert day.live_ms[:4].tolist() == [500, 1000, 500, 0]
    assert (day.covered_ms, day.coverage) == (2000, 2000 / 60_000)


def test_book_without_a_row_for_too_long_was_not_live() -> None:
    assert counted(books(quoted(0), quoted(LIVE_MS))).covered_ms == LIVE_MS
    assert counted(books(quoted(0), quoted(LIVE_MS + 1))).covered_ms == 0


def test_empty_book_is_not_live() -> None:
    day = counted(books(quoted(0), (1000, [], []), quoted(5000), quoted(6000)))
    assert day.live_ms[:7].tolist() == [1000, 0, 0, 0, 0, 1000, 0]


def test_time_before_a_subscriptions_first_row_is_not_live() -> None:
    day = counted(books(quoted(0), quoted(1000), (4000, [(99.0, 1.0)], []), quoted(4500), quoted(5000)))
    assert day.live_ms[:6].tolist() == [1000, 0, 0, 0, 1000, 0]


def test_book_of_a_single_row_all_day_is_live_all_the_same() -> None:
    day = counted(books(*((at, [(99.0, 1.0)], []) for at in range(0, 60_001, 5000))))
    assert day.covered_ms == 60_000


def test_coverage_is_of_the_window_only() -> None:
    window = Window(START + 1000, START + 2000)
    day = counted(books(quoted(0), quoted(1500), quoted(9000)), window=window)
    assert (day.covered_ms, day.coverage, day.worst.ms) == (1000, 1.0, 0)


def test_longest_time_without_a_live_book_is_found() -> None:
    two = (quoted(20_000), quoted(21_000))
    assert counted(books(*two)).worst == UncoveredTime(39_000, START + 21_000)
    assert counted(books(*two, quoted(50_000), quoted(51_000))).worst == UncoveredTime(29_000, START + 21_000)
    assert counted(books(quoted(45_000), quoted(46_000))).worst == UncoveredTime(45_000, START)
    assert counted(books(quoted(0))).worst == UncoveredTime(60_000, START)


def test_spread_is_that_which_stood_for_longest() -> None:
    day = counted(books(quoted(0, 99.0, 101.0), quoted(1, 99.5, 99.75), quoted(2, 99.5, 100.5), quoted(1000)))
    low, median, high = day.spreads[:, 0].tolist()
    assert (low, median, high) == (1.0, 1.0, 1.0)
    assert day.spread == 1.0
    assert day.spread_bps == pytest.approx(1.0 / 100.0 * 10_000)


def test_percentiles_of_a_spread_are_over_time() -> None:
    stood = [(0, 1.0), (100, 2.0), (500, 4.0), (850, 8.0)]  # for 100, 400, 350 and 150 ms
    day = counted(books(*(quoted(at, 100.0, 100.0 + spread) for at, spread in stood), quoted(1000, 100.0, 116.0)))
    assert day.spreads[:, 0].tolist() == [1.0, 2.0, 8.0]


def test_crossed_and_one_sided_books_have_no_spread() -> None:
    day = counted(books(quoted(0, 101.0, 99.0), (500, [(99.0, 1.0)], []), (900, [], [])))
    assert day.spread is None
    assert day.spread_bps is None
    assert np.all(np.isnan(day.spreads))
    assert np.all(np.isnan(day.bid))


def test_best_prices_of_a_bin_are_its_last_sound_ones() -> None:
    day = counted(books(quoted(0, 1.0, 2.0), quoted(500, 3.0, 4.0), quoted(900, 9.0, 5.0), quoted(1500, 6.0, 7.0)))
    assert day.bid[:2].tolist() == [3.0, 6.0]
    assert day.ask[:2].tolist() == [4.0, 7.0]


def test_tick_and_reach_are_those_of_the_rows() -> None:
    bids = [(100.0, 1.0), (99.75, 1.0), (99.25, 1.0)]
    day = counted(books((0, bids, [(100.25, 1.0)]), (500, bids, [(100.25, 1.0)])))
    assert day.tick == 0.25
    assert day.reach == pytest.approx((0.75 + 0.0) / 2)


sides = st.lists(st.sampled_from([98.0, 99.0, 100.0, 101.0]), max_size=3, unique=True)
snapshots = st.lists(st.tuples(st.integers(0, 4000), sides, sides), min_size=1, max_size=30)


@given(snapshots, st.data())
def test_pieces_give_the_same_as_the_whole(
    found: list[tuple[int, list[float], list[float]]], data: st.DataObject
) -> None:
    at, rows = 0, []
    for wait, bids, asks in found:
        at += wait
        rows.append((at, [(p, 1.0) for p in sorted(bids, reverse=True)], [(p, 1.0) for p in sorted(asks)]))
    whole = books(*rows)
    cut = data.draw(st.integers(0, len(whole)))
    one, other = counted(whole), counted(part(whole, 0, cut), part(whole, cut, len(whole)))
    for name in ("rows", "live_ms", "spreads", "bid", "ask"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("snapshots", "covered_ms", "worst", "spread", "venues", "tick"):
        assert getattr(one, name) == getattr(other, name)
