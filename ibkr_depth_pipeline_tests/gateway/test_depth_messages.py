"""The two depth messages from their bytes: sound ones become rows, broken ones say why, none raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ib_insync.decoder import Decoder

from ibkr_depth_pipeline.gateway.depth_messages import UNSET, read_depth
from ibkr_depth_pipeline.gateway.events import RowUnreadable
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, RowFault, Side


def message(*fields: object) -> bytes:
    return "".join(f"{field}\0" for field in fields).encode()


def test_a_row_without_a_market_maker() -> None:
    row = DepthRow(DepthOperation.INSERT, Side.BID, 3, 10.25, 100.0, "")
    assert read_depth(message(12, 1, 7, 3, 0, 1, 10.25, 100)) == (7, row)


@pytest.mark.parametrize("smart", [(), (0,), (0, "something new")])
def test_a_row_of_a_market_maker_with_and_without_what_newer_versions_append(smart: tuple[object, ...]) -> None:
    row = DepthRow(DepthOperation.UPDATE, Side.ASK, 0, 0.0, 0.5, "NSDQ")
    assert read_depth(message(13, 1, 7, 0, "NSDQ", 1, 0, 0, 0.5, *smart)) == (7, row)


@pytest.mark.parametrize(
    ("raw", "fault", "request_id"),
    [
        (message(12, 1, 7, 0, 3, 1, 1.0, 100), RowFault.UNKNOWN_OPERATION, 7),
        (message(12, 1, 7, 0, -1, 1, 1.0, 100), RowFault.UNKNOWN_OPERATION, 7),
        (message(12, 1, 7, 0, 1, 2, 1.0, 100), RowFault.UNKNOWN_SIDE, 7),
        (message(13, 1, 7, 0, "X", 1, "", 1.0, 100, 0), RowFault.UNKNOWN_SIDE, 7),
        (message(12, 1, 7, "x", 1, 1, 1.0, 100), RowFault.UNREADABLE, 7),
        (message(12, 1, 7, 0, 1, 1, "abc", 100), RowFault.UNREADABLE, 7),
        (message(12, 1, 7, 0, 1, 1, "1_0", 100), RowFault.UNREADABLE, 7),
        (message(12, 1, 7, 0, 1, 1, "\uff11", 100), RowFault.UNREADABLE, 7),
        (message(12, 1, 7, 0, 1, 1, "1.7976931348623157E308", 100), RowFault.NOT_FINITE, 7),
        (message(12, 1, 7, 0, 0, 1, 1.0, "1.7976931348623157E308"), RowFault.NOT_FINITE, 7),
        (message(12, 1, 7, 0, 1, 1, "", 100), RowFault.UNREADABLE, 7),
        (message(12, 1, "x", 0, 1, 1, 1.0, 100), RowFault.UNREADABLE, 0),
        (message(12, 1, 7, 0), RowFault.UNREADABLE, 7),
        (message(12), RowFault.UNREADABLE, 0),
        (message(12, 1, 7, 0, 1, 1, 1.0, 100)[:-1], RowFault.UNREADABLE, 7),
        (message(12, 1, 7, 0, 1, 1, 1.0, "170141183460469231731687303715884105727"), RowFault.NOT_FINITE, 7),
        (message(12, 1, 7, 0, 1, 1, 1.0, "170141183460469231731687303715884105727.0"), RowFault.NOT_FINITE, 7),
        (message(12, 1, 7, 0, 1, 1, "9223372036854775807", 100), RowFault.NOT_FINITE, 7),
        (message(12, 1, 7, 0, 1, 1, 1.0, "-9223372036854775808"), RowFault.NOT_FINITE, 7),
        (message(12, 1, 7, 0, 1, 1, 1.0, "1.7976931348623157e+308"), RowFault.NOT_FINITE, 7),
        (b"12\0" + b"1\0" + b"7\0" + message(0, 1, 1) + b"\xc3\x28\0" + message(100), RowFault.UNREADABLE, 7),
    ],
)
def test_a_broken_message_says_whose_it_is_and_what_is_wrong(raw: bytes, fault: RowFault, request_id: int) -> None:
    read = read_depth(raw)
    assert isinstance(read, RowUnreadable)
    assert (read.fault, read.request) == (fault, request_id)


def test_a_name_that_is_no_utf8_is_replaced_and_the_row_is_the_books_all_the_same() -> None:
    read = read_depth(b"13\x001\x007\x000\0B_\xc9\0" + message(0, 1, 1.5, 100, 0))
    assert read == (7, DepthRow(DepthOperation.INSERT, Side.BID, 0, 1.5, 100.0, "B_\ufffd"))


def test_the_unset_int_may_be_a_size_and_a_price_may_be_negative() -> None:
    read = read_depth(message(12, 1, 7, 0, 0, 1, -0.05, 2147483647))
    assert read == (7, DepthRow(DepthOperation.INSERT, Side.BID, 0, -0.05, 2147483647.0, ""))


@pytest.mark.parametrize(
    ("raw", "operation"),
    [
        (message(12, 1, 7, 0, 0, 1, 1.0, "abc"), DepthOperation.INSERT),
        (message(13, 1, 7, 0, "X", 2, 3, 1.0, 100, 0), DepthOperation.DELETE),
        (message(12, 1, 7, 0, 5, 1, 1.0, 100), None),
        (message(12, 1, 7), None),
    ],
)
def test_a_broken_row_says_what_it_was_to_do_where_that_can_be_read(
    raw: bytes, operation: DepthOperation | None
) -> None:
    read = read_depth(raw)
    assert isinstance(read, RowUnreadable)
    assert read.operation is operation


def test_a_name_may_hold_what_a_number_may_not() -> None:
    read = read_depth(message(13, 1, 7, 0, "B_\u00c9", 1, 1, 1.5, 100, 0))
    assert read == (7, DepthRow(DepthOperation.UPDATE, Side.BID, 0, 1.5, 100.0, "B_\u00c9"))


class Wrapper:
    """Takes what ib_insync's decoder makes of a depth message."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def updateMktDepth(self, *values: Any) -> None:
        request, position, operation, side, price, size = values
        self.rows.append((request, position, operation, side, price, size, ""))

    def updateMktDepthL2(self, *values: Any) -> None:
        request, position, venue, operation, side, price, size, _ = values
        self.rows.append((request, position, operation, side, price, size, venue))


