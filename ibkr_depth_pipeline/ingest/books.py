"""The books of all live requests, and the numbering of their snapshots. Pure.

Rows reach the books by the hot path (hot_path.py), or by `row`, the careful one. `now_ms` is unix milliseconds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ibkr_depth_pipeline.ingest.hot_path import HotPath, LiveBook, Numbering, RowKeepingBook, RowStore, Store
from ibkr_depth_pipeline.model import DepthRow, Levels, RowFault
from ibkr_depth_pipeline.schema.keys import StreamId

_REQUESTS_REMEMBERED = 1000
_INTERVALS_REMEMBERED = 20_000  # a day of three slots and 15 s turns holds 17,280
_NOBODY = "unknown"


class LiveInterval(NamedTuple):
    """A time in which a symbol's book was live: from the first row of a subscription to its last, unix ms."""

    symbol: str
    start: int
    end: int


class LastBook(NamedTuple):
    """A symbol's book as it was when it was last live."""

    venue: str
    bids: Levels
    asks: Levels


class LineSample(NamedTuple):
    """A subscription as it stands: its rows so far. doubted: a report of trouble covers it."""

    request: int
    symbol: str
    rows: int
    doubted: bool = False


class BookState(NamedTuple):
    """A subscription's book: its rows so far and its sides, best first."""

    request: int
    rows: int
    bids: Levels
    asks: Levels


@dataclass
class PipelineFigures:
    """Counts since the start; `dropped` counts rows by (symbol, reason).

    silent, out_of_step, asked_again: by symbol, how often its line was silent while others were not, its book out of
    step, and its subscription requested again for that.
    """

    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused_309: int = 0
    refused_309_of: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    turns: int = 0
    pacing_violations: int = 0
    silent: Counter[str] = field(default_factory=Counter)
    out_of_step: Counter[str] = field(default_factory=Counter)
    asked_again: Counter[str] = field(default_factory=Counter)


