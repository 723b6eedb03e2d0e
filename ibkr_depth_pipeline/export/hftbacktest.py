"""Books as hftbacktest's events. Pure: numpy arrays in its layout, which numpy alone can write.

Each segment (an interval, or what stands between holes) begins at its first whole book with DEPTH_CLEAR and
DEPTH_SNAPSHOT; DEPTH events follow, and where nothing more is known of the book it is cleared again. A level that has
merely left the ten rows is no deletion: it stays as it was last seen until the rows reach its price again, and is
deleted then if it is not among them. IBKR names no exchange time, so both timestamps are the time of receipt in ns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ibkr_depth_pipeline.errors import InvalidTransition
from ibkr_depth_pipeline.export.books import Books, Ends, Ladder, end_of_all, ends, preceding
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.price_levels import Array

EVENT = np.dtype(
    [
        ("ev", "u8"),
        ("exch_ts", "i8"),
        ("local_ts", "i8"),
        ("px", "f8"),
        ("qty", "f8"),
        ("order_id", "u8"),
        ("ival", "i8"),
        ("fval", "f8"),
    ],
    align=True,
)
"""hftbacktest's event_dtype."""

DEPTH, DEPTH_CLEAR, DEPTH_SNAPSHOT = 1, 3, 4
BUY, SELL = 1 << 29, 1 << 28
_EXCHANGE_AND_LOCAL = 1 << 31 | 1 << 30
"""The event changes the exchange's book and the one that is seen from here."""
_END, _CLEAR, _DELETE, _SET = range(4)
"""The order of the events of one book."""


class _Events(NamedTuple):
    """Events of one kind; `row` is the number of the book that they lead to."""

    row: Array
    kind: int
    ts: Array
    ev: Array
    px: Array
    qty: Array


class EventEncoder:
    """Turns books into events, batch by batch. Between batches it keeps the last book and the levels out of reach."""

    def __init__(self) -> None:
        self._before: Books | None = None
        self._sides = (_Side(BUY), _Side(SELL))
        self._last_ts = 0

    def encode(self, books: Books) -> Array:
        """The events of these books; there are none of those before a segment's first whole one."""
        books = books[books.whole]
        if not len(books):
            return np.zeros(0, EVENT)
        earlier, same = preceding(books, self._before)
        begins = np.flatnonzero(~same)
        found = list(_cleared(ends(books, earlier, same, self._before)))
        found += [_clear(side, begins, _CLEAR, books.received[begins]) for side in (BUY, SELL)]
        for side, before, after in zip(
            self._sides, (earlier.bids, earlier.asks), (books.bids, books.asks), strict=True
        ):
            found += side.changes(before, after, same, books.received)
        self._before = books[-1:]
        return self._in_order(found)

    def finish(self, end_ms: int) -> Array:
        """The events behind the last book if its segment ends before `end_ms`, in unix ms."""
        if self._before is None:
            return np.zeros(0, EVENT)
        return self._in_order(list(_cleared(end_of_all(self._before, end_ms))))

    def _in_order(self, found: list[_Events]) -> Array:
        row = np.concatenate([each.row for each in found])
        kind = np.concatenate([np.full(len(each.row), each.kind) for each in found])
        order = np.lexsort((kind, row))
        made = np.zeros(len(order), EVENT)
        for name in ("ev", "px", "qty"):
            made[name] = np.concatenate([getattr(each, name) for each in found])[order]
        ts = np.concatenate([each.ts for each in found])[order]
        # Times of ends are known to the ms only, and a recorder's clock may have been set back.
        made["local_ts"] = made["exch_ts"] = np.maximum(np.maximum.accumulate(ts), self._last_ts)
        self._last_ts = int(made["local_ts"][-1]) if len(made) else self._last_ts
        return made


def check_order(made: Array) -> None:
    """Raises InvalidTransition if the events are not in the order that hftbacktest demands."""
    for name in ("exch_ts", "local_ts"):
        if np.any(np.diff(made[name]) < 0):
            raise InvalidTransition(f"events are out of order by {name}")


