"""Rows and frames that no sound gateway sends: lines that are out of step, malformed rows, bad frames. Pure.

A gateway's own book goes on, sound; only what one subscription is sent differs (docs/ibkr-market-depth.md). A
`Distortion` belongs to one subscription and ends with it, or with a reset of its book (317).
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

from ibkr_depth_pipeline.simulation.codec import frame, message
from ibkr_depth_pipeline.simulation.rows import (
    ASK,
    BID,
    DELETE,
    INSERT,
    UPDATE,
    Book,
    BookLevel,
    RowStyle,
    WireRow,
    apply_rows,
    rows_of_change,
)

OPERATIONS = {"insert": INSERT, "update": UPDATE, "delete": DELETE}
SIDES = {"ask": ASK, "bid": BID}


@dataclass(frozen=True, slots=True)
class SpoiledRow:
    """A row of the book that is sent with fields that cannot be read: `how` is a key of UNREADABLE_ROWS."""

    row: WireRow
    how: str


SentRow = WireRow | SpoiledRow


class Distortion(Protocol):
    """What one subscription is sent. Books are clipped to the subscription's rows; each call follows the one before."""

    @property
    def over(self) -> bool:
        """Whether it has done what it does, so that sound rows follow from now on."""

    def begin(self, book: Book) -> Sequence[SentRow]:
        """The rows that put a client that holds `book` out of step; none if that waits for a change of the book."""

    def rows(self, sound: Sequence[WireRow], before: Book, after: Book, style: RowStyle) -> Sequence[SentRow]:
        """The rows to send in place of `sound`, which leads from `before` to `after`."""

    def end(self, book: Book) -> Sequence[SentRow]:
        """The rows that lead back to `book`."""


class AlteredBook:
    """The client is led along another book than the gateway's: `alter` of it."""

    over = False

    def __init__(self, alter: Callable[[Book], Book]) -> None:
        self._alter = alter
        self._shown = Book()

    def begin(self, book: Book) -> Sequence[SentRow]:
        self._shown = self._alter(book)
        return rows_of_change(book, self._shown)

    def rows(self, sound: Sequence[WireRow], before: Book, after: Book, style: RowStyle) -> Sequence[SentRow]:
        shown, self._shown = self._shown, self._alter(after)
        return rows_of_change(shown, self._shown, style)

    def end(self, book: Book) -> Sequence[SentRow]:
        return rows_of_change(self._shown, book)


class DoubledSide(AlteredBook):
    """One side is sent twice: its best half stands above itself."""

    def __init__(self, side: int) -> None:
        super().__init__(lambda book: _with_side(book, side, _doubled(_side(book, side))))
        self._side = side

    def begin(self, book: Book) -> Sequence[SentRow]:
        super().begin(book)
        levels = _side(book, self._side)
        again = levels[: math.ceil(len(levels) / 2)]
        return [WireRow(position, INSERT, self._side, *level) for position, level in enumerate(again)]


class ExtraRows:
    """Rows that are none of the book's, once; sound rows follow."""

    over = True

    def __init__(self, extra: Callable[[Book], Sequence[WireRow]]) -> None:
        self._extra = extra

    def begin(self, book: Book) -> Sequence[SentRow]:
        return self._extra(book)

    def rows(self, sound: Sequence[WireRow], before: Book, after: Book, style: RowStyle) -> Sequence[SentRow]:
        return sound

    def end(self, book: Book) -> Sequence[SentRow]:
        return ()


class StandingBook:
    """The client's book stands still: in place of each change comes an update that changes nothing."""

    over = False

    def __init__(self) -> None:
        self._shown = Book()

    def begin(self, book: Book) -> Sequence[SentRow]:
        self._shown = book
        return ()

    def rows(self, sound: Sequence[WireRow], before: Book, after: Book, style: RowStyle) -> Sequence[SentRow]:
        best = [(side, _side(self._shown, side)[0]) for side in (BID, ASK) if _side(self._shown, side)]
        return [WireRow(0, UPDATE, side, *level) for (side, level), _ in zip(cycle(best), sound, strict=False)]

    def end(self, book: Book) -> Sequence[SentRow]:
        return rows_of_change(self._shown, book)


