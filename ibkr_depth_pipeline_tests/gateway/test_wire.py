"""Bytes -> messages -> rows, as ib_insync reads them; broken input gets a reason, and never raises."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ib_insync.client import Client
from ib_insync.decoder import Decoder

from ibkr_depth_pipeline.errors import GatewayProtocolError
from ibkr_depth_pipeline.gateway.events import RowUnreadable
from ibkr_depth_pipeline.gateway.wire import UNSET, FrameSplitter, read_depth
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, RowFault, Side

MESSAGES = st.lists(st.binary(max_size=300), max_size=20)
CUTS = st.lists(st.integers(0, 4000), max_size=30)


def framed(messages: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(message)) + message for message in messages)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = [*sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def split(chunks: list[bytes]) -> list[bytes]:
    splitter = FrameSplitter()
    return [message for chunk in chunks for message in splitter.split(chunk)]


class Listener:
    """Wrapper and decoder of ib_insync's client; `received` are the fields of every message."""

    def __init__(self) -> None:
        self.received: list[list[str]] = []

    def interpret(self, fields: list[str]) -> None:
        self.received.append(fields)


@given(MESSAGES, CUTS)
def test_messages_are_whole_and_in_order_for_any_cutting_of_the_stream(messages: list[bytes], cuts: list[int]) -> None:
    assert split(pieces(framed(messages), cuts)) == messages


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=10))
def test_messages_are_assembled_from_single_bytes(messages: list[bytes]) -> None:
    data = framed(messages)
    assert split([data[at : at + 1] for at in range(len(data))]) == messages


@given(st.lists(st.lists(st.text("abc019.-\u00e9", max_size=6), min_size=1, max_size=8), max_size=12), CUTS)
def test_frame_splitter_finds_the_messages_that_ib_insync_finds(messages: list[list[str]], cuts: list[int]) -> None:
    data = framed(["".join(f"{field}\0" for field in fields).encode() for fields in messages])
    listener = Listener()
    client: Any = Client(listener)
    client.decoder, client._serverVersion, client._apiReady = listener, 176, True
    for piece in pieces(data, cuts):
        client._onSocketHasData(piece)
    found = [message.decode().split("\0")[:-1] for message in split(pieces(data, cuts))]
    assert found == listener.received == messages


def test_message_of_absurd_length_is_refused_after_the_messages_before_it_and_without_waiting_for_more() -> None:
    splitter = FrameSplitter()
    messages = splitter.split(framed([b"a", b"b"]) + b"\x7f\xff\xff\xff")
    assert [next(messages), next(messages)] == [b"a", b"b"]
    with pytest.raises(GatewayProtocolError, match="2147483647 bytes"):
        next(messages)
    assert splitter.pending == 0


def test_frame_splitter_holds_at_most_one_unfinished_message() -> None:
    splitter = FrameSplitter()
    whole = framed([b"x" * 1000] * 100)
    for at in range(0, len(whole), 333):
        list(splitter.split(whole[at : at + 333]))
        assert splitter.pending < 1004
    assert splitter.pending == 0


def message(*fields: object) -> bytes:
    return "".join(f"{field}\0" for field in fields).encode()


def test_row_without_market_maker_is_read() -> None:
    row = DepthRow(DepthOperation.INSERT, Side.BID, 3, 10.25, 100.0, "")
    assert read_depth(message(12, 1, 7, 3, 0, 1, 10.25, 100)) == (7, row)


@pytest.mark.parametrize("smart", [(), (0,), (0, "something new")])
def test_row_of_market_maker_is_read_with_and_without_the_fields_of_newer_versions(smart: tuple[object, ...]) -> None:
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
def test_broken_depth_message_names_its_request_and_its_fault(raw: bytes, fault: RowFault, request_id: int) -> None:
    read = read_depth(raw)
    assert isinstance(read, RowUnreadable)
    assert (read.fault, read.request) == (fault, request_id)


def test_market_maker_name_that_is_not_utf8_is_replaced_and_its_row_is_read() -> None:
    read = read_depth(b"13\x001\x007\x000\0B_\xc9\0" + message(0, 1, 1.5, 100, 0))
    assert read == (7, DepthRow(DepthOperation.INSERT, Side.BID, 0, 1.5, 100.0, "B_\ufffd"))


def test_unset_int_is_read_as_a_size_and_a_negative_price_is_read() -> None:
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
def test_broken_row_names_its_operation_if_that_can_be_read(raw: bytes, operation: DepthOperation | None) -> None:
    read = read_depth(raw)
    assert isinstance(read, RowUnreadable)
    assert read.operation is operation


def test_market_maker_name_may_hold_characters_that_a_number_may_not() -> None:
    read = read_depth(message(13, 1, 7, 0, "B_\u00c9", 1, 1, 1.5, 100, 0))
    assert read == (7, DepthRow(DepthOperation.UPDATE, Side.BID, 0, 1.5, 100.0, "B_\u00c9"))


class Wrapper:
    """Collects the rows that ib_insync's decoder reads."""

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
def test_row_is_read_as_ib_insync_reads_it(
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
def test_depth_message_of_random_bytes_never_raises(rest: bytes, kind: bytes) -> None:
    read = read_depth(kind + rest)
    assert isinstance(read, RowUnreadable) or isinstance(read[1], DepthRow)
