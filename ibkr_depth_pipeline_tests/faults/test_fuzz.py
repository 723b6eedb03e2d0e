"""The frame path and the row path, fuzzed: bytes in as a socket would bring them, books out; nothing raises, and every
book equals a naive model that knows what was meant.

FUZZ_INPUTS sets the number of messages of the long run (make test-faults), FUZZ_SEED where it begins.
"""

from __future__ import annotations

import os
import random
import struct
from dataclasses import dataclass, field
from typing import Any

import pytest

from ibkr_depth_pipeline.gateway.events import GatewayEvent, MessageUnreadable, RowUnreadable
from ibkr_depth_pipeline.gateway.tws_session import GatewayCallbacks, TwsSession
from ibkr_depth_pipeline.ingest.books import LiveBooks, PipelineFigures
from ibkr_depth_pipeline.ingest.hot_path import HotPath
from ibkr_depth_pipeline.model import DepthRow
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline_tests.sink.writing import side_text

REQUEST, OTHER_REQUEST = 424242, 777  # so different that no bent message of one is taken for the other
ROWS = 15
MESSAGES_AT_ONCE = 500

Meaning = float | int | str | None

# What stands on the wire, and what it means; None: nothing, so the row must be dropped.
POSITIONS: list[tuple[str, Meaning]] = [(str(number), number) for number in range(ROWS)] * 4 + [
    ("15", None), ("500", None), ("-1", None), ("2147483647", None), ("x", None), ("", None), ("1_0", None),
    ("3.5", None), ("\uff11", None), ("9" * 5000, None),
]  # fmt: skip
OPERATIONS: list[tuple[str, Meaning]] = [("0", "insert"), ("0", "insert"), ("1", "update"), ("2", "delete")] * 8 + [
    ("3", None), ("-1", None), ("", None), ("insert", None), ("00", None),
]  # fmt: skip
SIDES: list[tuple[str, Meaning]] = [("0", "ask"), ("1", "bid")] * 10 + [("2", None), ("-1", None), ("", None)]
NUMBERS: list[tuple[str, Meaning]] = [(repr(number / 8), number / 8) for number in range(60)] + [
    ("1e3", 1000.0), ("-2.5", -2.5), ("0", 0.0), ("nan", None), ("inf", None), ("-inf", None), ("1e999", None),
    ("1.7976931348623157E308", None), ("abc", None), ("", None), ("1_0", None), ("0x10", None),
]  # fmt: skip
NAMES = ["", "NSDQ", "ARCA", "B_\u00c9", "x" * 300]


@dataclass
class Naive:
    """Two lists, and no hurry."""

    sides: dict[str, list[tuple[Any, Any, str]]] = field(default_factory=lambda: {"bid": [], "ask": []})
    applied: int = 0
    dropped: int = 0

    def take(self, fields: tuple[Meaning, ...], name: str) -> None:
        position, operation, side, price, size = fields
        needed = fields[:3] if operation == "delete" else fields
        if None in needed or not self._apply(
            int(position or 0), operation, self.sides[str(side)], (price, size, name or "ARCA")
        ):
            self.dropped += 1
        else:
            self.applied += 1

    def _apply(self, position: int, operation: Meaning, levels: list[Any], level: tuple[Any, Any, str]) -> bool:
        if position > len(levels) or (operation == "delete" and position == len(levels)):
            return False
        if operation == "insert":
            levels.insert(position, level)
        elif operation == "delete":
            levels.pop(position)
        elif position == len(levels):
            levels.append(level)
        else:
            levels[position] = level
        del levels[ROWS:]
        return True