class LiveBooks:
    """One book for each live request. rows: how many rows a side are requested; levels_shown: how many are stored.

    hot_path carries rows out on the books that are opened here; outlet(symbol) takes the snapshots of that symbol, and
    row_stores(symbol) its rows, if they are kept.
    """

    def __init__(
        self,
        figures: PipelineFigures,
        hot_path: HotPath,
        outlet: Callable[[str], Store],
        *,
        rows: int,
        levels_shown: int,
        row_stores: Callable[[str], RowStore] | None = None,
    ) -> None:
        self._rows = rows
        self._row_stores = row_stores
        self._levels_shown = levels_shown
        self._outlet = outlet
        self._figures = figures
        self._numbering: dict[str, Numbering] = {}
        self._live: dict[int, LiveBook] = {}
        self._hot_path = hot_path
        self._symbol_of: dict[int, str] = {}  # the newest requests of this connection, retired ones as well
        self._last_rows: dict[str, int] = {}
        self._last_came: dict[str, int] = {}
        self._last_books: dict[str, LastBook] = {}
        self._intervals: deque[LiveInterval] = deque(maxlen=_INTERVALS_REMEMBERED)
        self._live_ms: Counter[str] = Counter()
        self._applied: Counter[str] = Counter()  # to books that are retired by now
        self.last_fault: RowFault | None = None
        """The fault of the newest row that `row` took; None: it was applied."""
        self._late: set[int] = set()  # retired requests with rows since the last take_late

    def number_from(self, positions: Mapping[str, StreamId]) -> None:
        """Set the newest stored snapshot of each of these symbols. Call it before the first row of each."""
        for symbol, position in positions.items():
            self._numbering[symbol] = Numbering(position.ts, position.seq)

    # ---- rows

    def row(self, request: int, row: DepthRow, now_ms: int) -> bool:
        """Apply one row that the hot path declined. Returns whether it was applied; if not, it is counted."""
        book = self._live.get(request)
        if book is None:
            if request in self._symbol_of:
                self._late.add(request)
            self.drop(request, RowFault.RETIRED_REQUEST.value)
            self.last_fault = RowFault.RETIRED_REQUEST
            return False
        fault = self.last_fault = book.apply(row, now_ms)
        if fault is not None:
            self.drop(request, fault.value)
        return fault is None

    def reset(self, request: int, now_ms: int) -> None:
        """Empty the book (317) and store that, if the request has one."""
        book = self._live.get(request)
        if book is not None:
            book.reset(now_ms)

    def drop(self, request: int, reason: str) -> None:
        """Count a row of the request that reaches no book."""
        self._figures.dropped[self.symbol_of(request), reason] += 1

    def take_late(self) -> set[int]:
        """The retired requests with rows since the last call."""
        late, self._late = self._late, set()
        return late

    def rows(self) -> Counter[str]:
        """symbol -> rows that were applied, in all."""
        return self._applied + Counter({book.symbol: book.applied for book in self._live.values()})

    def received(self) -> int:
        """The number of rows that have come, applied or dropped."""
        return self.rows().total() + self._figures.dropped.total()

    # ---- requests

    def open(self, request: int, symbol: str, venue: str) -> None:
        """Open an empty book for a new request."""
        sizes = self._rows, self._levels_shown
        of = (request, symbol, venue, self._numbering[symbol], self._outlet(symbol), *sizes)
        book = LiveBook(*of) if self._row_stores is None else RowKeepingBook(self._row_stores(symbol), *of)
        self._live[request] = book
        self._hot_path.open(book)
        self._symbol_of[request] = symbol
        if len(self._symbol_of) > _REQUESTS_REMEMBERED:
            del self._symbol_of[next(iter(self._symbol_of))]

    def retire(self, request: int) -> None:
        """Close the book of a request: its rows never reach a book again."""
        self._hot_path.retire(request)
        book = self._live.pop(request, None)
        if book is None or not book.applied:
            return
        interval = _interval(book)
        self._applied[book.symbol] += book.applied
        self._last_rows[book.symbol] = book.last_row_ms
        self._last_came[book.symbol] = book.last_came_ms
        self._last_books[book.symbol] = LastBook(book.venue, *book.sides())
        self._intervals.append(interval)
        self._live_ms[book.symbol] += max(0, book.last_came_ms - book.first_came_ms)

    def retire_all(self) -> None:
        """Close every book: the connection is gone, and every request made on it."""
        for request in list(self._live):
            self.retire(request)
        self._symbol_of.clear()
        self._late.clear()

    # ---- state

    def book(self, request: int) -> LiveBook | None:
        """The book of a live request."""
        return self._live.get(request)

    def symbol_of(self, request: int) -> str:
        """The symbol that a request is or was for."""
        return self._symbol_of.get(request, _NOBODY)

    def requests(self) -> set[int]:
        """The requests that have a book."""
        return set(self._live)

    def last_rows(self) -> dict[str, int]:
        """symbol -> when its last row of this run was applied."""
        return {**self._last_rows, **self.recorded()}

    def recorded(self) -> dict[str, int]:
        """symbol -> when the last row was applied, of every live request that has had one."""
        return {book.symbol: book.last_row_ms for book in self._live.values() if book.applied}

    def last_came(self) -> dict[str, int]:
        """symbol -> when its last row of this run came, in unix ms by the clock as it is now."""
        return {**self._last_came, **self.came()}

    def came(self) -> dict[str, int]:
        """The same, of every live request that has had a row."""
        return {book.symbol: book.last_came_ms for book in self._live.values() if book.applied}

    def clock_stepped(self, step_ms: int) -> None:
        """Move the times that are compared with the clock along: it was set by so many ms."""
        for book in self._live.values():
            book.clock_stepped(step_ms)
        self._last_came = {symbol: came + step_ms for symbol, came in self._last_came.items()}

    def newest_ts(self) -> dict[str, int]:
        """symbol -> the `ts` of its newest snapshot, or of the one that its numbering began after."""
        return {symbol: numbering.ts for symbol, numbering in self._numbering.items()}

    def live_intervals(self) -> list[LiveInterval]:
        """When each book was live, the oldest first; those that still are, last."""
        return [*self._intervals, *(_interval(book) for book in self._live.values() if book.applied)]

    def live_ms(self) -> Counter[str]:
        """symbol -> for how many ms its book was live, in all."""
        now_live = Counter(
            {book.symbol: max(0, book.last_came_ms - book.first_came_ms) for book in self._live.values()}
        )
        return self._live_ms + now_live

    def last_books(self) -> dict[str, LastBook]:
        """symbol -> its book, as it is or as it was when it was last live."""
        live = {book.symbol: LastBook(book.venue, *book.sides()) for book in self._live.values() if book.applied}
        return self._last_books | live

    def request_came(self, request: int) -> tuple[int, int]:
        """When the first and the last row of the request came, in unix ms by the clock as it is now; zeros for none."""
        book = self._live.get(request)
        return (book.first_came_ms, book.last_came_ms) if book is not None and book.applied else (0, 0)

    def line_samples(self, doubted: Collection[int]) -> list[LineSample]:
        """Every live request and its rows so far; those of `doubted` that have had rows are marked."""
        return [
            LineSample(request, book.symbol, book.applied, book.applied > 0 and request in doubted)
            for request, book in self._live.items()
        ]

    def states(self, is_due: Callable[[int, int], bool]) -> list[BookState]:
        """The books that have rows and are due for a check, by request and number of rows."""
        return [
            BookState(request, book.applied, *book.sides())
            for request, book in self._live.items()
            if book.applied and is_due(request, book.applied)
        ]

    def filled(self) -> dict[int, tuple[str, int]]:
        """request -> symbol and time of the last row, of every book that is not empty."""
        return {request: (book.symbol, book.last_row_ms) for request, book in self._live.items() if not book.is_empty}


def _interval(book: LiveBook) -> LiveInterval:
    return LiveInterval(book.symbol, book.first_row_ms, book.last_row_ms)
