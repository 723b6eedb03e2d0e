"""The hot path beside the reference: the careful reading of a message, the pure book, and JSON of its rows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ibkr_depth_pipeline.book.order_book import OrderBook
from ibkr_depth_pipeline.gateway.wire import read_depth
from ibkr_depth_pipeline.ingest.books import LiveBooks, PipelineFigures
from ibkr_depth_pipeline.ingest.hot_path import TEXTS_REMEMBERED, HotPath, NumberTexts
from ibkr_depth_pipeline.schema.encoding import venue_field
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline_tests.sink.writing import side_text

REQUEST, ROWS, SHOWN = 7, 12, 8


class Beside:
    """The books as a session uses them, and the reference; both get every message."""

    def __init__(self) -> None:
        self.stored: list[tuple[int, int, bytes, bytes, bytes]] = []
        self.hot_path = HotPath()
        self.books = LiveBooks(
            PipelineFigures(), self.hot_path, lambda _symbol: self._store, rows=ROWS, levels_shown=SHOWN
        )
        self.books.number_from({"SPY": StreamId(500, 41)})
        self.books.open(REQUEST, "SPY", "ARCA")
        self.reference = OrderBook(ROWS, "ARCA")
        self.seq = 41

    def _store(self, *snapshot: Any) -> None:
        self.stored.append(snapshot)

    def take(self, message: bytes) -> bool:
        """Returns whether the hot path took it."""
        read = read_depth(message)
        stored = len(self.stored)
        hot = self.hot_path.take(message, 1000) != 0
        if not hot and isinstance(read, tuple):
            self.books.row(*read, 1000)
        applies = isinstance(read, tuple) and read[0] == REQUEST and self.reference.apply(read[1]) is None
        assert len(self.stored) - stored == applies, (message, read)
        if applies:
            self.seq += 1
            sides = (side_text(self.reference.bids, SHOWN), side_text(self.reference.asks, SHOWN))
            assert self.stored[-1] == (1000, self.seq, venue_field("ARCA"), *sides)
            assert self.books.last_books()["SPY"][1:] == (self.reference.bids, self.reference.asks)
        return hot


def message(*fields: object) -> bytes:
    return "".join(f"{field}\0" for field in fields).encode()


positions = st.integers(0, ROWS + 1) | st.sampled_from(["-1", "00", "+1", " 1", "x", "", "1_0", "９"])
operations = st.sampled_from(["0", "1", "2"] * 5 + ["3", "", "00", "-0"])
sides = st.sampled_from(["0", "1"] * 5 + ["2", "", "01"])
numbers = (
    st.integers(1, 99).map(lambda cents: cents / 100)
    | st.floats()
    | st.sampled_from(
        [
            "1e3",
            "1E400",
            "1.7976931348623157E308",
            "9223372036854775807",
            "2147483647",
            "nan",
            "-0.0",
            "",
            " 1 ",
            "1_0",
            "0x1",
            "１",
        ]
    )
)
names = st.sampled_from(["", "NSDQ", "B_É", 'q"uote', "\x1b[31m", "\u2028"])
plain = st.builds(
    lambda *fields: message(12, 1, *fields), st.just(REQUEST), positions, operations, sides, numbers, numbers
)
named = st.builds(
    lambda request, at, name, *rest: message(13, 1, request, at, name, *rest),
    *(st.sampled_from([REQUEST, REQUEST, REQUEST, 8]), positions, names, operations, sides, numbers, numbers),
    st.sampled_from(["0", "1"]),
)
odd = st.builds(
    lambda raw, at, change: raw[: at % len(raw)] + change + raw[at % len(raw) + 1 :],
    plain | named,
    st.integers(0, 100),
    st.sampled_from([b"", b"\0", b"\xff", b"9", b"12\0"]),
)


@given(st.lists(plain | named | odd, max_size=60))
@example([message(12, 1, REQUEST, 0, 0, 1, 1.5, 100, 0, "", "")])  # a 12 of as many fields as a 13
@example([message(13, 1, REQUEST, 0, 0, 1, 1.5, 100)])  # a 13 of as many fields as a 12
@example([message(13, 2, REQUEST, 0, "NSDQ", 0, 1, 1.5, 100, 0)])
@example(
    [
        message(13, 1, REQUEST, 0, "NSDQ", 0, 1, 1.5, 100, 0),
        b"13\x001\x007\x000\x00\xff\xfe\x001\x001\x001\x001\x000\x00",
    ]
)
def test_every_message_is_stored_as_the_reference_would(messages: list[bytes]) -> None:
    both = Beside()
    for each in messages:
        both.take(each)


@pytest.mark.parametrize("smart", ["0", "1"])
@pytest.mark.parametrize("venue", ["", "NSDQ"])
def test_messages_as_tws_sends_them_take_the_hot_path(venue: str, smart: str) -> None:
    both = Beside()
    for at in range(ROWS):
        for side in (0, 1):
            assert both.take(message(13, 1, REQUEST, at, venue, 0, side, 10.25 + at, 300, smart))
            assert both.take(message(13, 1, REQUEST, at // 2, venue, 1, side, 10.5 + at, "1E2", smart))
            assert both.take(message(12, 1, REQUEST, at, 1, side, 10.75 + at, 7.5))
    assert both.take(message(12, 1, REQUEST, 0, 0, 0, 10.125, 1)), "a full side loses its last row"
    assert both.take(message(12, 1, REQUEST, 0, 2, 0, 0, 0))


@pytest.mark.parametrize("number", ["", "0", "nan", "1.7976931348623157E308", "1_0", "x"])
def test_delete_takes_its_level_away_whatever_its_price_and_size_are(number: str) -> None:
    both = Beside()
    both.take(message(13, 1, REQUEST, 0, "NSDQ", 0, 1, 1.5, 100, 0))
    both.take(message(13, 1, REQUEST, 0, "", 2, 1, number, number, 0))
    assert len(both.stored) == 2
    assert both.reference.is_empty


@pytest.mark.parametrize(
    "number", ["1.7976931348623157E308", "170141183460469231731687303715884105727", "9223372036854775807.0"]
)
def test_number_that_stands_for_no_value_is_never_stored(number: str) -> None:
    both = Beside()
    both.take(message(13, 1, REQUEST, 0, "NSDQ", 0, 1, 1.5, number, 0))
    both.take(message(12, 1, REQUEST, 0, 0, 1, number, 100))
    assert both.stored == []


def test_name_in_latin_1_takes_the_hot_path_and_is_stored_with_a_replacement() -> None:
    both = Beside()
    assert both.take(b"13\x001\0%d\x000\0B_\xc9\x000\x001\x001.5\x00100\x000\0" % REQUEST)
    assert both.reference.bids == ((1.5, 100.0, "B_\ufffd"),)


def test_row_of_a_request_that_is_over_is_declined() -> None:
    both = Beside()
    row = message(12, 1, REQUEST, 0, 0, 1, 1.5, 100)
    assert both.hot_path.take(row, 1000) == REQUEST
    both.books.retire(REQUEST)
    assert both.hot_path.take(row, 1000) == 0
    assert both.books.rows()["SPY"] == len(both.stored) == 1


def test_memory_of_texts_is_bounded() -> None:
    texts = NumberTexts(b"[", b",")
    for number in range(3 * TEXTS_REMEMBERED):
        assert texts[b"%d" % number] == b"[%d.0," % number
    assert len(texts) <= TEXTS_REMEMBERED
