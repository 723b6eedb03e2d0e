"""Which interval a snapshot belongs to, and whether it is settled. Pure.

A snapshot is settled if its book was complete and it is the last one that a read of the socket brought. All rows of
one read have one `ts`, so it must be followed by a snapshot of another `ts` (or another recv_ns, if that is recorded):
two reads within one millisecond count as one. The newest snapshot counts once NEWEST_SETTLES_MS have passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval

NEWEST_SETTLES_MS = 250
"""Longer than the recorder takes to store the rest of a read."""

PAUSE_MS = 10_000
"""Without records of subscriptions, a longer pause between two snapshots counts as unobserved."""

_EMPTY_ROW = b'[0.0,0.0,""]'


@dataclass(frozen=True, slots=True)
class Record:
    """What the recorder left of one symbol's subscriptions.

    first is the oldest on record, None if there is no record; `ended` those that a caller asked for, `open` the one
    that goes on, if one does.
    """

    first: SubscriptionInterval | None = None
    ended: Sequence[SubscriptionInterval] = ()
    open: SubscriptionInterval | None = None

    @property
    def intervals(self) -> list[SubscriptionInterval]:
        """All of them, in order."""
        every = {each.subscription: each for each in ([self.open] if self.open else []) + [*self.ended]}
        return sorted(every.values(), key=lambda interval: interval.subscription)


class Marker:
    """The record of one symbol, asked in the order of its snapshots."""

    def __init__(self, record: Record) -> None:
        self._since = None if record.first is None else beginning(record.first)
        self._intervals = [each for each in record.intervals if each.first_row is not None or each.open]
        self._beginnings = list(map(beginning, self._intervals))
        self._next = 0

    def covers(self, ts: int, seq: int) -> bool:
        """Whether there are records of that time: older data have none."""
        return self._since is not None and self._since <= (ts, seq)

    def interval_of(self, ts: int, seq: int) -> SubscriptionInterval | None:
        """The interval in which that snapshot was recorded; None if none is known."""
        while self._next < len(self._beginnings) and self._beginnings[self._next] <= (ts, seq):
            self._next += 1
        interval = self._intervals[self._next - 1] if self._next else None
        return interval if interval is not None and holds(interval, ts, seq) else None

    def _is_beyond_record(self, interval: SubscriptionInterval | None) -> bool:
        """Whether the last snapshot asked about came after all that is on record: its interval may yet be recorded."""
        return interval is None and self._next == len(self._beginnings)

    def marked(
        self, books: Sequence[DepthSnapshot], after: DepthSnapshot | None, now: int, inference: Inference
    ) -> list[DepthSnapshot]:
        """These with `subscription`, `observed` and `settled`; `after` is stored after them, `now` is unix ms.

        inference is asked about those that no record covers, and they count as observed.
        """
        return [
            self._mark(book, is_last_of_read(book, following, now), inference)
            for book, following in zip(books, [*books, after][1:], strict=True)
        ]

    def _mark(self, book: DepthSnapshot, last: bool | None, inference: Inference) -> DepthSnapshot:
        subscription: int | None = None
        observed: bool | None = True
        if self.covers(book.ts, book.seq):
            interval = self.interval_of(book.ts, book.seq)
            observed = None if self._is_beyond_record(interval) else interval is not None
            subscription = None if interval is None else interval.subscription
            complete = interval is not None and interval.complete is not None and book.ts >= interval.complete
        else:
            complete = inference.take(book)
        return DepthSnapshot(
            *(book.symbol, book.ts, book.seq, book.venue, book.bids_json, book.asks_json),
            *(subscription, observed, complete and last, book.recv_ns),
        )


def beginning(interval: SubscriptionInterval) -> tuple[int, int]:
    """The id of its first snapshot; of one that has none yet, the smallest that it can be."""
    if interval.first_row is None:
        return interval.requested, 0
    return interval.first_row, interval.first_seq or 0


def holds(interval: SubscriptionInterval, ts: int, seq: int) -> bool:
    """Whether a snapshot from its beginning on lies before its end."""
    if interval.open:
        return True
    return (interval.until is not None and ts <= interval.until) or seq <= (interval.last_seq or 0)


def is_last_of_read(snapshot: DepthSnapshot, after: DepthSnapshot | None, now: int) -> bool | None:
    """Whether it is the last snapshot that its read of the socket brought, as far as is known at unix ms `now`.

    None: that is not known yet.
    """
    if after is None:
        return True if now - snapshot.ts >= NEWEST_SETTLES_MS else None
    if snapshot.recv_ns is not None and after.recv_ns is not None:
        return snapshot.recv_ns != after.recv_ns
    return snapshot.ts != after.ts


class Inference:
    """Infers intervals from snapshots that no record covers: a rule of thumb, kept for older recordings.

    An interval begins with a snapshot that comes more than PAUSE_MS after the one before it, that does not follow it in
    `seq`, or that has a single row although the one before had more. It ends with its last snapshot. Its book is
    complete from the first snapshot that is not one row longer than the one before it, or from its beginning, if that
    has more than one row.
    """

    def __init__(self) -> None:
        self._last: DepthSnapshot | None = None
        self._last_rows = 0
        self._found: list[_Stretch] = []

    def take(self, book: DepthSnapshot) -> bool:
        """Takes the next snapshot. Returns whether its book is complete."""
        rows = rows_of(book)
        begins = self._begins(book, rows)
        if begins:
            self._found.append(_Stretch(book))
        stretch = self._found[-1]
        stretch.last = book
        stretch.rows += 1
        if stretch.complete is None and (rows > 1 if begins else rows != self._last_rows + 1):
            stretch.complete = book.ts
        self._last, self._last_rows = book, rows
        return stretch.complete is not None

    def _begins(self, book: DepthSnapshot, rows: int) -> bool:
        last = self._last
        if last is None or book.ts - last.ts > PAUSE_MS or book.seq != last.seq + 1:
            return True
        return rows == 1 and self._last_rows > 1

    def intervals(self, now: int) -> list[SubscriptionInterval]:
        """The intervals up to unix ms `now`. The last one is open if it may go on."""
        found = [each.interval() for each in self._found]
        if found and now - self._found[-1].last.ts <= PAUSE_MS:
            found[-1] = replace(found[-1], end=None)
        return found


class _Stretch:
    """Snapshots that make one inferred interval."""

    __slots__ = ("complete", "first", "last", "rows")

    def __init__(self, first: DepthSnapshot) -> None:
        self.first = self.last = first
        self.complete: int | None = None
        self.rows = 0

    def interval(self) -> SubscriptionInterval:
        """The interval, ended with the last snapshot."""
        first, last = self.first, self.last
        return SubscriptionInterval(
            *(first.symbol, 0, first.venue),
            requested=first.ts,
            first_row=first.ts,
            complete=self.complete,
            until=last.ts,
            first_seq=first.seq,
            last_seq=last.seq,
            rows=self.rows,
            end=EndReason.UNKNOWN,
        )


def rows_of(book: DepthSnapshot) -> int:
    """How many rows both sides hold, without decoding them."""
    return sum(SNAPSHOT_LEVELS - side.count(_EMPTY_ROW) for side in (book.bids_json, book.asks_json))
