"""Books as a gateway sees them, and the depth rows that lead from one to the next. Pure.

`rows_of_change(previous, following)` is exact: a client that applies the rows in order to `previous` holds
`following`. It is what the synthetic flow, a replay and a test all use.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from ibkr_depth_pipeline.simulation.codec import size_text

ASK, BID = 0, 1
INSERT, UPDATE, DELETE = 0, 1, 2
REFERENCE_DEPTH = 10
"""Rates are counted in the rows of a subscription of this many rows a side."""


class BookLevel(NamedTuple):
    """One row of one side: price in the contract's currency, size in shares (or units of base currency)."""

    price: float
    size: float
    market_maker: str = ""


class Book(NamedTuple):
    """Both sides, best first."""

    bids: tuple[BookLevel, ...] = ()
    asks: tuple[BookLevel, ...] = ()

    def clipped(self, depth: int) -> "Book":
        """The best `depth` levels of each side: what a subscription of that many rows may show."""
        return Book(self.bids[:depth], self.asks[:depth])


class WireRow(NamedTuple):
    """One row message, in the wire's own vocabulary: operation 0 insert, 1 update, 2 delete; side 0 ask, 1 bid."""

    position: int
    operation: int
    side: int
    price: float
    size: float
    market_maker: str = ""

    def texts(self) -> dict[str, str]:
        """The fields by name, as they are sent."""
        return {**{name: str(value) for name, value in self._asdict().items()}, "size": size_text(self.size)}


class RowStyle(Enum):
    """How a venue words a change of its book (docs/ibkr-market-depth.md, "Rows")."""

    SHIFT = "shift"
    """Inserts and deletes that shift the rows below; a full side deletes its last row before it inserts."""
    CASCADE = "cascade"
    """Updates in place from the top down: a new best price is row 0 := new, 1 := old 0, 2 := old 1, ..."""
    OVERWRITE = "overwrite"
    """In place from the bottom up; a row of another price or name comes as an insert, which replaces what stands there.

    From the top down a client whose inserts shift would end at the same book.
    """


def snapshot_rows(book: Book) -> list[WireRow]:
    """The appending inserts that open a subscription: positions ascending, sides interleaved."""
    rows = []
    for position in range(max(len(book.bids), len(book.asks))):
        for side, levels in ((BID, book.bids), (ASK, book.asks)):
            if position < len(levels):
                rows.append(WireRow(position, INSERT, side, *levels[position]))
    return rows


def rows_of_change(previous: Book, following: Book, style: RowStyle = RowStyle.SHIFT) -> list[WireRow]:
    """The rows that turn `previous` into `following`, bids before asks; no rows if nothing changed.

    Both books must already be clipped to what the subscription shows. No side ever holds more rows on the way
    than the longer of its two ends.
    """
    word = _WORDINGS[style]
    rows: list[WireRow] = []
    if previous.bids != following.bids:
        rows += word(BID, previous.bids, following.bids)
    if previous.asks != following.asks:
        rows += word(ASK, previous.asks, following.asks)
    return rows


def _shifts(side: int, old: Sequence[BookLevel], new: Sequence[BookLevel]) -> list[WireRow]:
    rows: list[WireRow] = []
    levels = list(old)
    wanted = {_identity(level) for level in new}
    for position in range(len(old) - 1, -1, -1):
        if _identity(old[position]) not in wanted:
            rows.append(WireRow(position, DELETE, side, 0.0, 0.0, old[position].market_maker))
            del levels[position]
    for position, level in enumerate(new):
        if position >= len(levels) or _identity(levels[position]) != _identity(level):
            rows.append(WireRow(position, INSERT, side, *level))
            levels.insert(position, level)
        elif levels[position] != level:
            rows.append(WireRow(position, UPDATE, side, *level))
            levels[position] = level
    # Only a side whose levels repeat or change places ends elsewhere; updates in place are exact for any.
    return rows if levels == list(new) else _cascades(side, old, new)


def _identity(level: BookLevel) -> tuple[float, str]:
    """What makes a level the same as before: several market makers may have one price."""
    return level.price, level.market_maker


def _cascades(side: int, old: Sequence[BookLevel], new: Sequence[BookLevel]) -> list[WireRow]:
    rows = [
        WireRow(position, UPDATE, side, *level)
        for position, (before, level) in enumerate(zip(old, new, strict=False))
        if before != level
    ]
    rows += [WireRow(position, INSERT, side, *new[position]) for position in range(len(old), len(new))]
    rows += [
        WireRow(position, DELETE, side, 0.0, 0.0, old[position].market_maker)
        for position in range(len(old) - 1, len(new) - 1, -1)
    ]
    return rows


