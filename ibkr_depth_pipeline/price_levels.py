"""Rows of many books added up by price, for the reader's frames, the archive's and the exports. Pure; numpy, pyarrow.

A side of consecutive books is three arrays of one row a book and ten columns, best first: prices, sizes and counts of
rows. A level that is not there is NaN, 0 and 0. Snapshot.levels is the same for one book.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS

Array = np.ndarray[Any, np.dtype[Any]]


class LevelArrays(NamedTuple):
    """One side of consecutive books by price."""

    prices: Array
    sizes: Array
    counts: Array


def by_price(prices: Array, sizes: Array, *, highest_first: bool) -> LevelArrays:
    """Adds up the rows of one price. A row that is not there has the price NaN; the given arrays stay as they are.

    Within a price move rows may stand out of order or twice: the rows of such a book are sorted first.
    """
    there = ~np.isnan(prices)
    key = np.where(there, -prices if highest_first else prices, np.inf)
    odd = np.flatnonzero(((key[:, 1:] <= key[:, :-1]) & there[:, 1:]).any(axis=1))
    found = LevelArrays(prices.copy(), np.where(there, sizes, 0.0), there.astype(np.int32))
    if len(odd):
        for values, added_up in zip(found, _added_up(key[odd], prices[odd], sizes[odd]), strict=True):
            values[odd] = added_up
    return found


def _added_up(key: Array, prices: Array, sizes: Array) -> LevelArrays:
    """`by_price` of books that need it. key: what they are sorted by, infinite if a row is not there."""
    order = np.argsort(key, axis=1, kind="stable")
    key, prices, sizes = (np.take_along_axis(each, order, axis=1) for each in (key, prices, sizes))
    there = np.isfinite(key)
    first = there.copy()
    first[:, 1:] &= key[:, 1:] != key[:, :-1]
    place = np.cumsum(first, axis=1) - 1 + SNAPSHOT_LEVELS * np.arange(len(key))[:, None]
    best = np.full(prices.size, np.nan)
    best[place[first]] = prices[first]
    totals = np.bincount(place[there], sizes[there], prices.size)
    counts = np.bincount(place[there], minlength=prices.size)
    return LevelArrays(*(each.reshape(prices.shape) for each in (best, totals, counts)))


LEVEL_PARTS = ("px", "sz", "ct")


def level_columns(sides: Mapping[str, LevelArrays]) -> Iterator[tuple[str, Any]]:
    """Columns of pyarrow by name: `bid_px_00`, `bid_sz_00`, `bid_ct_00`, `ask_px_00` ... Absent levels are null."""
    import pyarrow as pa

    kinds = (pa.float64(), pa.float64(), pa.int32())
    by_level = {side: [np.ascontiguousarray(part.T) for part in parts] for side, parts in sides.items()}
    for level in range(SNAPSHOT_LEVELS):
        for side, parts in by_level.items():
            absent = parts[2][level] == 0
            for name, part, kind in zip(LEVEL_PARTS, parts, kinds, strict=True):
                yield f"{side}_{name}_{level:02d}", pa.array(part[level], kind, mask=absent)
