"""Rows added up by price: vectorised, and the same as one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.export.books import price_ladder, row_ladder
from ibkr_depth_pipeline.model import Level
from ibkr_depth_pipeline_tests.export.kept import Side, levels_of

ROWS = st.lists(
    st.tuples(st.sampled_from([-1.0, 99.98, 99.99, 100.0, 100.01]), st.sampled_from([0.0, 0.5, 100.0]), st.just("X")),
    max_size=10,
).map(lambda rows: [row for row in rows if row[:2] != (0.0, 0.0)])


def arrays(books: list[list[Level]]) -> tuple[np.ndarray, np.ndarray]:
    rows = [[*side, *[(0.0, 0.0, "")] * (10 - len(side))] for side in books]
    values = np.array([[level[:2] for level in side] for side in rows]).reshape(len(books), 10, 2)
    return values[:, :, 0].copy(), values[:, :, 1].copy()


def levels(ladder: object, at: int) -> Side:
    columns = [getattr(ladder, name)[at].tolist() for name in ("prices", "sizes", "counts")]
    return [level for level in zip(*columns, strict=True) if level[2]]


@given(books=st.lists(ROWS, max_size=6), is_bid=st.booleans())
def test_rows_of_any_order_add_up_by_price_best_first(books: list[list[Level]], is_bid: bool) -> None:
    ladder = price_ladder(*arrays(books), is_bid=is_bid)
    assert [levels(ladder, at) for at in range(len(books))] == [levels_of(side, is_bid=is_bid) for side in books]
    assert ladder.rows.tolist() == [len(side) for side in books]


def test_adding_up_leaves_the_given_arrays_as_they_were() -> None:
    prices, sizes = arrays([[(1.0, 5.0, ""), (2.0, 6.0, "")]])
    before = prices.copy(), sizes.copy()
    price_ladder(prices, sizes, is_bid=True)
    assert (prices.tolist(), sizes.tolist()) == tuple(each.tolist() for each in before)


def test_absent_levels_are_nan_and_zero() -> None:
    for ladder in (price_ladder(*arrays([[(1.0, 5.0, "")]]), is_bid=True), row_ladder(*arrays([[(1.0, 5.0, "")]]))):
        assert np.isnan(ladder.prices[0, 1:]).all()
        assert ladder.sizes[0].tolist() == [5.0, *[0.0] * 9]
        assert ladder.counts[0].tolist() == [1, *[0] * 9]


def test_rows_as_they_came_are_not_added_up() -> None:
    side = [(1.0, 5.0, "A"), (1.0, 6.0, "B"), (2.0, 7.0, "A")]
    assert levels(row_ladder(*arrays([side])), 0) == [(1.0, 5.0, 1), (1.0, 6.0, 1), (2.0, 7.0, 1)]