def apply_rows(book: Book, rows: Iterable[WireRow]) -> Book:
    """The book after the rows, by the plain list model. Raises IndexError for a row that does not fit the book."""
    sides = {BID: list(book.bids), ASK: list(book.asks)}
    for row in rows:
        levels = sides[row.side]
        level = BookLevel(row.price, row.size, row.market_maker)
        if not 0 <= row.position <= len(levels) - (row.operation != INSERT):
            raise IndexError(f"{row} does not fit a side of {len(levels)} rows")
        if row.operation == INSERT:
            levels.insert(row.position, level)
        elif row.operation == UPDATE:
            levels[row.position] = level
        else:
            del levels[row.position]
    return Book(tuple(sides[BID]), tuple(sides[ASK]))


def _overwrites(side: int, old: Sequence[BookLevel], new: Sequence[BookLevel]) -> list[WireRow]:
    rows = _cascades(side, old, new)
    in_place = [row for row in reversed(rows) if row.operation == UPDATE]
    replaced = [
        row if _identity(old[row.position]) == _identity(new[row.position]) else row._replace(operation=INSERT)
        for row in in_place
    ]
    return replaced + rows[len(replaced) :]


_WORDINGS = {RowStyle.SHIFT: _shifts, RowStyle.CASCADE: _cascades, RowStyle.OVERWRITE: _overwrites}


class Change:
    """One step of a book: the book before, the book after, and the rows between, worded once per requested depth."""

    __slots__ = ("_recorded", "_worded", "book", "error", "previous", "style")

    def __init__(
        self,
        previous: Book,
        book: Book,
        style: RowStyle,
        recorded: tuple[WireRow, ...] | None = None,
        error: int | None = None,
    ) -> None:
        """`recorded` rows, if given, are sent as they are instead of being worked out from the two books.

        With an `error` (316, 317) it is that which leads from the one book to the other, and no row.
        """
        self.previous = previous
        self.book = book
        self.style = style
        self.error = error
        self._recorded = recorded
        self._worded: dict[int, list[WireRow]] = {}

    def rows(self, depth: int) -> list[WireRow]:
        """The rows for a subscription of `depth` rows a side that shows `previous` now."""
        rows = self._worded.get(depth)
        if rows is None:
            rows = self._worded[depth] = self._word(depth)
        return rows

    def _word(self, depth: int) -> list[WireRow]:
        if self.error is not None:
            return []
        before, after = self.previous.clipped(depth), self.book.clipped(depth)
        if self._recorded is None:
            return rows_of_change(before, after, self.style)
        rows = [row for row in self._recorded if row.position < depth]
        return rows + _remainder(before, rows, after, depth, self.style)


def _remainder(before: Book, rows: Iterable[WireRow], after: Book, depth: int, style: RowStyle) -> list[WireRow]:
    """What recorded rows leave undone for a client that holds `depth` rows a side: they may be of another depth.

    Nothing if they do not fit the book: then they are the recording's own affair.
    """
    book = before
    try:
        for row in rows:
            book = apply_rows(book, [row]).clipped(depth)
    except IndexError:
        return []
    return rows_of_change(book, after, style)


@dataclass(frozen=True, slots=True)
class SourceStep:
    """What comes next: so many seconds after the step before, these changes, in one write."""

    wait: float
    changes: Sequence[Change]


class BookSource(Protocol):
    """A book and what becomes of it. A step is taken exactly once."""

    @property
    def book(self) -> Book:
        """The book before the first step."""

    @property
    def lossless(self) -> bool:
        """Whether every change must reach every follower, so that a slow one holds the source up."""

    @property
    def over(self) -> bool:
        """Whether there will never be another step."""

    @property
    def quiet(self) -> bool:
        """Whether nothing is to happen for now: a step that was taken waits."""

    def next_step(self) -> SourceStep | None:
        """The next step, or None if none is due for now."""

    def next_changes(self) -> Sequence[Change]:
        """The changes of the next step, at any pace; none when the source is over."""

    def pass_time(self, pending: SourceStep, seconds: float) -> SourceStep:
        """The step that is next if nobody watched from when `pending` was due until `seconds` later.

        Its wait counts from then. A source that stands still unwatched returns `pending`.
        """
