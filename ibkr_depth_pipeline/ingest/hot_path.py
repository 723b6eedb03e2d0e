"""The hot path: a depth message in, its book's two sides out, as the texts that are stored. Pure.

Every row takes this way, so a book is kept as texts: a row changes the text of one level, and its side is joined again;
the other side's text stands. Prices, sizes and venues come again and again, so their texts are remembered.

Only what is spelled as TWS spells it is taken here. Anything else (a number that is none, a row past the end, a request
that was cancelled) is declined, with nothing changed, and goes the careful way: gateway/wire.py reads it and
`LiveBook.apply` judges it. book/order_book.py defines what a row does to a book, and schema/encoding.py
what is stored of it; the tests compare this path with both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol

from ibkr_depth_pipeline.gateway.wire import NO_VALUE
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Levels, RowFault, Side
from ibkr_depth_pipeline.schema.encoding import EMPTY_SIDE, encode_side, json_text, level_text, read_levels, venue_field
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline.schema.rows import RowOperation

Store = Callable[[int, int, bytes, bytes, bytes], None]
"""Takes a snapshot: unix ms, seq, and venue, bids and asks as texts (sink/backlog.py: SymbolQueue.store)."""

TEXTS_REMEMBERED = 4_000  # of each kind, less than 1 MB: prices of a whole day would be many, those of now are few

_POSITIONS = {b"%d" % position: position for position in range(100)}
_SIDES = {b"0": False, b"1": True}  # whether it is the bid
_SMART = (b"0", b"1")


class NumberTexts(dict[bytes, bytes]):
    """A number as TWS writes it -> its JSON text between `before` and `after`. Raises ValueError for any other text."""

    def __init__(self, before: bytes, after: bytes) -> None:
        super().__init__()
        self._before, self._after = before, after

    def __missing__(self, text: bytes) -> bytes:
        number = float(text)
        if not isfinite(number) or number in NO_VALUE or b"_" in text:  # Python reads 1_0 as a number
            raise ValueError(text)
        return _remember(self, text, self._before + json_text(number) + self._after)


class VenueTexts(dict[bytes, bytes]):
    """A row's market maker or venue -> the end of its level's text. Bytes that are no UTF-8 are replaced."""

    def __missing__(self, name: bytes) -> bytes:
        return _remember(self, name, json_text(name.decode(errors="replace")) + b"]")


def _remember(texts: dict[bytes, bytes], key: bytes, text: bytes) -> bytes:
    if len(texts) >= TEXTS_REMEMBERED:
        texts.clear()
    texts[key] = text
    return text


# ---- operations on a side: return whether the row was carried out; if not, nothing is changed


def _insert(levels: list[bytes], position: int, text: bytes, rows: int) -> bool:
    if position > len(levels) or position >= rows:
        return False
    levels.insert(position, text)
    if len(levels) > rows:
        levels.pop()
    return True


def _update(levels: list[bytes], position: int, text: bytes, rows: int) -> bool:
    if position < len(levels):
        levels[position] = text
        return True
    return _insert(levels, position, text, rows)  # at the first empty row it appends


def _delete(levels: list[bytes], position: int, _text: bytes, _rows: int) -> bool:
    if position >= len(levels):
        return False
    del levels[position]
    return True


_OPERATIONS = {b"0": _insert, b"1": _update, b"2": _delete}
_MEANT = {DepthOperation.INSERT: _insert, DepthOperation.UPDATE: _update, DepthOperation.DELETE: _delete}


_KEPT = {_insert: RowOperation.INSERT, _update: RowOperation.UPDATE, _delete: RowOperation.DELETE}


@dataclass(slots=True)
class Numbering:
    """The time and number of a symbol's newest snapshot."""

    ts: int
    seq: int

    def next(self, now_ms: int) -> None:
        """Count one more snapshot. A clock that was set back must not make ids fall."""
        self.seq += 1
        if now_ms > self.ts:
            self.ts = now_ms