@given(
    st.integers(1, 10**6),
    st.integers(-3, 100),
    st.integers(0, 2),
    st.integers(0, 1),
    st.floats(allow_nan=False).filter(lambda price: price != UNSET),
    st.floats(allow_nan=False).filter(lambda size: size != UNSET),
    st.one_of(st.none(), st.text("ABC ", max_size=4)),
)
def test_ib_insync_reads_the_same_row(
    request: int, position: int, operation: int, side: int, price: float, size: float, venue: str | None
) -> None:
    if venue is None:
        fields: tuple[object, ...] = (12, 1, request, position, operation, side, price, size)
    else:
        fields = (13, 1, request, position, venue, operation, side, price, size, 0)
    wrapper: Any = Wrapper()
    Decoder(wrapper, 176).interpret([str(field) for field in fields])
    read = read_depth(message(*fields))
    assert isinstance(read, tuple)
    mine, row = read
    numbers = {DepthOperation.INSERT: 0, DepthOperation.UPDATE: 1, DepthOperation.DELETE: 2}
    seen = (mine, row.position, numbers[row.operation], int(row.side is Side.BID), row.price, row.size, row.venue)
    theirs = wrapper.rows[0]
    assert seen == (theirs if operation != 2 else (*theirs[:4], 0.0, 0.0, theirs[6]))


@given(st.binary(max_size=120), st.sampled_from([b"12\0", b"13\0"]))
def test_no_bytes_make_it_raise(rest: bytes, kind: bytes) -> None:
    read = read_depth(kind + rest)
    assert isinstance(read, RowUnreadable) or isinstance(read[1], DepthRow)
