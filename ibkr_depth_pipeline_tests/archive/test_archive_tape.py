"""From archived books to rows: the client that applies them holds each archived book in turn, and no other."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibkr_depth_pipeline.simulation.archive_tape import HALTED, RESET, SHOWN, ArchivedTape, State, tape_of
from ibkr_depth_pipeline.simulation.rows import (
    ASK,
    BID,
    DELETE,
    INSERT,
    UPDATE,
    Book,
    Change,
    RowStyle,
    WireRow,
    apply_rows,
)

EMPTY = Book()


def recorded(dice: random.Random, rows: int, depth: int) -> list[Book]:
    """What a recorder keeps of so many random rows of a book of `depth` rows a side: ten levels after each of them."""
    book, kept = EMPTY, []
    while len(kept) < rows:
        if dice.random() < 0.01:
            book = EMPTY  # a reset, which is recorded, or a new subscription, which begins with its first row
            if dice.random() < 0.5:
                kept.append(book)
                continue
        book = apply_rows(book, [_row(dice, book, depth)]).clipped(depth)
        kept.append(book.clipped(SHOWN))
    return kept


def _row(dice: random.Random, book: Book, depth: int) -> WireRow:
    side = dice.choice((BID, ASK))
    held = len(book.bids if side == BID else book.asks)
    operation = INSERT if held < 3 else dice.choice((INSERT, UPDATE, DELETE, DELETE if held > SHOWN else INSERT))
    position = dice.randrange(min(depth, held + 1) if operation == INSERT else held)
    return WireRow(position, operation, side, float(dice.randint(1, 99)), float(dice.randint(1, 9)), "ISLAND")


def tape(books: list[Book]) -> ArchivedTape:
    return tape_of([State(1000 + number, number + 1, book) for number, book in enumerate(books)], 1000)


def shown_to(client_rows: int, played: ArchivedTape) -> list[Book]:
    """The snapshots of a recorder that follows the tape with so many rows a side."""
    snapshots, held, before = [], EMPTY, played.opening
    for moment in played.moments:
        if moment.error is not None:
            held = EMPTY
        if moment.error == RESET:
            snapshots.append(held)
        for row in Change(before, moment.book, RowStyle.SHIFT, moment.rows, moment.error).rows(client_rows):
            held = apply_rows(held, [row]).clipped(client_rows)
            snapshots.append(held.clipped(SHOWN))
        before = moment.book
    return snapshots


def distinct(books: list[Book]) -> list[Book]:
    return [book for at, book in enumerate(books) if at == 0 or book != books[at - 1]]


@settings(max_examples=60)
@given(st.integers(0, 10**9), st.sampled_from([10, 12, 15]))
def test_books_come_back_in_order_whatever_the_rows_were(seed: int, depth: int) -> None:
    books = recorded(random.Random(seed), 300, depth)
    played = tape(books)
    assert played.jumps == 0
    assert distinct(shown_to(15, played)) == distinct(books)


@settings(max_examples=40)
@given(st.integers(0, 10**9), st.sampled_from([11, 13, 18]))
def test_client_of_another_depth_sees_the_same_books(seed: int, client_rows: int) -> None:
    books = recorded(random.Random(seed), 200, 15)
    assert distinct(shown_to(client_rows, tape(books))) == distinct(books)


def test_recording_of_ten_rows_comes_back_row_for_row_to_a_client_of_ten() -> None:
    books = recorded(random.Random(5), 2000, 10)
    assert shown_to(10, tape(books)) == books


def test_row_below_the_tenth_is_sent_if_the_recording_has_room_for_it() -> None:
    """Twelve levels, then the best goes: the eleventh comes up, and was told as the eleventh row of the opening."""
    levels = [WireRow(at, INSERT, BID, 100.0 - at, 1.0, "X") for at in range(12)]
    books, book = [], EMPTY
    for row in [*levels, WireRow(0, DELETE, BID, 0.0, 0.0)]:
        book = apply_rows(book, [row])
        books.append(book.clipped(SHOWN))
    played = tape(books)
    assert shown_to(15, played) == books
    assert [len(moment.rows or ()) for moment in played.moments] == [1] * len(books)


def test_emptied_book_is_a_reset_and_a_book_that_starts_over_is_a_new_subscription() -> None:
    first, second = (WireRow(at, INSERT, BID, 100.0 - at, 1.0, "X") for at in range(2))
    full = apply_rows(EMPTY, [first, second])
    other = apply_rows(EMPTY, [WireRow(0, INSERT, ASK, 101.0, 2.0, "X")])
    played = tape([apply_rows(EMPTY, [first]), full, EMPTY, EMPTY, apply_rows(EMPTY, [first]), full, other])
    assert [moment.error for moment in played.moments] == [None, None, RESET, RESET, None, None, HALTED, None]
    assert played.jumps == 0


def test_change_that_no_row_explains_is_a_jump_to_the_right_book() -> None:
    books = recorded(random.Random(3), 40, 10)
    jumped = [books[0], *books[30:]]
    played = tape(jumped)
    assert played.jumps == 1
    assert shown_to(15, played)[-len(books[30:]) :] == books[30:]


def test_tape_time_starts_at_the_beginning_of_the_day() -> None:
    books = recorded(random.Random(1), 5, 10)
    played = tape_of([State(5000 + 250 * at, at + 1, book) for at, book in enumerate(books)], 1000)
    assert [moment.at for moment in played.moments] == pytest.approx([4.0 + 0.25 * at for at in range(5)])
    assert all(one.at <= other.at for one, other in pairwise(played.moments))