class ReplacedRow:
    """The first row of one of the operations that matters is left out, or sent as what `replace` makes of it.

    Sound rows follow. A row matters if a client without it holds another book than the gateway's. A change that has
    no such row is worded with inserts and deletes if that gives it one.
    """

    def __init__(self, operations: Sequence[int], replace: Callable[[WireRow], SpoiledRow] | None = None) -> None:
        self.over = False
        self._operations = operations
        self._replace = replace

    def begin(self, book: Book) -> Sequence[SentRow]:
        return ()

    def rows(self, sound: Sequence[WireRow], before: Book, after: Book, style: RowStyle) -> Sequence[SentRow]:
        for worded in (sound, rows_of_change(before, after, RowStyle.SHIFT)):
            for index, row in enumerate(worded):
                rest = [*worded[:index], *worded[index + 1 :]]
                if row.operation in self._operations and _leads_elsewhere(before, rest, after):
                    self.over = True
                    instead = [self._replace(row)] if self._replace is not None else []
                    return [*worded[:index], *instead, *worded[index + 1 :]]
        return sound

    def end(self, book: Book) -> Sequence[SentRow]:
        return ()


def crossed(book: Book) -> Book:
    """The book with its best bid above its best ask."""
    if not book.bids or not book.asks:
        return book
    bid, ask = book.bids[0], book.asks[0]
    price = round(2 * ask.price - bid.price, 6)
    return Book((BookLevel(price, bid.size, bid.market_maker), *book.bids[1:]), book.asks)


def unsorted(book: Book) -> Book:
    """The book with two neighbours of different prices exchanged on each side, below the best level."""
    return Book(*map(_unsorted, book))


def _unsorted(side: tuple[BookLevel, ...]) -> tuple[BookLevel, ...]:
    at = next((at for at in range(1, len(side) - 1) if side[at].price != side[at + 1].price), len(side))
    return (*side[:at], *reversed(side[at : at + 2]), *side[at + 2 :])


def one_delete(book: Book, side: int) -> Sequence[WireRow]:
    """A delete of the best level, which the book still has; nothing on an empty side."""
    return [WireRow(0, DELETE, side, 0.0, 0.0, level.market_maker) for level in _side(book, side)[:1]]


def updates_past_end(book: Book, side: int, count: int) -> Sequence[WireRow]:
    """`count` updates of the row after the last."""
    levels = _side(book, side)
    last = levels[-1] if levels else BookLevel(1.0, 100.0)
    return [WireRow(len(levels), UPDATE, side, last.price, last.size + 1 + i, last.market_maker) for i in range(count)]


def _side(book: Book, side: int) -> tuple[BookLevel, ...]:
    return book.bids if side == BID else book.asks


def _leads_elsewhere(before: Book, rows: Sequence[WireRow], after: Book) -> bool:
    """Whether a client that keeps as many rows as `after` holds another book at the end."""
    depth = max(len(after.bids), len(after.asks))
    book = before
    try:
        for row in rows:
            book = apply_rows(book, [row]).clipped(depth)
    except IndexError:
        return True
    return book != after


def _with_side(book: Book, side: int, levels: tuple[BookLevel, ...]) -> Book:
    return Book(levels, book.asks) if side == BID else Book(book.bids, levels)


def _doubled(levels: tuple[BookLevel, ...]) -> tuple[BookLevel, ...]:
    half = math.ceil(len(levels) / 2)
    return levels[:half] + levels[: len(levels) - half]


# ---- rows and frames that must not break a client


RawRow = Mapping[str, str]
"""A depth row as texts: position, operation, side, price, size, market_maker."""

_SOUND: dict[str, str] = {
    "position": "0",
    "operation": "1",
    "side": "1",
    "price": "1.0",
    "size": "100",
    "market_maker": "BAD",
}


def raw_row(**fields: object) -> dict[str, str]:
    """A sound update of the best bid with some fields replaced. Raises TypeError for a field that no row has."""
    unknown = fields.keys() - _SOUND.keys()
    if unknown:
        raise TypeError(f"a depth row has no {', '.join(sorted(unknown))}; it has {', '.join(_SOUND)}")
    return {**_SOUND, **{name: str(value) for name, value in fields.items()}}


