"""The books that a gateway sent, rebuilt from its journal row by row, and what was stored compared with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ibkr_depth_pipeline.simulation.journal import Entry
from ibkr_depth_pipeline_tests.end_to_end.recording import Snapshot

ROWS, SHOWN = 15, 10
Level = tuple[float, float]
BookSent = tuple[tuple[Level, ...], tuple[Level, ...]]

_NO_VALUE = {float(2**127 - 1), float(2**63 - 1), -float(2**63), 1.7976931348623157e308}


class NaiveBook:
    """Two lists of price and size, by the rules of IBKR's sample client."""

    def __init__(self) -> None:
        self.sides: dict[int, list[Level]] = {0: [], 1: []}

    def reset(self) -> None:
        self.sides = {0: [], 1: []}

    def take(self, row: Mapping[str, Any]) -> bool:
        """Apply a row; False where it is none or has no place."""
        position, operation, side = (_whole(row[name]) for name in ("position", "operation", "side"))
        price, size = _number(row["price"]), _number(row["size"])
        if position is None or operation not in (0, 1, 2) or side not in (0, 1):
            return False
        levels = self.sides[side]
        if operation == 2:
            if not 0 <= position < len(levels):
                return False
            del levels[position]
            return True
        if price is None or size is None or not 0 <= position <= len(levels) or position >= ROWS:
            return False
        levels[position : position + operation] = [(price, size)]
        del levels[ROWS:]
        return True

    @property
    def shown(self) -> BookSent:
        return tuple(self.sides[1][:SHOWN]), tuple(self.sides[0][:SHOWN])


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) and number not in _NO_VALUE else None


def books_sent(entries: Iterable[Entry]) -> dict[str, list[list[BookSent]]]:
    """symbol -> for each subscription, in order, the book after each row that has a place in it, and after each 317."""
    books: dict[tuple[int, int], tuple[NaiveBook, list[BookSent]]] = {}
    found: dict[str, list[list[BookSent]]] = {}
    for entry in entries:
        if entry.kind not in ("rows", "raw_row", "error"):
            continue
        key = (entry.connection, int(entry.detail["request_id"]))
        if entry.kind == "error":
            if entry.detail["code"] == 317 and key in books:
                book, states = books[key]
                book.reset()
                states.append(book.shown)
            continue
        if key not in books:
            books[key] = NaiveBook(), []
            found.setdefault(entry.name, []).append(books[key][1])
        book, states = books[key]
        for row in _rows(entry):
            if book.take(row):
                states.append(book.shown)
    return found


def _rows(entry: Entry) -> Iterator[Mapping[str, Any]]:
    if entry.kind == "raw_row":
        yield entry.detail
    else:
        yield from (row._asdict() for row in entry.rows)


def unsent(snapshots: Sequence[Snapshot], subscriptions: Sequence[Sequence[BookSent]]) -> tuple[int, Snapshot] | None:
    """The first snapshot that does not follow, and its place. None: every one is the next book of its subscription.

    Of each subscription the books from its first on are stored, in order, none missing and none doubled, up to the one
    at which it ended for the recorder; subscriptions may be missing as a whole.
    """
    at: set[tuple[int, int]] = {(-1, 0)}
    for place, snapshot in enumerate(snapshots):
        book = _book(snapshot)
        following: set[tuple[int, int]] = set()
        for number, step in at:
            if number >= 0 and step + 1 < len(subscriptions[number]) and subscriptions[number][step + 1] == book:
                following.add((number, step + 1))
        first = min(number for number, _ in at) + 1
        following |= {
            (number, 0)
            for number in range(first, len(subscriptions))
            if subscriptions[number] and subscriptions[number][0] == book
        }
        if not following:
            return place, snapshot
        at = following
    return None


def _book(snapshot: Snapshot) -> BookSent:
    return _levels(snapshot.bids), _levels(snapshot.asks)


def _levels(side: Sequence[Sequence[Any]]) -> tuple[Level, ...]:
    """Without the empty levels that fill a side up."""
    levels = [(float(price), float(size)) for price, size, _ in side]
    while levels and levels[-1] == (0.0, 0.0):
        levels.pop()
    return tuple(levels)
