"""Books rebuilt from stored rows: never one whose begin is missing."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.book.rebuild import rebuild
from ibkr_depth_pipeline.errors import SchemaMismatch
from ibkr_depth_pipeline.schema.encoding import bulk, recv_field
from ibkr_depth_pipeline.schema.rows import RowOperation, RowPacker, StoredRow, origin_fields, row_of_entry

INSERT, UPDATE, DELETE, RESET = RowOperation


def row(seq: int, subscription: int = 1, operation: RowOperation = INSERT, position: int = 0) -> StoredRow:
    return StoredRow("SPY", 1000, seq, 5, subscription, operation, "bid", position, float(seq), 100.0, "NSDQ")


def bids(rows: list[StoredRow], **options: object) -> dict[int, list[float]]:
    """seq -> the prices of the bids, of each book that is rebuilt."""
    return {book.row.seq: [price for price, _, _ in book.bids] for book in rebuild(rows, **options)}  # type: ignore[arg-type]


def test_next_subscription_begins_with_an_empty_book() -> None:
    assert bids([row(1), row(2), row(3, subscription=2)]) == {1: [1.0], 2: [2.0, 1.0], 3: [3.0]}


def test_rows_after_a_hole_are_passed_over_until_the_next_subscription() -> None:
    rows = [row(1), row(2), row(5), row(6), row(7, subscription=2)]
    assert bids(rows) == {1: [1.0], 2: [2.0, 1.0], 7: [7.0]}


def test_rows_after_a_hole_are_passed_over_until_the_book_is_emptied() -> None:
    rows = [row(1), row(3), row(4, operation=RESET), row(5)]
    assert bids(rows) == {1: [1.0], 4: [], 5: [5.0]}


def test_rows_of_a_trimmed_stream_are_passed_over_until_a_book_begins() -> None:
    assert bids([row(7), row(8), row(9, subscription=2)]) == {9: [9.0]}


def test_book_behind_a_hole_is_known_if_it_is_known_to_begin_there() -> None:
    rows = [row(1), row(4, subscription=2), row(5, subscription=2)]
    assert bids(rows) == {1: [1.0]}
    assert bids(rows, starts={1, 4}) == {1: [1.0], 4: [4.0], 5: [5.0, 4.0]}
    assert bids(rows[1:], starts={4}) == {4: [4.0], 5: [5.0, 4.0]}


def test_row_pushed_past_the_requested_ones_is_gone_and_only_so_many_are_shown() -> None:
    rows = [row(1), row(2), row(3), row(4, operation=DELETE)]
    assert bids(rows, requested=2, shown=1) == {1: [1.0], 2: [2.0], 3: [3.0], 4: [2.0]}


def test_packed_row_reads_back_as_it_was() -> None:
    packer = RowPacker("key", 100)
    origin = origin_fields(recv_field(1_700_000_000_123_456_789), 3)
    packed = packer.pack_row(1000, 12, origin, UPDATE, (True, 4), b'[150.25,300.0,"A\\"B"]')
    words = packed.split(b"\r\n")[2::2]
    assert words[:6] == [b"XADD", b"key", b"MAXLEN", b"~", b"100", b"1000-12"]
    read = row_of_entry("SPY", [words[5], words[6:]])
    assert read == ("SPY", 1000, 12, 1_700_000_000_123_456_789, 3, UPDATE, "bid", 4, 150.25, 300.0, 'A"B')
    assert packed.startswith(b"*%d\r\n" % len(words))
    assert packed.endswith(bulk(b"mm") + bulk(b'A"B'))


def test_entry_of_another_program_is_no_row() -> None:
    with pytest.raises(SchemaMismatch, match="a row of SPY is not"):
        row_of_entry("SPY", [b"5-1", [b"price", b"5"]])
