"""What one subscription's rows show: its book, and when, from where and in what sizes it came. Pure; time is given."""

from __future__ import annotations

from collections import Counter

from ibkr_depth_pipeline.book.order_book import OrderBook
from ibkr_depth_pipeline.model import DepthOperation, DepthRow
from ibkr_depth_pipeline.probe.report import SizeHints


class Observation:
    """The rows of one depth request, asked for at `requested_at` (seconds of the caller's clock).

    rows is the number of rows a side that the gateway was asked for, full the number that makes a side complete.
    """

    def __init__(self, venue: str, rows: int, full: int, requested_at: float) -> None:
        self.requested_at = requested_at
        self.first_row_at: float | None = None
        self._grown_at = requested_at
        self._full = full
        self._venue = venue
        self._venues: Counter[str] = Counter()
        self._book = OrderBook(rows, venue)
        self._bids = self._asks = 0
        self._sizes: Counter[bool] = Counter()
        self._odd_lots = 0
        self._smallest, self._largest = float("inf"), 0.0

    def apply(self, row: DepthRow, now: float) -> None:
        """Take one row. One that the book refuses still counts as the gateway's answer, and as nothing else."""
        if self.first_row_at is None:
            self.first_row_at = now
        if self._book.apply(row) is not None:
            return
        if row.operation is not DepthOperation.DELETE:
            self._note(row)
        # Quiet means: no longer growing. A thin but busy book would never be without rows.
        bids, asks = len(self._book.bids), len(self._book.asks)
        if bids > self._bids or asks > self._asks:
            self._bids, self._asks = max(bids, self._bids), max(asks, self._asks)
            self._grown_at = now

    def _note(self, row: DepthRow) -> None:
        self._venues[row.venue or self._venue] += 1
        if row.size > 0:
            self._sizes[row.size.is_integer()] += 1
            self._odd_lots += row.size % 100 != 0
            self._smallest, self._largest = min(row.size, self._smallest), max(row.size, self._largest)

    def reset(self, now: float) -> None:
        """The gateway throws its book away (317): what follows is the book."""
        self._book.reset()
        self._bids = self._asks = 0
        self._grown_at = now

    @property
    def book(self) -> OrderBook:
        """The book as it is now. Read only."""
        return self._book

    @property
    def has_both_sides(self) -> bool:
        """Whether there is a book at all."""
        return bool(self._book.bids and self._book.asks)

    @property
    def is_full(self) -> bool:
        """Whether both sides have the rows that are wanted."""
        return min(len(self._book.bids), len(self._book.asks)) >= self._full

    def settles_at(self, quiet: float) -> float | None:
        """When the book counts as there if it grows no more; None while a side is missing."""
        if not self.has_both_sides:
            return None
        return self._grown_at if self.is_full else self._grown_at + quiet

    @property
    def venues(self) -> tuple[str, ...]:
        """Who stands in the rows, the most frequent first."""
        return tuple(name for name, _ in self._venues.most_common())

    @property
    def sizes(self) -> SizeHints | None:
        """None before the first row with a size."""
        rows = self._sizes.total()
        if not rows:
            return None
        return SizeHints(rows, self._sizes[False] > 0, self._odd_lots == 0, self._smallest, self._largest)