def _cleared(over: Ends) -> Iterator[_Events]:
    for side in (BUY, SELL):
        yield _clear(side, over.at, _END, over.received + 1)  # so that the last book is seen


def _clear(side: int, row: Array, kind: int, ts: Array) -> _Events:
    """Events that empty the side: a price that is no number stands for all prices."""
    ev = np.full(len(row), _EXCHANGE_AND_LOCAL | side | DEPTH_CLEAR, np.uint64)
    return _Events(row, kind, ts, ev, np.full(len(row), np.nan), np.zeros(len(row)))


class _Side:
    """One side's changes. `_left` are the prices of levels that have left the ten rows, and were not reached since."""

    def __init__(self, side: int) -> None:
        self._side = side
        self._sign = -1.0 if side == BUY else 1.0
        self._left = np.zeros(0)

    def changes(self, before: Ladder, after: Ladder, same: Array, ts: Array) -> Iterator[_Events]:
        """The events that lead from each book to the next; from nothing if they are not of the `same` segment."""
        alike = (after.prices[:, :, None] == before.prices[:, None, :]) & same[:, None, None]
        size_before = np.where(alike, before.sizes[:, None, :], 0).sum(axis=2)
        changed = after.present & ~(alike.any(axis=2) & (size_before == after.sizes))
        row, level = np.nonzero(changed)
        code = np.where(same[row], DEPTH, DEPTH_SNAPSHOT)
        yield self._events(row, _SET, ts, code, after.prices[row, level], after.sizes[row, level])
        row, px = self._deleted(before, after, alike, same)
        yield self._events(row, _DELETE, ts, np.full(len(row), DEPTH), px, np.zeros(len(row)))

    def _events(self, row: Array, kind: int, ts: Array, code: Array, px: Array, qty: Array) -> _Events:
        ev = (_EXCHANGE_AND_LOCAL | self._side | code).astype(np.uint64)
        return _Events(row, kind, ts[row], ev, px, qty)

    def _deleted(self, before: Ladder, after: Ladder, alike: Array, same: Array) -> tuple[Array, Array]:
        """Rows and prices of deletions: of levels within reach that are gone, and of those reached again in vain."""
        reach = self._reach(after)
        gone = before.present & ~alike.any(axis=1) & same[:, None]
        row, level = np.nonzero(gone)
        rank = self._sign * before.prices[row, level]
        within = rank <= reach[row]
        left_at = np.concatenate((np.zeros(len(self._left), int), row[~within] + 1))
        left = np.concatenate((self._left, rank[~within]))
        again = _first_at_least(np.where(same, reach, np.inf), left_at, left)
        self._left = left[again == len(same)]
        at, left = again[again < len(same)], left[again < len(same)]
        in_vain = same[at] & ~(self._sign * after.prices[at] == left[:, None]).any(axis=1)
        rows = np.concatenate((row[within], at[in_vain]))
        return rows, self._sign * np.concatenate((rank[within], left[in_vain]))

    def _reach(self, after: Ladder) -> Array:
        """Up to which price, lowest best, the book is known: its last level's if it has ten rows, else all."""
        worst = np.where(after.present, self._sign * after.prices, -np.inf).max(axis=1)
        return np.where(after.rows == SNAPSHOT_LEVELS, worst, np.inf)


def _first_at_least(values: Array, start: Array, bound: Array) -> Array:
    """For each start and bound the first place from there on with a value not below it; len(values) for none.

    Steps of a power of two are taken as long as the highest value in them is below the bound.
    """
    highest = [values]
    while (step := 2 ** (len(highest) - 1)) < len(highest[-1]):
        highest.append(np.maximum(highest[-1][:-step], highest[-1][step:]))
    place: Array = start.copy()
    for power in reversed(range(len(highest))):
        of_step = highest[power]
        possible = place < len(of_step)
        below = possible & (of_step[np.minimum(place, len(of_step) - 1)] < bound)
        place += below.astype(int) << power
    return place
