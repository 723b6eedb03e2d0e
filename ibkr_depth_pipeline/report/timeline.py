"""Time in equal bins, and columns of snapshots with the time for which each of them was the book. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ibkr_depth_pipeline.archive.checks import LIVE_MS

Array = np.ndarray[Any, np.dtype[Any]]

MOST_BINS = 800
"""As many as a wide screen shows."""
_STEPS_SECS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300)


class Overlaps(NamedTuple):
    """How long which interval lies in which bin: three columns of the same length, `ms` above 0."""

    interval: Array
    bin: Array
    ms: Array


@dataclass(frozen=True, slots=True)
class Bins:
    """`count` bins of `step` ms each, the first of which begins at `start` (unix ms)."""

    start: int
    step: int
    count: int

    @classmethod
    def over(cls, first: int, last: int, most: int = MOST_BINS) -> Bins:
        """The finest of round bins that hold `first` and `last` (unix ms, at most a day apart)."""
        for secs in _STEPS_SECS:
            step = secs * 1000
            start = first // step * step
            count = (last - start) // step + 1
            if count <= most:
                return cls(start, step, count)
        raise ValueError(f"from {first} to {last} is longer than {most} bins of {_STEPS_SECS[-1]} s")

    @property
    def end(self) -> int:
        """Where the last bin ends, in unix ms."""
        return self.start + self.step * self.count

    def of(self, ts: Array) -> Array:
        """The number of the bin of each time; times before or behind all bins fall into the nearest."""
        number: Array = np.clip((ts - self.start) // self.step, 0, self.count - 1)
        return number

    def hold(self, ts: Array) -> Array:
        """Whether each time lies in any of the bins."""
        inside: Array = (ts >= self.start) & (ts < self.end)
        return inside

    def overlaps(self, starts: Array, ends: Array) -> Overlaps:
        """Each interval [start, end), cut at the borders of bins. What lies outside of all bins is left out."""
        low, high = np.clip(starts, self.start, self.end), np.clip(ends, self.start, self.end)
        wanted = np.flatnonzero(high > low)
        low, high = low[wanted], high[wanted]
        first, last = self.of(low), self.of(high - 1)
        pieces = last - first + 1
        interval = np.repeat(np.arange(len(wanted)), pieces)
        within = np.arange(len(interval)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        number = first[interval] + within
        borders = self.start + number * self.step
        ms = np.minimum(high[interval], borders + self.step) - np.maximum(low[interval], borders)
        return Overlaps(wanted[interval], number, ms)

    def time_in(self, starts: Array, ends: Array) -> Array:
        """The ms of all these intervals in each bin."""
        parts = self.overlaps(starts, ends)
        return np.bincount(parts.bin, weights=parts.ms, minlength=self.count)


# ---- snapshots


@dataclass(frozen=True, slots=True)
class SnapshotColumns:
    """Snapshots of a symbol in order: ts (unix ms) has n values, prices n x 10, best first, 0.0 if there is no row.

    Sizes are as prices, or n x 0 if they are not needed. `interval` is the number of the recorded interval of each
    snapshot, -1 for none, and `until` the unix ms up to which that was observed; both None: none is on record.
    """

    ts: Array
    bid_price: Array
    ask_price: Array
    bid_size: Array
    ask_size: Array
    interval: Array | None = None
    until: Array | None = None

    def __len__(self) -> int:
        return len(self.ts)

    def after(self, before: SnapshotColumns | None) -> SnapshotColumns:
        """Puts the last snapshot of `before` in front: its book goes on until the first of these."""
        if before is None or not len(before):
            return self
        return SnapshotColumns(
            *(np.concatenate([old[-1:], new]) for old, new in zip(before._columns, self._columns, strict=True))
        )

    def end(self) -> SnapshotColumns:
        """The last snapshot, and an empty book after it: when its interval is over, or at once without a record."""
        ts, *sides, _, until = (column[-1:] for column in self._columns)
        return SnapshotColumns(np.maximum(ts, until), *map(np.zeros_like, sides)).after(self)

    @property
    def _columns(self) -> tuple[Array, ...]:
        known = (np.full(len(self.ts), -1) if each is None else each for each in (self.interval, self.until))
        return (self.ts, self.bid_price, self.ask_price, self.bid_size, self.ask_size, *known)


class Standing(NamedTuple):
    """Times in which a book was live: the snapshots' numbers, and from when to when each stood (unix ms)."""

    number: Array
    starts: Array
    ends: Array


def standing(books: SnapshotColumns) -> Standing:
    """A live book stands until the next snapshot of its interval, the last one of it until the interval is over.

    Without a record of intervals, until the next snapshot if that comes within LIVE_MS and belongs to the same
    subscription: one begins with a single row, its book empty before (docs/redis-schema.md), and the time before that
    row is no live time. A book without any row is not live.
    """
    levels = np.count_nonzero(books.bid_price, axis=1) + np.count_nonzero(books.ask_price, axis=1)
    begins_anew = (levels[1:] == 1) & (levels[:-1] > 1)
    near = books.ts[1:] - books.ts[:-1] <= LIVE_MS
    *_, interval, until = books._columns
    goes_on = np.where(interval[:-1] >= 0, interval[1:] == interval[:-1], near & ~begins_anew)
    ends = np.where(goes_on, books.ts[1:], np.minimum(books.ts[1:], until[:-1]))
    number = np.flatnonzero((levels[:-1] > 0) & (ends > books.ts[:-1]))
    return Standing(number, books.ts[number], ends[number])
