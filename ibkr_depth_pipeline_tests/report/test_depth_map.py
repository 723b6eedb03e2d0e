"""How much stood at which price when, to the ms."""

from __future__ import annotations

import numpy as np
import pytest

from ibkr_depth_pipeline.report.symbol_day import (
    MOST_PRICES,
    DepthFold,
    DepthMap,
    PriceGrid,
    SymbolDay,
    SymbolFold,
    Window,
    price_grid,
)
from ibkr_depth_pipeline.report.timeline import Bins
from ibkr_depth_pipeline_tests.report.made_up import START, Side, books, part, quoted

BINS = Bins(START, 1000, 3)
GRID = PriceGrid(98.0, 0.5, 8)


def mapped(*snapshots: tuple[int, Side, Side], cut: int = 0) -> DepthMap:
    fold, whole = DepthFold(BINS, GRID), books(*snapshots)
    for piece in (part(whole, 0, cut), part(whole, cut, len(whole))):
        fold.add(piece)
    return fold.result("SPY")


def day_of(*snapshots: tuple[int, Side, Side]) -> SymbolDay:
    fold = SymbolFold("SPY", Bins(START, 1000, 30), Window(START, START + 30_000))
    fold.add(books(*snapshots), {})
    return fold.result()


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_size_counts_by_the_time_for_which_it_stood(cut: int) -> None:
    depth = mapped((0, [(99.0, 10.0)], [(100.5, 4.0)]), (250, [(99.0, 30.0)], [(100.5, 4.0)]), (2000, [], []), cut=cut)
    assert depth.bids[2].tolist() == [10 * 0.25 + 30 * 0.75, 30.0, 0.0]
    assert depth.asks[5].tolist() == [4.0, 4.0, 0.0]
    assert np.count_nonzero(depth.bids) == np.count_nonzero(depth.asks) == 2


def test_mean_is_over_the_live_time_of_a_bin() -> None:
    depth = mapped((900, [(99.0, 10.0)], [(100.5, 4.0)]), (950, [], []))
    assert depth.bids[2].tolist() == [10.0, 0.0, 0.0]


def test_prices_outside_of_the_picture_are_left_out() -> None:
    depth = mapped((0, [(99.0, 1.0), (0.01, 9.0)], [(101.99, 1.0), (102.0, 9.0)]), (1000, [], []))
    assert depth.bids.sum() == depth.asks.sum() == 1.0


def test_rows_are_whole_ticks_around_the_days_prices() -> None:
    grid = price_grid(
        day_of((0, [(99.98, 1.0), (99.96, 1.0)], [(100.0, 1.0), (100.04, 1.0)]), quoted(10, 99.98, 100.0))
    )
    assert grid is not None
    assert grid.height == pytest.approx(0.02)
    rows = grid.of(np.array([99.96, 99.98, 100.0, 100.02]))
    assert np.diff(rows).tolist() == [1, 1, 1]
    assert grid.low <= 99.97
    assert grid.high > 100.02


def test_wide_day_has_rows_of_several_ticks() -> None:
    moves = [(at, [(100 + at, 1.0), (99.99 + at, 1.0)], [(100.01 + at, 1.0)]) for at in range(0, 51, 5)]
    grid = price_grid(day_of(*((at * 50, bids, asks) for at, bids, asks in moves)))
    assert grid is not None
    assert MOST_PRICES / 2 < grid.count <= MOST_PRICES + 1
    assert grid.height / 0.01 == pytest.approx(round(grid.height / 0.01))


def test_stub_quote_does_not_flatten_the_picture() -> None:
    day = day_of(quoted(0, 0.01, 100.02), *(quoted(at * 1000, 100.0, 100.01) for at in range(1, 30)))
    grid = price_grid(day)
    assert grid is not None
    assert grid.low > 98


def test_day_without_two_sides_has_no_picture() -> None:
    assert price_grid(day_of((0, [(99.0, 1.0)], []))) is None
