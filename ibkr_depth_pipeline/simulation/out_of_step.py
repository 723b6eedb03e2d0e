"""Lines that are out of step: what a client is sent in place of the rows that lead to the gateway's book. Pure.

The gateway's own book goes on, sound; only what one subscription is sent differs (reference/ibkr-depth.md, "Learned
since"). A `Distortion` belongs to one subscription and ends with it, or with a reset of its book (317).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

from ibkr_depth_pipeline.simulation.rows import (
    ASK,
    BID,
    DELETE,
    INSERT,
    UPDATE,
    Book,
    DepthRow,
    Level,
    RowStyle,
    apply_rows,
    rows_of_change,
)

OPERATIONS = {"insert": INSERT, "update": UPDATE, "delete": DELETE}
SIDES = {"ask": ASK, "bid": BID}


@dataclass(frozen=True, slots=True)
class SpoiledRow:
    """A row of the book that is sent with fields that cannot be read: `how` is a key of UNREADABLE_ROWS."""

    row: DepthRow
    how: str


SentRow = DepthRow | SpoiledRow


class Distortion(Protocol):
    """What one subscription is sent. Books are clipped to the subscription's rows; each call follows the one before."""

    @property
    def over(self) -> bool:
        """Whether it has done what it does, so that sound rows follow from now on."""

    def begin(self, book: Book) -> Sequence[SentRow]:
        """The rows that put a client that holds `book` out of step; none if that waits for a change of the book."""

    def rows(self, sound: Sequence[DepthRow], before: Book, after: Book, style: RowStyle) -> Sequence[SentRow]:
        """The rows to send where a sound line sends `sound`, which leads from `before` to `after`."""

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

    def rows(self, sound: Sequence[DepthRow], before: Book, after: Book, style: RowStyle) -> Sequence[SentRow]:
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
        return [DepthRow(position, INSERT, self._side, *level) for position, level in enumerate(again)]


class ExtraRows:
    """Rows that are none of the book's, once; sound rows follow."""

    over = True

    def __init__(self, extra: Callable[[Book], Sequence[DepthRow]]) -> None:
        self._extra = extra

    def begin(self, book: Book) -> Sequence[SentRow]:
        return self._extra(book)

    def rows(self, sound: Sequence[DepthRow], before: Book, after: Book, style: RowStyle) -> Sequence[SentRow]:
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

    def rows(self, sound: Sequence[DepthRow], before: Book, after: Book, style: RowStyle) -> Sequence[SentRow]:
        best = [(side, _side(self._shown, side)[0]) for side in (BID, ASK) if _side(self._shown, side)]
        return [DepthRow(0, UPDATE, side, *level) for (side, level), _ in zip(cycle(best), sound, strict=False)]

    def end(self, book: Book) -> Sequence[SentRow]:
        return rows_of_change(self._shown, book)


class ReplacedRow:
    """The first row of one of the operations that matters is left out, or sent as what `replace` makes of it.

    Sound rows follow. A row matters if a client without it holds another book than the gateway's. A change that has
    no such row is worded with inserts and deletes if that gives it one.
    """

    def __init__(self, operations: Sequence[int], replace: Callable[[DepthRow], SpoiledRow] | None = None) -> None:
        self.over = False
        self._operations = operations
        self._replace = replace

    def begin(self, book: Book) -> Sequence[SentRow]:
        return ()

    def rows(self, sound: Sequence[DepthRow], before: Book, after: Book, style: RowStyle) -> Sequence[SentRow]:
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
    return Book((Level(price, bid.size, bid.market_maker), *book.bids[1:]), book.asks)


def unsorted(book: Book) -> Book:
    """The book with the second and third level of each side exchanged."""
    return Book(*((*side[:1], *reversed(side[1:3]), *side[3:]) for side in book))


def one_delete(book: Book, side: int) -> Sequence[DepthRow]:
    """A delete of the best level, which the book still has; nothing on an empty side."""
    return [DepthRow(0, DELETE, side, 0.0, 0.0, level.market_maker) for level in _side(book, side)[:1]]


def updates_past_end(book: Book, side: int, count: int) -> Sequence[DepthRow]:
    """So many updates of the row after the last."""
    levels = _side(book, side)
    last = levels[-1] if levels else Level(1.0, 100.0)
    return [DepthRow(len(levels), UPDATE, side, last.price, last.size + 1 + i, last.market_maker) for i in range(count)]


def _side(book: Book, side: int) -> tuple[Level, ...]:
    return book.bids if side == BID else book.asks


def _leads_elsewhere(before: Book, rows: Sequence[DepthRow], after: Book) -> bool:
    """Whether a client that keeps as many rows as `after` holds another book at the end."""
    depth = max(len(after.bids), len(after.asks))
    book = before
    try:
        for row in rows:
            book = apply_rows(book, [row]).clipped(depth)
    except IndexError:
        return True
    return book != after


def _with_side(book: Book, side: int, levels: tuple[Level, ...]) -> Book:
    return Book(levels, book.asks) if side == BID else Book(book.bids, levels)


def _doubled(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    half = math.ceil(len(levels) / 2)
    return levels[:half] + levels[: len(levels) - half]
