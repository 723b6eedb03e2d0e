"""Whether live books are in step with the gateway's, judged from a look now and then. Pure; `now` is monotonic seconds.

A book that lost a row, got one twice or had a side sent anew stays wrong without a word. It shows sooner or later: its
prices are out of order, a level stands twice, it is crossed. All of that is normal for a moment, in the middle of a
price move; so only what every look finds for a while counts, and only if rows came meanwhile (or for longer, if not).

A row that had to be dropped is judged at once: the loss of an insert or a delete, or of what may have been one, shifts
every row below it. The loss of
an update leaves one level wrong until its next update, so updates count only when they are lost again and again, as do
rows past the end: single ones are harmless (IBKR's own Java sample passes over them).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ibkr_depth_pipeline.model import DepthOperation, Levels, RowFault

LOOK_SECS = 0.25
"""How often to look."""

PERSISTENT_SECS = 2.0
PERSISTENT_LOOKS = 8
"""What each of so many looks in so many seconds finds is no price move under way."""

STANDING_SECS = 6.0
"""The same for a book that no row reaches meanwhile: the rest of a move may be on its way."""

SETTLED_SECS = 1.0
"""After the first look a book's opening image is complete."""

LOST_ROWS = 3.0
"""Lost updates, and rows past the end, that are too many; one is forgiven every FORGIVEN_SECS. Deletes weigh less."""
FORGIVEN_SECS = 10.0
_WEIGHT_OF_DELETE = 0.2

FIRST_PAUSE_SECS = 5.0
LONGEST_PAUSE_SECS = 3600.0
_PAUSE_FACTOR = 4.0

UNSORTED = "prices out of order"
REPEATED = "a level stands twice"
CROSSED = "crossed"
INSERT_LOST = "an insert was dropped"
DELETE_LOST = "a delete was dropped"
ROW_LOST = "a row of unknown operation was dropped"
ROWS_LOST = "rows past the end or unreadable again and again"

_PAST = (RowFault.PAST_END, RowFault.PAST_REQUESTED)


def shape_fault(bids: Levels, asks: Levels) -> str:
    """What is wrong with the levels of a book's sides; "" where nothing is. Several names at one price are in order."""
    if any(a[0] < b[0] for a, b in pairwise(bids)) or any(a[0] > b[0] for a, b in pairwise(asks)):
        return UNSORTED
    if any(len({(price, name) for price, _, name in side}) < len(side) for side in (bids, asks)):
        return REPEATED
    return ""


def is_crossed(bids: Levels, asks: Levels) -> bool:
    """Whether the best prices meet (locked) or more."""
    return bool(bids and asks) and bids[0][0] >= asks[0][0]


class BookLook(NamedTuple):
    """One subscription's book: its rows so far and its sides, best first."""

    request: int
    rows: int
    bids: Levels
    asks: Levels


@dataclass(slots=True)
class _Sighting:
    """Something wrong that every look has found since `since`, when so many rows had come."""

    since: float
    rows: int
    looks: int = 0


@dataclass(slots=True)
class _Book:
    first_seen: float
    rows: int = -1  # at the newest look
    shape: _Sighting | None = None
    crossed: _Sighting | None = None
    settled: bool = False
    repeats: bool = False  # its opening image shows a name twice at a price: so this venue does
    lost: float = 0.0
    lost_at: float = 0.0


class BookIntegrity:
    """See the module. crossed_secs: how long a book may be crossed or locked."""

    def __init__(self, crossed_secs: float) -> None:
        self._crossed_secs = crossed_secs
        self._books: dict[int, _Book] = {}

    def forget(self, request: int) -> None:
        """The book was emptied."""
        self._books.pop(request, None)

    def keep(self, requests: Set[int]) -> None:
        """These are live; whatever else was looked at is over."""
        for request in self._books.keys() - requests:
            del self._books[request]

    def is_due(self, request: int, rows: int) -> bool:
        """Whether a look at the book is worth it: rows have come since the last one, or something was wrong then."""
        book = self._books.get(request)
        return book is None or rows != book.rows or not book.settled or bool(book.shape or book.crossed)

    def is_clean(self, request: int) -> bool:
        """Whether the newest look at the book found nothing wrong."""
        book = self._books.get(request)
        return book is not None and not book.shape and not book.crossed

    def look(self, seen: BookLook, now: float) -> str:
        """Why the book is out of step; "" while it is not known to be."""
        book = self._books.setdefault(seen.request, _Book(now))
        book.rows = seen.rows
        shape = self._shape_fault(book, seen, now)
        book.shape = _sighting(book.shape, bool(shape), seen.rows, now)
        book.crossed = _sighting(book.crossed, is_crossed(seen.bids, seen.asks), seen.rows, now)
        if book.shape and _persists(book.shape, PERSISTENT_SECS, seen.rows, now):
            return shape
        return CROSSED if book.crossed and _persists(book.crossed, self._crossed_secs, seen.rows, now) else ""

    @staticmethod
    def _shape_fault(book: _Book, seen: BookLook, now: float) -> str:
        fault = shape_fault(seen.bids, seen.asks)
        if not book.settled and now - book.first_seen >= SETTLED_SECS:
            book.settled, book.repeats = True, fault == REPEATED
        return "" if fault == REPEATED and (book.repeats or not book.settled) else fault

    def row_dropped(self, request: int, operation: DepthOperation | None, fault: RowFault, now: float) -> str:
        """A row of a live book was dropped; None where its operation can't be read. Returns as `look` does."""
        if operation is None:
            return ROW_LOST
        if operation is DepthOperation.INSERT and fault is not RowFault.PAST_REQUESTED:
            return INSERT_LOST
        if operation is DepthOperation.DELETE and fault not in _PAST:
            return DELETE_LOST
        book = self._books.setdefault(request, _Book(now))
        left = max(0.0, book.lost - (now - book.lost_at) / FORGIVEN_SECS)
        book.lost = left + (_WEIGHT_OF_DELETE if operation is DepthOperation.DELETE else 1.0)
        book.lost_at = now
        if book.lost < LOST_ROWS:
            return ""
        book.lost = 0.0
        return ROWS_LOST


def _sighting(before: _Sighting | None, is_wrong: bool, rows: int, now: float) -> _Sighting | None:
    if not is_wrong:
        return None
    if before is None:
        return _Sighting(now, rows)
    before.looks += 1
    return before


def _persists(seen: _Sighting, secs: float, rows: int, now: float) -> bool:
    needed = secs if rows > seen.rows else max(secs, STANDING_SECS)
    return seen.looks >= PERSISTENT_LOOKS and now - seen.since >= needed


class ResubscribeBackoff:
    """When a symbol may be asked for again: at once, then ever more rarely, so that a venue which always looks wrong
    makes no storm; at once again after it was left alone for long enough."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[float, float]] = {}  # symbol -> when it was asked for last, the pause after that

    def ask(self, symbol: str, now: float) -> bool:
        """Whether to ask for it now; if so, it counts."""
        asked_at, pause = self._asked.get(symbol, (-LONGEST_PAUSE_SECS, FIRST_PAUSE_SECS / _PAUSE_FACTOR))
        if now < asked_at + pause and symbol in self._asked:
            return False
        calm = now - asked_at > 20 * pause and now - asked_at > 600
        longer = FIRST_PAUSE_SECS if calm else min(pause * _PAUSE_FACTOR, LONGEST_PAUSE_SECS)
        self._asked[symbol] = now, longer
        return True
