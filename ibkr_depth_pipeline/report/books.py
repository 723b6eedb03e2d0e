"""Columns of consecutive snapshots, and the time for which each of them stood. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ibkr_depth_pipeline.archive.checks import LIVE_MS
from ibkr_depth_pipeline.report.bins import Array


@dataclass(frozen=True, slots=True)
class Books:
    """Snapshots of a symbol in order: ts (unix ms) has n values, prices n x 10, best first, 0.0 if there is no row.

    Sizes are as prices, or n x 0 if nobody asks for them.
    """

    ts: Array
    bid_price: Array
    ask_price: Array
    bid_size: Array
    ask_size: Array

    def __len__(self) -> int:
        return len(self.ts)

    def after(self, before: Books | None) -> Books:
        """These, with the last one of `before` in front: what it showed goes on until the first of these."""
        if before is None or not len(before):
            return self
        return Books(
            *(np.concatenate([old[-1:], new]) for old, new in zip(before._columns, self._columns, strict=True))
        )

    @property
    def _columns(self) -> tuple[Array, ...]:
        return (self.ts, self.bid_price, self.ask_price, self.bid_size, self.ask_size)


class Standing(NamedTuple):
    """Times in which a book was live: the snapshots' numbers, and from when to when each stood (unix ms)."""

    number: Array
    starts: Array
    ends: Array


def standing(books: Books) -> Standing:
    """A live book stands until the next snapshot, if that comes within LIVE_MS and belongs to the same subscription.

    A subscription begins with a single row, its book empty before (docs/redis-schema.md): the time before that row
    belonged to nobody. A book without any row is not live.
    """
    levels = np.count_nonzero(books.bid_price, axis=1) + np.count_nonzero(books.ask_price, axis=1)
    begins_anew = (levels[1:] == 1) & (levels[:-1] > 1)
    near = books.ts[1:] - books.ts[:-1] <= LIVE_MS
    number = np.flatnonzero((levels[:-1] > 0) & near & ~begins_anew)
    return Standing(number, books.ts[number], books.ts[number + 1])
