"""The books of all live requests, and the numbering of their snapshots. Pure; `row` is the hot path.

`now_ms` is unix milliseconds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ibkr_depth_pipeline.book.order_book import OrderBook
from ibkr_depth_pipeline.model import BookSnapshot, DepthRow, Levels, RowFault
from ibkr_depth_pipeline.sink.encoding import StreamPosition

_REQUESTS_REMEMBERED = 1000
_STRETCHES_REMEMBERED = 20_000  # a day of three slots and 15 s turns holds 17,280
_NOBODY = "unknown"


class Stretch(NamedTuple):
    """A time in which a symbol's book was live: from the first row of a subscription to its last, unix ms."""

    symbol: str
    start: int
    end: int


class LastBook(NamedTuple):
    """How a symbol's book stood when it was last live."""

    venue: str
    bids: Levels
    asks: Levels


@dataclass(slots=True)
class _Subscription:
    symbol: str
    venue: str
    book: OrderBook
    first_row_ms: int = 0
    last_row_ms: int = 0

    @property
    def stretch(self) -> Stretch:
        return Stretch(self.symbol, self.first_row_ms, self.last_row_ms)


@dataclass(slots=True)
class _Numbering:
    """Where a symbol's stream stands: its newest snapshot's time and number."""

    ts: int
    seq: int


@dataclass
class PipelineFigures:
    """What has happened since the start; `dropped` counts rows by (symbol, reason)."""

    rows: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused_309: int = 0
    refused_309_of: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    turns: int = 0

    @property
    def received(self) -> int:
        """Every row that has come, whatever became of it."""
        return self.rows.total() + self.dropped.total()


class Books:
    """One book for each live request. rows is how many rows a side are requested."""

    def __init__(self, rows: int, figures: PipelineFigures) -> None:
        self._rows = rows
        self._figures = figures
        self._numbering: dict[str, _Numbering] = {}
        self._live: dict[int, _Subscription] = {}
        self._symbol_of: dict[int, str] = {}  # the newest requests of this connection, retired ones as well
        self._last_rows: dict[str, int] = {}
        self._last_books: dict[str, LastBook] = {}
        self._stretches: deque[Stretch] = deque(maxlen=_STRETCHES_REMEMBERED)
        self._live_ms: Counter[str] = Counter()
        self.went_on: set[int] = set()
        """Retired requests of which rows have come; whoever looks at it empties it."""

    def number_from(self, positions: Mapping[str, StreamPosition]) -> None:
        """The newest snapshot that is stored of each symbol there may be. Call it once, before the first row."""
        self._numbering = {symbol: _Numbering(position.ts, position.seq) for symbol, position in positions.items()}

    # ---- rows

    def row(self, request: int, row: DepthRow, now_ms: int) -> BookSnapshot | None:
        """Apply one row. Returns the snapshot to store, or None where the row was dropped (and counted)."""
        subscription = self._live.get(request)
        if subscription is None:
            if request in self._symbol_of:
                self.went_on.add(request)
            self.drop(request, RowFault.RETIRED_REQUEST.value)
            return None
        fault = subscription.book.apply(row)
        if fault is not None:
            self.drop(request, fault.value)
            return None
        self._figures.rows[subscription.symbol] += 1
        snapshot = self._snapshot(subscription, now_ms)
        if not subscription.last_row_ms:
            subscription.first_row_ms = snapshot.ts
        subscription.last_row_ms = snapshot.ts  # as it is stored: it never falls
        return snapshot

    def reset(self, request: int, now_ms: int) -> BookSnapshot | None:
        """Empty the book (317). Returns the snapshot to store, or None where the request has no book."""
        subscription = self._live.get(request)
        if subscription is None:
            return None
        subscription.book.reset()
        return self._snapshot(subscription, now_ms)

    def drop(self, request: int, reason: str) -> None:
        """Count a row of the request that reaches no book."""
        self._figures.dropped[self.symbol_of(request), reason] += 1

    def _snapshot(self, subscription: _Subscription, now_ms: int) -> BookSnapshot:
        numbering = self._numbering[subscription.symbol]
        numbering.seq += 1
        if now_ms > numbering.ts:  # a clock that was set back must not make ids fall
            numbering.ts = now_ms
        book = subscription.book
        return BookSnapshot(subscription.symbol, numbering.seq, numbering.ts, subscription.venue, book.bids, book.asks)

    # ---- requests

    def open(self, request: int, symbol: str, venue: str) -> None:
        """An empty book for a new request."""
        self._live[request] = _Subscription(symbol, venue, OrderBook(self._rows, venue))
        self._symbol_of[request] = symbol
        if len(self._symbol_of) > _REQUESTS_REMEMBERED:
            del self._symbol_of[next(iter(self._symbol_of))]

    def retire(self, request: int) -> None:
        """Rows of this request never reach a book again."""
        subscription = self._live.pop(request, None)
        if subscription is None or not subscription.last_row_ms:
            return
        book, stretch = subscription.book, subscription.stretch
        self._last_rows[subscription.symbol] = subscription.last_row_ms
        self._last_books[subscription.symbol] = LastBook(subscription.venue, book.bids, book.asks)
        self._stretches.append(stretch)
        self._live_ms[subscription.symbol] += stretch.end - stretch.start

    def retire_all(self) -> None:
        """The connection is gone, and with it every request that was ever made on it."""
        for request in list(self._live):
            self.retire(request)
        self._symbol_of.clear()
        self.went_on.clear()

    # ---- what can be asked

    def symbol_of(self, request: int) -> str:
        """Whose request that is or was."""
        return self._symbol_of.get(request, _NOBODY)

    def requests(self) -> set[int]:
        """Those that have a book."""
        return set(self._live)

    def last_row(self, request: int) -> int:
        """When a row was last applied to the request's book; 0: never, or there is none."""
        subscription = self._live.get(request)
        return subscription.last_row_ms if subscription is not None else 0

    def last_rows(self) -> dict[str, int]:
        """symbol -> when its last row of this run was applied."""
        return {**self._last_rows, **self.recorded()}

    def recorded(self) -> dict[str, int]:
        """symbol -> when the last row was applied, of every live request that has had one."""
        return {each.symbol: each.last_row_ms for each in self._live.values() if each.last_row_ms}

    def stretches(self) -> list[Stretch]:
        """When which book was live, the oldest first; those that still are, last."""
        return [*self._stretches, *(each.stretch for each in self._live.values() if each.last_row_ms)]

    def live_ms(self) -> Counter[str]:
        """symbol -> for how many ms its book was live, in all."""
        now_live = Counter({each.symbol: each.last_row_ms - each.first_row_ms for each in self._live.values()})
        return self._live_ms + now_live

    def last_books(self) -> dict[str, LastBook]:
        """symbol -> its book, as it is or as it was when it was last live."""
        live = self._live.values()
        return self._last_books | {
            each.symbol: LastBook(each.venue, each.book.bids, each.book.asks) for each in live if each.last_row_ms
        }

    def filled(self) -> dict[int, tuple[str, int]]:
        """request -> symbol and time of the last row, of every book that is not empty."""
        return {
            request: (each.symbol, each.last_row_ms) for request, each in self._live.items() if not each.book.is_empty
        }
