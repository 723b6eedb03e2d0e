"""A symbol's day, counted while its snapshots are read, and how much stood at which price when. Pure.

Memory does not grow with the number of snapshots.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ibkr_depth_pipeline.report.timeline import Array, Bins, SnapshotColumns, standing

SPREAD_UNIT = 1e-6
"""Spreads are counted in steps of this price."""
_BIN_SHIFT = 44  # of a key that holds a bin's number above a spread
_SAMPLED_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Window:
    """The time that is to be covered, in unix ms."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class UncoveredTime:
    """The longest time in the window without a live book, and when it began; both ms."""

    ms: int = 0
    start: int = 0


@dataclass(frozen=True, slots=True)
class SymbolDay:
    """A symbol's day as the page shows it.

    in_window is how many of the snapshots came within the window. Per bin: rows (snapshots), live_ms, spreads (10th,
    50th and 90th percentile over time; NaN if there was none), bid and ask (best prices, as they last were in the
    bin; NaN as well). `spread` is the median over the whole day. reach is how far the rows usually lie behind the best
    price, tick the least step between two rows; prices, or 0.0.
    """

    symbol: str
    venues: Mapping[str, int]
    snapshots: int
    in_window: int
    covered_ms: int
    window: Window
    worst: UncoveredTime
    rows: Array
    live_ms: Array
    spreads: Array
    bid: Array
    ask: Array
    spread: float | None
    reach: float
    tick: float

    @property
    def coverage(self) -> float:
        """The share of the window with a live book, from 0 to 1."""
        return self.covered_ms / (self.window.end - self.window.start)

    @property
    def spread_bps(self) -> float | None:
        """The median spread in hundredths of a percent of the usual price between bid and ask."""
        middle = (self.bid + self.ask) / 2
        if self.spread is None or np.all(np.isnan(middle)):
            return None
        return float(self.spread / np.nanmedian(middle) * 10_000)