class LiveBook:
    """The book of one subscription. rows is how many rows a side were requested, levels_shown how many are stored.

    first_row_ms and last_row_ms are unix ms as stored, 0 before the first row; first_came_ms and last_came_ms by the
    clock as it is now (`clock_stepped`), so that their difference is a time. `applied` counts the rows. complete_ms is
    the `ts` from which on the book holds all that the gateway gives; 0 while the opening image is_filling it.
    subscription is the number of the interval in which it began to fill.
    """

    def __init__(
        self, request: int, symbol: str, venue: str, numbering: Numbering, store: Store, rows: int, levels_shown: int
    ) -> None:
        self.request = request
        self.symbol = symbol
        self.venue = venue
        self.venue_text = json_text(venue) + b"]"  # of rows that name none
        self.first_row_ms = self.last_row_ms = self.first_came_ms = self.last_came_ms = self.applied = 0
        self.subscription = 0
        self.is_filling = True
        self.complete_ms = 0
        self._held = [0, 0]
        self._numbering = numbering
        self._store = store
        self._rows = rows
        self._levels_shown = levels_shown
        self._venue_field = venue_field(venue)
        self._bids: list[bytes] = []
        self._asks: list[bytes] = []
        self._bids_text = self._asks_text = EMPTY_SIDE

    def take(self, change: Callable[..., bool], is_bid: bool, position: int, text: bytes, now_ms: int) -> bool:
        """Carry one row out and store the book. False, and nothing done, if the row does not fit the book."""
        levels = self._bids if is_bid else self._asks
        if not change(levels, position, text, self._rows):
            return False
        if is_bid:
            self._bids_text = encode_side(levels, self._levels_shown)
        else:
            self._asks_text = encode_side(levels, self._levels_shown)
        self.last_row_ms = self._publish(now_ms)
        if self.is_filling:
            self._fill(is_bid, position, now_ms)
        self.last_came_ms = now_ms
        self.applied += 1
        return True

    def _fill(self, is_bid: bool, position: int, now_ms: int) -> None:
        """Judge a row of the opening image: it appends, until both sides are full or a row changes what stands."""
        if not self.applied:
            self.first_row_ms, self.first_came_ms = self._numbering.ts, now_ms
        before, held = self._held[is_bid], len(self._bids if is_bid else self._asks)
        self._held[is_bid] = held
        appended = held > before and position == before
        if not appended or len(self._bids) == len(self._asks) == self._rows:
            self.is_filling, self.complete_ms = False, self._numbering.ts

    def filled(self) -> None:
        """The opening image is over: no row came for a while."""
        if self.is_filling and self.applied:
            self.is_filling, self.complete_ms = False, self._numbering.ts

    def apply(self, row: DepthRow, now_ms: int) -> RowFault | None:
        """Carry out a row that the hot path declined, and store the book. Returns its fault; None: carried out."""
        operation, side, position, price, size, venue = row
        if position < 0:
            return RowFault.NEGATIVE_POSITION
        if not (isfinite(price) and isfinite(size)):
            return RowFault.NOT_FINITE
        if position >= self._rows:
            return RowFault.PAST_REQUESTED
        text = level_text((price, size, venue or self.venue))
        done = self.take(_MEANT[operation], side is Side.BID, position, text, now_ms)
        return None if done else RowFault.PAST_END

    def reset(self, now_ms: int) -> None:
        """Empty both sides (error 317), and store that."""
        self._bids.clear()
        self._asks.clear()
        self._bids_text = self._asks_text = EMPTY_SIDE
        self.is_filling, self.complete_ms, self._held = True, 0, [0, 0]
        self._publish(now_ms)

    def _publish(self, now_ms: int) -> int:
        """Store the book under the next number. Returns the time that it is stored with: it never falls."""
        numbering = self._numbering
        numbering.next(now_ms)
        self._store(numbering.ts, numbering.seq, self._venue_field, self._bids_text, self._asks_text)
        return numbering.ts

    def clock_stepped(self, step_ms: int) -> None:
        """Move the times of rows along with a clock that was set by so many ms."""
        self.first_came_ms += step_ms
        self.last_came_ms += step_ms

    @property
    def newest(self) -> StreamId:
        """The time and number of the symbol's newest snapshot."""
        return StreamId(self._numbering.ts, self._numbering.seq)

    @property
    def is_empty(self) -> bool:
        """Whether neither side holds a row."""
        return not self._bids and not self._asks

    def sides(self) -> tuple[Levels, Levels]:
        """Bids and asks, best first."""
        return read_levels(self._bids), read_levels(self._asks)


class RowStore(Protocol):
    """Takes each row that was applied to a symbol's book (sink/row_queue.py: RowQueue). It never waits."""

    def row(
        self, ts: int, seq: int, subscription: int, operation: RowOperation, place: tuple[bool, int], text: bytes, /
    ) -> None: ...

    def reset(self, ts: int, seq: int, subscription: int, /) -> None: ...


class RowKeepingBook(LiveBook):
    """A book whose rows are kept beside the snapshots. Made of a LiveBook's arguments behind the row_store."""

    def __init__(self, row_store: RowStore, *book: Any) -> None:
        super().__init__(*book)
        self._row_store = row_store

    def take(self, change: Callable[..., bool], is_bid: bool, position: int, text: bytes, now_ms: int) -> bool:
        if not super().take(change, is_bid, position, text, now_ms):
            return False
        ts, seq = self.newest
        self._row_store.row(ts, seq, self.subscription, _KEPT[change], (is_bid, position), text)
        return True

    def reset(self, now_ms: int) -> None:
        super().reset(now_ms)
        self._row_store.reset(*self.newest, self.subscription)


class HotPath:
    """The books of all live requests, by the text of their request's id."""

    def __init__(self) -> None:
        self._books: dict[bytes, LiveBook] = {}
        self._prices = NumberTexts(b"[", b",")
        self._sizes = NumberTexts(b"", b",")
        self._venues = VenueTexts()

    def open(self, book: LiveBook) -> None:
        """Rows of the book's request reach it from now on."""
        self._books[b"%d" % book.request] = book

    def retire(self, request: int) -> None:
        """Rows of this request are declined from now on."""
        self._books.pop(b"%d" % request, None)

    def take(self, message: bytes, now_ms: int) -> int:
        """Carry out the row in a depth message and store its book. Returns its request; 0: it is declined.

        The fields are (gateway/wire.py): id, version, request, position, in a message 13 the market maker,
        operation, side, price, size, in a message 13 whether it is a smart depth row; and nothing after the last zero.
        """
        fields = message.split(b"\0")
        try:
            if fields[0] == b"13":
                _, version, request, position, venue, operation, side, price, size, smart, end = fields
            else:
                _, version, request, position, operation, side, price, size, end = fields
                venue, smart = b"", b"0"
            book = self._books[request]
            text = self._prices[price] + self._sizes[size] + (self._venues[venue] if venue else book.venue_text)
            change, is_bid, at = _OPERATIONS[operation], _SIDES[side], _POSITIONS[position]
        except (KeyError, ValueError):
            return 0
        if end or version != b"1" or smart not in _SMART:
            return 0
        return book.request if book.take(change, is_bid, at, text, now_ms) else 0