@dataclass
class Desk:
    """A session that is past the handshake, without a socket; its books; and the naive model beside them."""

    dice: random.Random
    figures: PipelineFigures = field(default_factory=PipelineFigures)
    naive: Naive = field(default_factory=Naive)
    seq: int = 0
    newest: dict[str, bytes] = field(default_factory=dict)
    hot: int = 0
    unreadable: int = 0

    def __post_init__(self) -> None:
        self.hot_path = HotPath()
        self.books = LiveBooks(self.figures, self.hot_path, lambda symbol: self._store, rows=ROWS, levels_shown=10)
        self.books.number_from({"SPY": StreamId()})
        self.books.open(REQUEST, "SPY", "ARCA")
        self.session = TwsSession(GatewayCallbacks(self._on_event, self._on_row, self._on_depth))
        for greeting in (b"176\0now\0", b"15\x001\0DU1\0", b"9\x001\x001\0"):
            self.session.client.conn.data_received(framed(greeting))
        assert self.session.client.isReady()

    def _store(self, ts: int, seq: int, venue: bytes, bids: bytes, asks: bytes) -> None:
        assert seq == self.seq + 1
        self.seq, self.newest = seq, {"bid": bids, "ask": asks}

    def _on_depth(self, message: bytes) -> bool:
        taken = self.hot_path.take(message, 1000) != 0
        self.hot += taken
        return taken

    def _on_row(self, request: int, row: DepthRow) -> None:
        self.books.row(request, row, 1000)

    def _on_event(self, event: GatewayEvent) -> None:
        if isinstance(event, RowUnreadable):
            self.books.drop(event.request, event.fault.value)
        self.unreadable += isinstance(event, MessageUnreadable)

    def send(self, messages: list[bytes]) -> None:
        """As a socket would: in pieces that have nothing to do with the messages."""
        data = b"".join(framed(message) for message in messages)
        start = 0
        while start < len(data):
            end = start + self.dice.choice((1, 3, 100, 5000, 100_000))
            self.session.client.conn.data_received(data[start:end])
            start = end

    def message(self) -> bytes:
        kind = self.dice.random()
        if kind < 0.75:
            return self._row_of(REQUEST)
        if kind < 0.9:
            return self._bent(self._row_of(OTHER_REQUEST, model=False))
        if kind < 0.95:
            return self.dice.randbytes(self.dice.randrange(60))
        number = self.dice.choice((4, 10, 12, 13, 49, 52, 53, 80, 9999))
        return b"%d\0" % number + b"\0".join(self.dice.randbytes(3) for _ in range(self.dice.randrange(12)))

    def _row_of(self, request: int, model: bool = True) -> bytes:
        pick = self.dice.choice
        position, operation, side, price, size = map(pick, (POSITIONS, OPERATIONS, SIDES, NUMBERS, NUMBERS))
        named = self.dice.random() < 0.5
        name = pick(NAMES) if named else ""
        if model:
            self.naive.take((position[1], operation[1], side[1], price[1], size[1]), name)
        middle = [position[0], name] if named else [position[0]]
        fields = ["13" if named else "12", "1", str(request), *middle, operation[0], side[0], price[0], size[0]]
        return "".join(f"{each}\0" for each in [*fields, *(["0"] if named else [])]).encode()

    def _bent(self, message: bytes) -> bytes:
        at = self.dice.randrange(len(message))
        change = self.dice.choice((bytes([self.dice.randrange(256)]), b"", b"\0", b"\xff", b"9" * 30))
        return message[:at] + change + message[at + 1 :]

    def check(self) -> None:
        book = self.books.last_books()["SPY"]
        for side, levels in (("bid", book.bids), ("ask", book.asks)):
            assert list(levels) == self.naive.sides[side]
            assert self.newest[side] == side_text(tuple(self.naive.sides[side]))
        assert self.books.rows()["SPY"] == self.naive.applied == self.seq
        dropped = sum(count for (symbol, _), count in self.figures.dropped.items() if symbol == "SPY")
        assert dropped == self.naive.dropped


def framed(message: bytes) -> bytes:
    return struct.pack(">I", len(message)) + message


async def fuzz(inputs: int, seed: int) -> Desk:
    desk = Desk(random.Random(seed))
    for _ in range(0, inputs, MESSAGES_AT_ONCE):
        desk.send([desk.message() for _ in range(MESSAGES_AT_ONCE)])
        desk.check()
    return desk


@pytest.mark.parametrize("seed", range(3))
async def test_fuzzed_messages_crash_nothing_and_leave_the_right_book(seed: int) -> None:
    desk = await fuzz(5000, seed)
    assert desk.naive.applied > 1000
    assert desk.hot > 500, "most rows that apply take the hot path"
    assert desk.naive.dropped > 500
    assert desk.unreadable > 100


@pytest.mark.faults
@pytest.mark.timeout(1800)
async def test_run_of_a_million_fuzzed_messages_crashes_nothing() -> None:
    inputs, seed = int(os.environ.get("FUZZ_INPUTS", "1000000")), int(os.environ.get("FUZZ_SEED", "12345"))
    desk = await fuzz(inputs, seed)
    print(f"\nMEASURED fuzz: {inputs:,} messages, {desk.naive.applied:,} rows applied, {desk.naive.dropped:,} dropped")
