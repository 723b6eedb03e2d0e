"""Books as nautilus_trader's OrderBookDepth10, written by its own ParquetDataCatalog: the only home of that library.

A catalog's files may not share a time, so that the books of a batch's last ns go into the next file. Where nothing more
is known of the book stands an empty one with F_MAYBE_BAD_BOOK. A level that is not there has price, size and count 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nautilus_trader.core import nautilus_pyo3 as nautilus
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from ibkr_depth_pipeline.errors import ExportRefused
from ibkr_depth_pipeline.export.books import NS_PER_MS, Books, Ends, Ladder, end_of_all, ends, first_whole, preceding
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.price_levels import Array

_F_LAST, _F_SNAPSHOT, _F_MAYBE_BAD_BOOK = 128, 32, 4
"""Flags of a record, as in DBN."""
_BOOKS_A_FILE = 65_536
"""At least, but for the last one."""


def instrument_ids(symbol: str, venues: Iterable[str]) -> list[str]:
    """`SYMBOL.VENUE` of each interval of the day; the last one is that of books in no interval."""
    ids = [f"{symbol}.{venue or 'IBKR'}" for venue in venues]
    return [*ids, ids[-1] if ids else f"{symbol}.IBKR"]


class CatalogWriter:
    """Writes books to the catalog in `folder`. digits are the decimal places of the prices and of the sizes."""

    def __init__(self, folder: Path, instruments: Sequence[str], digits: tuple[int, int], end_ms: int) -> None:
        if max(digits) > nautilus.FIXED_PRECISION:
            most = f"{nautilus.FIXED_PRECISION} at most; --to parquet or csv take it"
            raise ExportRefused(f"a price or size of {max(digits)} decimal places does not fit nautilus_trader: {most}")
        self.records = 0
        self._catalog = ParquetDataCatalog(str(folder))
        try:
            self._instruments = [nautilus.InstrumentId.from_str(each) for each in instruments]
        except ValueError as error:
            raise ExportRefused(f"{instruments[0]!r} is no name for nautilus_trader: {error}") from None
        self._orders = _Orders(*digits)
        self._end_ms = end_ms
        self._before: Books | None = None
        self._held: list[Any] = []
        self._last_ts = 0

    def write(self, books: Books) -> None:
        """Appends these books."""
        if not len(books):
            return
        earlier, same = preceding(books, self._before)
        over = ends(books, earlier, same, self._before)
        found, empty = self._depths(books, first_whole(books, earlier, same)), self._empty(over)
        at = np.insert(np.arange(len(books)), over.at, -1)
        self._append([next(empty) if each < 0 else next(found) for each in at.tolist()])
        self._before = books[-1:]

    def finish(self) -> None:
        """Writes the end of the last segment and what was held back."""
        if self._before is not None:
            self._append(list(self._empty(end_of_all(self._before, self._end_ms))))
        self._store(self._held)

    def abandon(self) -> None:
        """Does nothing: no file is open."""

    def _append(self, found: list[Any]) -> None:
        pending = self._held = self._held + found
        if len(pending) < _BOOKS_A_FILE:
            return
        last_ts = pending[-1].ts_init
        border = next((at for at in range(len(pending), 0, -1) if pending[at - 1].ts_init < last_ts), 0)
        self._held = pending[border:]
        self._store(pending[:border])

    def _store(self, depths: list[Any]) -> None:
        if depths:
            self._catalog.write_data(depths)
            self.records += len(depths)

    def _depths(self, books: Books, begins: Array) -> Iterator[Any]:
        flags = np.where(books.settled, _F_LAST, 0) | np.where(begins, _F_SNAPSHOT, 0)
        flags |= np.where(books.whole, 0, _F_MAYBE_BAD_BOOK)
        heads = (books.interval, flags, books.seq, books.ts * NS_PER_MS, books.received)
        bids = self._orders.of(books.bids, nautilus.OrderSide.BUY)
        asks = self._orders.of(books.asks, nautilus.OrderSide.SELL)
        counts = (books.bids.counts.tolist(), books.asks.counts.tolist())
        rows = zip(bids, asks, *counts, *(column.tolist() for column in heads), strict=True)
        for bid, ask, bid_counts, ask_counts, interval, flag, seq, ts, received in rows:
            yield self._depth(interval, bid, ask, bid_counts, ask_counts, flag, seq, ts, received)

    def _empty(self, over: Ends) -> Iterator[Any]:
        side, counts = [self._orders.none] * SNAPSHOT_LEVELS, [0] * SNAPSHOT_LEVELS
        rows = zip(*(each.tolist() for each in (over.of, over.seq, over.ts, over.received)), strict=True)
        for interval, seq, ms, received in rows:
            flags = _F_LAST | _F_MAYBE_BAD_BOOK
            yield self._depth(interval, side, side, counts, counts, flags, seq, ms * NS_PER_MS, received)

    def _depth(self, interval: int, bids: Any, asks: Any, bid_counts: Any, ask_counts: Any, *rest: int) -> Any:
        flags, seq, ts, received = rest
        self._last_ts = max(self._last_ts, received)  # the catalog takes no time that falls
        return nautilus.OrderBookDepth10(
            self._instruments[interval], bids, asks, bid_counts, ask_counts, flags, seq, ts, self._last_ts
        )


class _Orders:
    """The library's object of each level; of the same price and size it is the same one."""

    def __init__(self, price_digits: int, size_digits: int) -> None:
        self._digits = price_digits, size_digits
        self.none = self._new(nautilus.OrderSide.NO_ORDER_SIDE, 0.0, 0.0)

    def of(self, ladder: Ladder, side: Any) -> Iterator[list[Any]]:
        """The ten levels of each book."""
        columns = (ladder.prices.tolist(), ladder.sizes.tolist(), ladder.counts.tolist())
        known: dict[tuple[float, float], Any] = {}
        for prices, sizes, counts in zip(*columns, strict=True):
            found = []
            for price, size, count in zip(prices, sizes, counts, strict=True):
                if not count:
                    found.append(self.none)
                    continue
                order = known.get((price, size))
                if order is None:
                    order = known[(price, size)] = self._new(side, price, size)
                found.append(order)
            yield found

    def _new(self, side: Any, price: float, size: float) -> Any:
        try:
            parts = nautilus.Price(price, self._digits[0]), nautilus.Quantity(size, self._digits[1])
        except ValueError as error:
            text = f"price {price} or size {size} does not fit nautilus_trader ({error}); --to parquet or csv take it"
            raise ExportRefused(text) from None
        return nautilus.BookOrder(side, *parts, 0)
