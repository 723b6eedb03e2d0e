"""The book against a naive list model, under sound and hostile rows, and against a recorded gateway."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.book.order_book import OrderBook
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Level, RowFault, Side

VENUE = "ISLAND"
INSERT, UPDATE, DELETE = DepthOperation.INSERT, DepthOperation.UPDATE, DepthOperation.DELETE


class ListModel:
    """Two plain lists, written from the words of the specification and from nothing else."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.sides: dict[Side, list[Level]] = {Side.BID: [], Side.ASK: []}

    def apply(self, row: DepthRow) -> bool:
        """Whether the row was applied."""
        side = self.sides[row.side]
        sound = math.isfinite(row.price) and math.isfinite(row.size)
        last = len(side) - 1 if row.operation is DELETE else len(side)  # the first empty row takes an entry
        if not sound or not 0 <= row.position <= last or row.position >= self.rows:
            return False
        level = (row.price, row.size, row.venue if row.venue != "" else VENUE)
        if row.operation is INSERT:
            side.insert(row.position, level)
        elif row.operation is DELETE:
            side.pop(row.position)
        elif row.position == len(side):
            side.append(level)
        else:
            side[row.position] = level
        del side[self.rows :]
        return True


def row_strategy(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[DepthRow]:
    return st.builds(
        DepthRow,
        operation=st.sampled_from(DepthOperation),
        side=st.sampled_from(Side),
        position=st.integers(-2, 8) | st.sampled_from([500, 2**31 - 1, -(2**31)]),
        price=numbers,
        size=numbers,
        venue=st.sampled_from(["", "NSDQ", "ARCA"]),
    )


any_rows = st.lists(row_strategy(st.floats(width=32) | st.sampled_from([0.0, math.nan, math.inf, -math.inf])))
sound_rows = st.lists(row_strategy(st.floats(0, 1000)), max_size=60)


def book_of(rows: Iterable[DepthRow], size: int = 5) -> OrderBook:
    book = OrderBook(size, VENUE)
    for row in rows:
        book.apply(row)
    return book


def insert(position: int, price: float, side: Side = Side.BID) -> DepthRow:
    return DepthRow(INSERT, side, position, price, 100.0, "")


@given(st.integers(1, 6), any_rows | sound_rows)
def test_book_equals_a_list_model_after_every_row(size: int, rows: list[DepthRow]) -> None:
    book, model = OrderBook(size, VENUE), ListModel(size)
    for row in rows:
        assert (book.apply(row) is None) == model.apply(row)
        assert book.bids == tuple(model.sides[Side.BID])
        assert book.asks == tuple(model.sides[Side.ASK])
        assert book.is_empty == (not book.bids and not book.asks)


@given(any_rows)
def test_dropped_row_changes_nothing_and_applied_row_leaves_the_other_side(
    rows: list[DepthRow],
) -> None:
    book = book_of(insert(0, price, side) for price in (1.0, 2.0, 3.0) for side in Side)
    for row in rows:
        bids, asks = book.bids, book.asks
        fault = book.apply(row)
        if fault is not None or row.side is Side.ASK:
            assert book.bids is bids
        if fault is not None or row.side is Side.BID:
            assert book.asks is asks
        if fault is None:
            assert (book.bids if row.side is Side.BID else book.asks) is not (bids if row.side is Side.BID else asks)


@given(sound_rows)
def test_side_kept_by_a_reader_never_changes(rows: list[DepthRow]) -> None:
    book = OrderBook(5, VENUE)
    kept: list[tuple[Any, list[Level]]] = []
    for row in rows:
        book.apply(row)
        kept += [(book.bids, list(book.bids)), (book.asks, list(book.asks))]
    assert all(list(side) == copy for side, copy in kept)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (DepthRow(UPDATE, Side.BID, -1, 1.0, 1.0, ""), RowFault.NEGATIVE_POSITION),
        (DepthRow(DELETE, Side.BID, -1, 0.0, 0.0, ""), RowFault.NEGATIVE_POSITION),
        (DepthRow(INSERT, Side.BID, 0, math.nan, 1.0, ""), RowFault.NOT_FINITE),
        (DepthRow(INSERT, Side.BID, 0, math.inf, 1.0, ""), RowFault.NOT_FINITE),
        (DepthRow(UPDATE, Side.BID, 0, 1.0, -math.inf, ""), RowFault.NOT_FINITE),
        (DepthRow(INSERT, Side.BID, 5, 1.0, 1.0, ""), RowFault.PAST_REQUESTED),
        (DepthRow(UPDATE, Side.BID, 500, 1.0, 1.0, ""), RowFault.PAST_REQUESTED),
        (DepthRow(INSERT, Side.BID, 3, 1.0, 1.0, ""), RowFault.PAST_END),
        (DepthRow(UPDATE, Side.BID, 3, 1.0, 1.0, ""), RowFault.PAST_END),
        (DepthRow(DELETE, Side.BID, 2, 0.0, 0.0, ""), RowFault.PAST_END),
        (DepthRow(DELETE, Side.ASK, 0, 0.0, 0.0, ""), RowFault.PAST_END),
    ],
)
def test_each_kind_of_bad_row_is_dropped_by_name(row: DepthRow, fault: RowFault) -> None:
    book = book_of([insert(0, 10.0), insert(1, 9.0)])
    before = book.bids
    assert book.apply(row) is fault
    assert book.bids is before


