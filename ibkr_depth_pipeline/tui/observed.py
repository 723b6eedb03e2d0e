"""Observed time: from when to when a symbol's book was known, and a heat map's columns made of that. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ibkr_depth_pipeline.reader.marking import PAUSE_MS
from ibkr_depth_pipeline.schema.decoding import EMPTY_LEVEL, DepthSnapshot, Level
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval


class Stretch(NamedTuple):
    """A time in which a book was observed without a break, unix ms, both ends included."""

    start: int
    end: int


def stretch_of(interval: SubscriptionInterval) -> Stretch | None:
    """The observed part of a subscription; None if it brought no row."""
    if interval.first_row is None:
        return None
    return Stretch(interval.first_row, max(interval.first_row, interval.until or 0))


def stretches_between(times: Iterable[int]) -> list[Stretch]:
    """The stretches that the times of snapshots make, for want of a record: none bridges more than PAUSE_MS."""
    found: list[Stretch] = []
    for ts in times:
        if found and ts - found[-1].end <= PAUSE_MS:
            found[-1] = Stretch(found[-1].start, ts)
        else:
            found.append(Stretch(ts, ts))
    return found


JOIN_MS = 2_500
"""The end of an open stretch is published every second and read twice a second: rows later than that begin another."""


def observed_now(
    before: Stretch | None, recorded: Stretch | None, goes_on: bool, times: Sequence[int]
) -> Stretch | None:
    """The stretch that is observed after snapshots of these `times` have come; `before` was so until then.

    recorded: the newest stretch that is on record, and whether it goes on; None if there is no record. Rows past it
    extend it if it goes on, else they begin one whose record is still to come.
    """
    if recorded is None:
        found, limit = before, PAUSE_MS
    elif before is not None and before.start - recorded.end > (JOIN_MS if goes_on else 0):
        found, limit = before, JOIN_MS
    else:
        found, limit = recorded, JOIN_MS if goes_on else 0
        if goes_on and before is not None:
            found = Stretch(found.start, max(found.end, before.end))
    for ts in times:
        if found is None or ts - found.end > limit:
            found, limit = Stretch(ts, ts), max(limit, JOIN_MS)
        found = Stretch(found.start, max(found.end, ts))
    return found


@dataclass(frozen=True, slots=True)
class TileSpan:
    """`count` columns of `step` ms each; the tile `number` begins at number * count * step (unix ms)."""

    step: int
    number: int
    count: int

    @property
    def start(self) -> int:
        """Where its first column begins, in unix ms."""
        return self.number * self.count * self.step

    @property
    def end(self) -> int:
        """Where its last column ends, in unix ms."""
        return self.start + self.count * self.step

    def columns(self) -> list[tuple[int, int]]:
        """The beginning and the end of each column, in unix ms."""
        return [(at, at + self.step) for at in range(self.start, self.end, self.step)]


UNOBSERVED, UNCHANGED = None, 0
"""A column in which the book was not observed, and one with the book of the column before it."""


def tile_columns(
    span: TileSpan,
    before: DepthSnapshot | None,
    newest: Sequence[DepthSnapshot | None],
    stretches: Sequence[Stretch],
    known_until: int,
) -> list[Any]:
    """The columns of a tile up to `known_until` (unix ms), each UNOBSERVED, UNCHANGED or a book.

    newest: the last snapshot of each column, None if there is none in it; before: the last one before the tile. A book
    is carried on only within the stretch in which it was observed.
    """
    found: list[Any] = []
    book, shown = before, None
    for (start, end), last in zip(span.columns(), newest, strict=True):
        if start > known_until:
            break
        book = last or book
        stretch = _overlapping(stretches, start, end)
        if book is None or (last is None and (stretch is None or book.ts < stretch.start)):
            found.append(UNOBSERVED)
            shown = None
        else:
            found.append(UNCHANGED if book is shown else book_of(book))
            shown = book
    return found


def _overlapping(stretches: Sequence[Stretch], start: int, end: int) -> Stretch | None:
    """The last stretch that is partly within [start, end)."""
    return next((each for each in reversed(stretches) if each.start < end and each.end >= start), None)


def book_of(snapshot: DepthSnapshot) -> list[Any]:
    """A book as the page gets it: ts, seq, bids and asks, best first, each row a price, a size and a venue."""
    return [snapshot.ts, snapshot.seq, _rows(snapshot.bids), _rows(snapshot.asks)]


def _rows(levels: Sequence[Level]) -> list[Level]:
    return [level for level in levels if level != EMPTY_LEVEL]
