"""Bytes -> messages: any cutting of the stream gives the same messages, the ones that ib_insync's own client finds."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ib_insync.client import Client

from ibkr_depth_pipeline.errors import GatewayProtocolError
from ibkr_depth_pipeline.gateway.wire import FrameSplitter

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
    """What ib_insync's client needs of a wrapper and a decoder; keeps the fields of every message."""

    def __init__(self) -> None:
        self.heard: list[list[str]] = []

    def interpret(self, fields: list[str]) -> None:
        self.heard.append(fields)


@given(MESSAGES, CUTS)
def test_messages_come_out_whole_and_in_order_however_the_stream_is_cut(messages: list[bytes], cuts: list[int]) -> None:
    assert split(pieces(framed(messages), cuts)) == messages


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=10))
def test_messages_come_out_of_single_bytes(messages: list[bytes]) -> None:
    data = framed(messages)
    assert split([data[at : at + 1] for at in range(len(data))]) == messages


@given(st.lists(st.lists(st.text("abc019.-\u00e9", max_size=6), min_size=1, max_size=8), max_size=12), CUTS)
def test_ib_insync_finds_the_same_messages(messages: list[list[str]], cuts: list[int]) -> None:
    data = framed(["".join(f"{field}\0" for field in fields).encode() for fields in messages])
    listener = Listener()
    client: Any = Client(listener)
    client.decoder, client._serverVersion, client._apiReady = listener, 176, True
    for piece in pieces(data, cuts):
        client._onSocketHasData(piece)
    found = [message.decode().split("\0")[:-1] for message in split(pieces(data, cuts))]
    assert found == listener.heard == messages


def test_an_absurd_length_is_refused_after_the_messages_before_it_and_without_waiting_for_more() -> None:
    splitter = FrameSplitter()
    messages = splitter.split(framed([b"a", b"b"]) + b"\x7f\xff\xff\xff")
    assert [next(messages), next(messages)] == [b"a", b"b"]
    with pytest.raises(GatewayProtocolError, match="2147483647 bytes"):
        next(messages)
    assert splitter.pending == 0


def test_at_most_one_unfinished_message_is_held() -> None:
    splitter = FrameSplitter()
    whole = framed([b"x" * 1000] * 100)
    for at in range(0, len(whole), 333):
        list(splitter.split(whole[at : at + 333]))
        assert splitter.pending < 1004
    assert splitter.pending == 0
