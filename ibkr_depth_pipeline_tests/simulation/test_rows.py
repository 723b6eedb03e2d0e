import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.simulation.rows import (
    ASK,
    BID,
    DELETE,
    INSERT,
    UPDATE,
    Book,
    BookLevel,
    Change,
    RowStyle,
    WireRow,
    apply_rows,
    rows_of_change,
    snapshot_rows,
)

levels = st.builds(
    BookLevel, st.integers(1, 12).map(float), st.integers(1, 4).map(float), st.sampled_from(["", "NSDQ"])
)
any_side = st.lists(levels, max_size=8).map(tuple)
bids = st.lists(levels, max_size=8, unique_by=lambda level: level.price).map(
    lambda side: tuple(sorted(side, reverse=True))
)
asks = st.lists(levels, max_size=8, unique_by=lambda level: level.price).map(lambda side: tuple(sorted(side)))
any_books = st.builds(Book, any_side, any_side)
ordered_books = st.builds(Book, bids, asks)
styles = st.sampled_from([RowStyle.SHIFT, RowStyle.CASCADE])


def book(*prices: float) -> Book:
    return Book(tuple(BookLevel(price, 1.0) for price in prices))


@given(any_books, any_books, styles)
def test_rows_of_a_change_lead_exactly_to_the_next_book(before: Book, after: Book, style: RowStyle) -> None:
    assert apply_rows(before, rows_of_change(before, after, style)) == after


@given(any_books, any_books)
def test_overwriting_rows_lead_to_the_next_book_for_a_client_that_overwrites(before: Book, after: Book) -> None:
    sides = {BID: list(before.bids), ASK: list(before.asks)}
    for row in rows_of_change(before, after, RowStyle.OVERWRITE):
        level = [BookLevel(row.price, row.size, row.market_maker)]
        end = row.position if row.position == len(sides[row.side]) else row.position + 1
        sides[row.side][row.position : end] = [] if row.operation == DELETE else level
    assert Book(tuple(sides[BID]), tuple(sides[ASK])) == after


@given(ordered_books, ordered_books, styles)
def test_no_side_grows_past_the_longer_of_its_two_ends(before: Book, after: Book, style: RowStyle) -> None:
    longest = [max(len(old), len(new)) for old, new in zip(before, after, strict=True)]
    state = before
    for row in rows_of_change(before, after, style):
        state = apply_rows(state, [row])
        assert [len(side) <= limit for side, limit in zip(state, longest, strict=True)] == [True, True]


@given(any_books)
def test_snapshot_builds_the_book_from_nothing(whole: Book) -> None:
    assert apply_rows(Book(), snapshot_rows(whole)) == whole


def test_snapshot_appends_with_its_sides_interleaved() -> None:
    whole = Book((BookLevel(9.0, 1.0), BookLevel(8.0, 1.0)), (BookLevel(10.0, 1.0),))
    assert [row[:3] for row in snapshot_rows(whole)] == [(0, INSERT, BID), (0, INSERT, ASK), (1, INSERT, BID)]


def test_new_level_in_a_full_side_deletes_the_last_row_first() -> None:
    rows = rows_of_change(book(9, 8, 7), book(9, 8.5, 8))
    assert [row[:4] for row in rows] == [(2, DELETE, BID, 0.0), (1, INSERT, BID, 8.5)]


def test_level_that_goes_lets_one_move_up_from_below() -> None:
    rows = rows_of_change(book(9, 8, 7), book(8, 7, 6))
    assert [row[:4] for row in rows] == [(0, DELETE, BID, 0.0), (2, INSERT, BID, 6)]


def test_changed_size_is_one_update() -> None:
    after = Book((BookLevel(9, 1.0), BookLevel(8, 5.0), BookLevel(7, 1.0)))
    assert rows_of_change(book(9, 8, 7), after) == [WireRow(1, UPDATE, BID, 8, 5.0)]


def test_cascade_moves_the_price_from_the_top_down() -> None:
    rows = rows_of_change(book(9, 8, 7), book(10, 9, 8), RowStyle.CASCADE)
    assert [row[:4] for row in rows] == [(0, UPDATE, BID, 10), (1, UPDATE, BID, 9), (2, UPDATE, BID, 8)]


@given(ordered_books, ordered_books, styles, st.integers(1, 8))
def test_change_is_worded_for_the_depth_that_was_asked_for(
    before: Book, after: Book, style: RowStyle, depth: int
) -> None:
    change = Change(before, after, style)
    assert apply_rows(before.clipped(depth), change.rows(depth)) == after.clipped(depth)


def test_recorded_rows_are_sent_as_they_are() -> None:
    recorded = (WireRow(0, UPDATE, BID, 9, 1.0), WireRow(4, UPDATE, BID, 5, 1.0))
    change = Change(book(9), book(9), RowStyle.SHIFT, recorded)
    assert change.rows(10) == list(recorded)
    assert change.rows(3) == [recorded[0]]


@pytest.mark.parametrize(
    "row", [WireRow(2, INSERT, BID, 1, 1), WireRow(1, UPDATE, BID, 1, 1), WireRow(-1, DELETE, BID, 0, 0)]
)
def test_row_that_does_not_fit_the_book_is_an_error(row: WireRow) -> None:
    with pytest.raises(IndexError):
        apply_rows(book(9), [row])