MALFORMED_ROWS: Mapping[str, RawRow] = {
    "insert_past_end": raw_row(position=500, operation=0),
    "update_past_end": raw_row(position=500),
    "delete_past_end": raw_row(position=500, operation=2, price=0, size=0),
    "negative_position": raw_row(position=-1),
    "negative_position_insert": raw_row(position=-1, operation=0),
    "negative_position_delete": raw_row(position=-1, operation=2),
    "huge_position": raw_row(position=2147483647),
    "position_not_a_number": raw_row(position="x"),
    "unknown_operation": raw_row(operation=3),
    "negative_operation": raw_row(operation=-1),
    "unknown_side": raw_row(side=2),
    "negative_side": raw_row(side=-1),
    "price_nan": raw_row(price="nan"),
    "price_infinite": raw_row(price="inf"),
    "price_minus_infinite": raw_row(price="-inf"),
    "price_overflow": raw_row(price="1e999"),
    "price_not_a_number": raw_row(price="abc"),
    "size_nan": raw_row(size="nan"),
    "size_infinite": raw_row(size="inf"),
    "size_not_a_number": raw_row(size="abc"),
}
"""None of these may change a book. A book of fewer than 500 rows a side is taken for granted."""

_NO_VALUE = {
    "decimal": "170141183460469231731687303715884105727",
    "long": "9223372036854775807",
    "lowest_long": "-9223372036854775808",
    "double": "1.7976931348623157E308",
}
"""The protocol's words for "no value"; 2147483647 may be a size."""

_NUMBERS = ("position", "operation", "side", "price", "size")

UNREADABLE_ROWS: Mapping[str, RawRow] = {
    "latin1_name": {"market_maker": "M\xdcLL"},
    "bad_size": {"size": "abc"},
    "bad_price": {"price": "abc"},
    "bad_position": {"position": "x"},
    "empty_size": {"size": ""},
    "empty_price": {"price": ""},
    **{f"unset_{name}_{kind}": {name: text} for name in _NUMBERS for kind, text in _NO_VALUE.items()},
    "unset_size": {"size": _NO_VALUE["decimal"]},
    "unset_price": {"price": _NO_VALUE["double"]},
    "unset_position": {"position": _NO_VALUE["decimal"]},
    "unset_operation": {"operation": _NO_VALUE["long"]},
    "unset_side": {"side": _NO_VALUE["long"]},
}
"""Fields that spoil a row of the book, by name. `latin1_name` is sent in Latin-1 and is to be read all the same."""

ROW_KINDS: Mapping[str, RawRow] = {
    **MALFORMED_ROWS,
    **{how: raw_row(**fields) for how, fields in UNREADABLE_ROWS.items() if how != "latin1_name"},
}

_BROKEN_TEXT = b"13\x001\0%d\x00400\0\xff\xfe\xfd\x001\x001\x001.0\x00100\x000\0"
_BROKEN_NUMBER = b"12\x001\0%d\x000\x001\x001\0\xc3\x28\x00100\0"
_UNTERMINATED = b"12\x001\0%d\x000\x001\x001\x001.0\x00100"

BAD_FRAMES: Mapping[str, Callable[[int], bytes]] = {
    "absurd_length": lambda request_id: struct.pack(">I", 0x7FFFFFFF),
    "broken_utf8": lambda request_id: frame(_BROKEN_TEXT % request_id),
    "broken_utf8_number": lambda request_id: frame(_BROKEN_NUMBER % request_id),
    "too_few_fields": lambda request_id: message(12, 1, request_id, 0),
    "no_fields": lambda request_id: frame(b""),
    "no_message_id": lambda request_id: message("", 1, request_id),
    "message_id_not_a_number": lambda request_id: message("depth", 1, request_id),
    "unknown_message_id": lambda request_id: message(9999, 1, request_id),
    "unterminated": lambda request_id: frame(_UNTERMINATED % request_id),
}
"""Frames by name, made for a live request id. `absurd_length` breaks the stream for good: it costs the connection."""