class SymbolFold:
    """Snapshots in, piece by piece in their order; `result` at the end."""

    def __init__(self, symbol: str, bins: Bins, window: Window) -> None:
        self._symbol, self._bins, self._window = symbol, bins, window
        self._venues: Counter[str] = Counter()
        self._rows = np.zeros(bins.count, dtype=np.int64)
        self._live_ms = np.zeros(bins.count)
        self._bid, self._ask = np.full(bins.count, np.nan), np.full(bins.count, np.nan)
        self._spreads = SpreadTimes(bins.count)
        self._in_window = 0
        self._covered_ms = 0
        self._worst = UncoveredTime()
        self._covered_until = window.start
        self._before: SnapshotColumns | None = None
        self._reaches: list[float] = []
        self._tick = np.inf

    def add(self, piece: SnapshotColumns, venues: Mapping[str, int]) -> None:
        """The next snapshots, and how many of them are of which venue."""
        if not len(piece):
            return
        self._venues.update(venues)
        self._rows += np.bincount(self._bins.of(piece.ts[self._bins.hold(piece.ts)]), minlength=self._bins.count)
        self._in_window += np.count_nonzero((piece.ts >= self._window.start) & (piece.ts <= self._window.end))
        self._quote(piece)
        self._look_deeper(piece)
        books = piece.after(self._before)
        self._before = piece
        self._stand(books)

    def _stand(self, books: SnapshotColumns) -> None:
        number, starts, ends = standing(books)
        self._cover(starts, ends)
        parts = self._bins.overlaps(starts, ends)
        self._live_ms += np.bincount(parts.bin, weights=parts.ms, minlength=self._bins.count)
        shown = number[parts.interval]
        bid, ask = books.bid_price[shown, 0], books.ask_price[shown, 0]
        sound = (bid > 0) & (ask > bid)
        self._spreads.add(parts.bin[sound], (ask - bid)[sound], parts.ms[sound])

    def _quote(self, piece: SnapshotColumns) -> None:
        bid, ask = piece.bid_price[:, 0], piece.ask_price[:, 0]
        sound = np.flatnonzero((bid > 0) & (ask > bid) & self._bins.hold(piece.ts))
        number = self._bins.of(piece.ts[sound])
        self._bid[number], self._ask[number] = bid[sound], ask[sound]  # of equal numbers the last one stays

    def _look_deeper(self, piece: SnapshotColumns) -> None:
        every = max(1, len(piece) // _SAMPLED_ROWS)
        for side in (piece.bid_price[::every], piece.ask_price[::every]):
            steps = np.abs(np.diff(side, axis=1))[(side[:, 1:] > 0) & (side[:, :-1] > 0)]
            steps = steps[steps > SPREAD_UNIT / 2]
            if len(steps):
                self._tick = min(self._tick, float(steps.min()))
            lengths = np.count_nonzero(side, axis=1)
            held = side[lengths > 0]
            if len(held):
                deepest = held[np.arange(len(held)), lengths[lengths > 0] - 1]
                self._reaches.append(float(np.median(np.abs(held[:, 0] - deepest))))

    def _cover(self, starts: Array, ends: Array) -> None:
        window = self._window
        low, high = np.clip(starts, window.start, window.end), np.clip(ends, window.start, window.end)
        self._covered_ms += int((high - low).sum())
        inside = high > low
        low, high = low[inside], high[inside]
        if not len(low):
            return
        reached = np.concatenate([[self._covered_until], high[:-1]])
        at = int(np.argmax(low - reached))
        self._miss(int(reached[at]), int(low[at]))
        self._covered_until = int(high[-1])

    def _miss(self, start: int, end: int) -> None:
        if end - start > self._worst.ms:
            self._worst = UncoveredTime(end - start, start)

    def result(self) -> SymbolDay:
        """The symbol's day; nothing may be added afterwards."""
        if self._before is not None:
            self._stand(self._before.end())
        self._miss(self._covered_until, self._window.end)
        return SymbolDay(
            symbol=self._symbol,
            venues=dict(self._venues.most_common()),
            snapshots=int(self._rows.sum()),
            in_window=self._in_window,
            covered_ms=self._covered_ms,
            window=self._window,
            worst=self._worst,
            rows=self._rows,
            live_ms=self._live_ms,
            spreads=self._spreads.by_bin((0.1, 0.5, 0.9)),
            bid=self._bid,
            ask=self._ask,
            spread=self._spreads.overall(0.5),
            reach=float(np.median(self._reaches)) if self._reaches else 0.0,
            tick=float(self._tick) if np.isfinite(self._tick) else 0.0,
        )


class SpreadTimes:
    """For how long which spread stood in which bin: as many numbers as there are different spreads."""

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._keys: Array = np.zeros(0, dtype=np.int64)
        self._ms: Array = np.zeros(0)

    def add(self, number: Array, spread: Array, ms: Array) -> None:
        """Spreads, as prices, the bin's number of each, and how long it stood there."""
        units = np.rint(spread / SPREAD_UNIT).astype(np.int64)
        keys = np.concatenate([self._keys, (number.astype(np.int64) << _BIN_SHIFT) + units])
        self._keys, place = np.unique(keys, return_inverse=True)
        self._ms = np.bincount(place, weights=np.concatenate([self._ms, ms]), minlength=len(self._keys))

    def overall(self, share: float) -> float | None:
        """The spread that was not exceeded for that share of all the time; None if there was none."""
        units, place = np.unique(self._units, return_inverse=True)
        return _quantile(units, np.bincount(place, weights=self._ms, minlength=len(units)), share)

    def by_bin(self, shares: tuple[float, ...]) -> Array:
        """`overall` for each bin: one row a share, one column a bin, NaN if there was none."""
        found = np.full((len(shares), self._bins), np.nan)
        borders = np.searchsorted(self._keys >> _BIN_SHIFT, np.arange(self._bins + 1))
        for number in range(self._bins):
            part = slice(borders[number], borders[number + 1])
            for row, share in enumerate(shares):
                value = _quantile(self._units[part], self._ms[part], share)
                found[row, number] = np.nan if value is None else value
        return found

    @property
    def _units(self) -> Array:
        return self._keys & ((1 << _BIN_SHIFT) - 1)


def _quantile(units: Array, ms: Array, share: float) -> float | None:
    """units ascend."""
    if not len(units):
        return None
    reached = np.cumsum(ms)
    return float(units[np.searchsorted(reached, share * reached[-1])]) * SPREAD_UNIT


# ---- the map of its depth


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
        self._before: SnapshotColumns | None = None

    def add(self, piece: SnapshotColumns) -> None:
        """The next snapshots."""
        books = piece.after(self._before)
        self._before = piece
        if len(books) > 1:
            self._stand(books)

    def _stand(self, books: SnapshotColumns) -> None:
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
        """The map of what was added; nothing may be added afterwards."""
        if self._before is not None:
            self._stand(self._before.end())
        shape = (self._grid.count, self._bins.count)
        live = np.maximum(self._live_ms, 1)
        bids, asks = (sums.reshape(shape) / live for sums in self._sums)
        return DepthMap(symbol, self._bins, self._grid, bids, asks)
