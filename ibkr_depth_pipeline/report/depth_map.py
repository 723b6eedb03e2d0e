"""How much stood at which price when. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ibkr_depth_pipeline.report.bins import Array, Bins
from ibkr_depth_pipeline.report.books import Books, standing
from ibkr_depth_pipeline.report.symbol_day import SymbolDay

MOST_PRICES = 160
_FAR = 6.0
"""A best price that lies so many times the usual range away from the usual one would make the picture useless."""


@dataclass(frozen=True, slots=True)
class PriceGrid:
    """`count` rows of prices, each `height` high; the lowest begins at `low`."""

    low: float
    height: float
    count: int

    @property
    def high(self) -> float:
        """Where the uppermost row ends."""
        return self.low + self.height * self.count

    def of(self, prices: Array) -> Array:
        """The row of each price; below 0 or from `count` on if it lies outside."""
        row: Array = np.floor((prices - self.low) / self.height + 1e-6).astype(np.int64)
        return row


def price_grid(day: SymbolDay, most: int = MOST_PRICES) -> PriceGrid | None:
    """Rows of whole ticks that hold the day's best prices and what usually stands behind them; None without any."""
    bids, asks = (_usual(side[~np.isnan(side)]) for side in (day.bid, day.ask))
    if not len(bids) or not len(asks):
        return None
    lowest, highest = float(bids.min()) - day.reach, float(asks.max()) + day.reach
    tick = day.tick or max((highest - lowest) / most, 1e-6)
    height = tick * max(1, math.ceil((highest - lowest + tick) / tick / most))
    low = math.floor(lowest / height + 1e-6) * height
    return PriceGrid(low, height, max(1, math.floor((highest - low) / height + 1e-6) + 1))


def _usual(prices: Array) -> Array:
    if not len(prices):
        return prices
    low, middle, high = np.percentile(prices, (25, 50, 75)).tolist()
    usual: Array = prices[np.abs(prices - middle) <= max(_FAR * (high - low), 0.01 * middle)]
    return usual


@dataclass(frozen=True, slots=True)
class DepthMap:
    """`bids` and `asks`: the mean size over the time in which the book was live, one row a price, one column a bin."""

    symbol: str
    bins: Bins
    grid: PriceGrid
    bids: Array
    asks: Array


class DepthFold:
    """Snapshots with sizes in, piece by piece in their order; `result` at the end."""

    def __init__(self, bins: Bins, grid: PriceGrid) -> None:
        self._bins, self._grid = bins, grid
        self._live_ms = np.zeros(bins.count)
        self._sums = [np.zeros(grid.count * bins.count) for _ in range(2)]
        self._before: Books | None = None

    def add(self, piece: Books) -> None:
        """The next snapshots."""
        books = piece.after(self._before)
        self._before = piece
        if len(books) < 2:
            return
        number, starts, ends = standing(books)
        parts = self._bins.overlaps(starts, ends)
        self._live_ms += np.bincount(parts.bin, weights=parts.ms, minlength=self._bins.count)
        shown = number[parts.interval]
        sides = ((books.bid_price, books.bid_size), (books.ask_price, books.ask_size))
        for sums, (prices, sizes) in zip(self._sums, sides, strict=True):
            row, size = self._grid.of(prices[shown]), sizes[shown]
            wanted = (size > 0) & (row >= 0) & (row < self._grid.count)
            cell = row * self._bins.count + parts.bin[:, None]
            sums += np.bincount(cell[wanted], weights=(size * parts.ms[:, None])[wanted], minlength=len(sums))

    def result(self, symbol: str) -> DepthMap:
        """What came of it."""
        shape = (self._grid.count, self._bins.count)
        live = np.maximum(self._live_ms, 1)
        bids, asks = (sums.reshape(shape) / live for sums in self._sums)
        return DepthMap(symbol, self._bins, self._grid, bids, asks)