def test_insert_shifts_rows_down_and_delete_shifts_them_up() -> None:
    book = book_of([insert(0, 10.0), insert(1, 9.9), insert(2, 9.8), insert(0, 10.1)])
    assert [price for price, _, _ in book.bids] == [10.1, 10.0, 9.9, 9.8]
    book.apply(DepthRow(DELETE, Side.BID, 1, 0.0, 0.0, ""))
    assert [price for price, _, _ in book.bids] == [10.1, 9.9, 9.8]


def test_row_pushed_past_the_requested_ones_is_gone_for_good() -> None:
    book = book_of([insert(position, 10.0 - position) for position in range(3)] + [insert(0, 11.0)], size=3)
    assert [price for price, _, _ in book.bids] == [11.0, 10.0, 9.0]
    book.apply(DepthRow(DELETE, Side.BID, 0, 0.0, 0.0, ""))
    assert [price for price, _, _ in book.bids] == [10.0, 9.0]


def test_update_at_the_first_empty_row_appends() -> None:
    book = book_of([DepthRow(UPDATE, Side.ASK, 0, 5.0, 1.0, ""), DepthRow(UPDATE, Side.ASK, 1, 6.0, 2.0, "ARCA")])
    assert book.asks == ((5.0, 1.0, VENUE), (6.0, 2.0, "ARCA"))


def test_reset_empties_both_sides_and_the_book_goes_on() -> None:
    book = book_of([insert(0, 1.0), insert(0, 2.0, Side.ASK)])
    book.reset()
    assert book.is_empty
    assert (book.bids, book.asks) == ((), ())
    assert book.apply(insert(0, 3.0)) is None
    assert book.bids == ((3.0, 100.0, VENUE),)


def test_recorded_rows_of_a_real_gateway_end_in_the_recorded_book(shared_data: Path) -> None:
    final = json.loads((shared_data / "eurusd_idealpro_2022-02-21_final.json").read_text())["recorded_final_dom"]
    book = OrderBook(5, "IDEALPRO")
    for position in range(5):  # the recording begins after the inserts of its subscription
        for side in Side:
            book.apply(DepthRow(INSERT, side, position, 0.0, 0.0, "PLACEHOLDER"))
    with (shared_data / "eurusd_idealpro_2022-02-21_rows.csv").open(newline="") as file:
        faults = [book.apply(recorded(fields)) for fields in csv.DictReader(file)]
    assert (len(faults), set(faults)) == (271, {None})
    assert [[price, size] for price, size, _ in book.bids] == final["bids"]
    assert [[price, size] for price, size, _ in book.asks] == final["asks"]
    assert {venue for _, _, venue in book.bids + book.asks} == {"IDEALPRO"}


def recorded(fields: dict[str, str]) -> DepthRow:
    return DepthRow(
        (INSERT, UPDATE, DELETE)[int(fields["operation"])],
        (Side.ASK, Side.BID)[int(fields["side"])],
        int(fields["position"]),
        float(fields["price"]),
        float(fields["size"]),
        fields["market_maker"],
    )
