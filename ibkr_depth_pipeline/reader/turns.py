"""The record of a symbol's subscriptions, as queries, and what each kind of call makes of it. Pure, as selection.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.reader.marking import Inference, Marker, Record, beginning, holds
from ibkr_depth_pipeline.reader.model import IntervalEnded, IntervalItem, IntervalStarted, Item, Points
from ibkr_depth_pipeline.reader.selection import (
    BEGINNING,
    Bounds,
    Names,
    Query,
    bounds_of,
    chosen,
    id_before,
    names_in,
    refuse_unknown,
)
from ibkr_depth_pipeline.redis_link.routing import Command
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot, snapshot_of_entry
from ibkr_depth_pipeline.schema.intervals import (
    INTERVAL_FIELDS,
    SubscriptionInterval,
    decode_interval,
    interval_of_entry,
)
from ibkr_depth_pipeline.schema.keys import LAST_OF_MS, StreamId, id_after, open_turn_hash, stream_key, turns_stream

PAGE_TURNS = 1_000
_NAMES = [name.encode() for name in INTERVAL_FIELDS]


class RecordReading:
    """Reads the record of one symbol piece by piece: what ended behind the id `after`, and what is open.

    The open subscription is asked for before the ended ones: one that ends in between is in one of the two replies.
    """

    def __init__(self, symbol: str, after: str = BEGINNING) -> None:
        self._symbol = symbol
        self.position = after
        """The id of the newest turn that was read."""
        self._first: SubscriptionInterval | None = None
        self._ended: list[SubscriptionInterval] = []
        self._open: SubscriptionInterval | None = None
        self._newest = 0
        self._asked_again = False

    @classmethod
    def from_id(cls, symbol: str, low: str) -> RecordReading:
        """Reads what can touch snapshots from the id `low` on: the id of a turn holds the time of its end."""
        ts = 0 if low == "-" else int(low.partition("-")[0])
        return cls(symbol, id_before(ts))

    def commands(self) -> list[Command]:
        """What to ask for; `take` wants the replies."""
        turns = turns_stream(self._symbol)
        return [
            ("HMGET", open_turn_hash(self._symbol), *INTERVAL_FIELDS),
            ("XRANGE", turns, "-", "+", "COUNT", 1),
            ("XRANGE", turns, id_after(self.position), "+", "COUNT", PAGE_TURNS),
        ]

    def take(self, replies: Sequence[Any]) -> bool:
        """Takes the replies. Returns whether there is more to ask for."""
        values, first, ended = replies
        self._first = interval_of_entry(self._symbol, first[0]) if first else None
        self._ended += (interval_of_entry(self._symbol, entry) for entry in ended)
        if ended:
            self.position = ended[-1][0].decode()
        self._open = _open_of(self._symbol, values)
        return len(ended) == PAGE_TURNS or self._lacks_one()

    def _lacks_one(self) -> bool:
        """Whether an interval is in neither reply: the nodes of a cluster answer in any order. It is asked for once."""
        newest = self._ended[-1].subscription if self._ended else 0
        self._newest = max(newest, self._newest)
        lacks = self._open is not None and 0 < self._newest < self._open.subscription - 1
        self._asked_again = lacks and not self._asked_again
        return self._asked_again

    def read(self) -> Query[Record]:
        """All that there is by now."""
        while self.take((yield self.commands())):
            pass
        return self.record

    @property
    def record(self) -> Record:
        """What has been read."""
        return Record(self._first or self._open, self._ended, self._open)

    def forget(self, number: int) -> None:
        """Forgets the ended subscriptions before that one."""
        self._ended = [each for each in self._ended if each.subscription >= number]


class IntervalTracker:
    """Puts the beginnings and ends of one symbol's intervals between its snapshots, and marks these.

    The recorder stores an interval's hash before its snapshots, and its entry after them and before those of the next:
    so a record that is read after some snapshots holds the interval of each.
    """

    def __init__(self, symbol: str, begin: StreamId) -> None:
        self.reading = RecordReading.from_id(symbol, str(begin))
        self._begin = begin
        self._inference = Inference()
        self._begun = self._done = -1
        """The newest subscription whose beginning was handed on, and the newest that is over."""

    def items(self, items: Sequence[Item], position: StreamId, now: int) -> list[IntervalItem]:
        """What was read, with the beginnings and ends that belong before `position`, the newest id that was read."""
        record = self.reading.record
        books = [each for each in items if isinstance(each, DepthSnapshot)]
        marked = iter(Marker(record).marked(books, None, now, self._inference))
        found: list[IntervalItem] = []
        for each in items:
            if isinstance(each, DepthSnapshot):
                found += self._borders(record, StreamId(each.ts, each.seq))
                found.append(next(marked))
            else:
                found.append(each)
        found += self._borders(record, StreamId(position.ts, position.seq), are_read=True)
        self.reading.forget(self._done)
        return found

    def _borders(self, record: Record, at: StreamId, are_read: bool = False) -> list[IntervalItem]:
        """Beginnings and ends up to `at`, which is the next snapshot; are_read: it is the last one that was read."""
        found: list[IntervalItem] = []
        for interval in record.intervals:
            if interval.subscription <= self._done or (interval.first_row is None and (are_read or not interval.open)):
                continue
            if beginning(interval) > at:
                break
            if self._was_over(interval):
                self._done = interval.subscription
                continue
            if interval.subscription > self._begun:
                found.append(IntervalStarted(_since(interval, at)))
                self._begun = interval.subscription
            if not interval.open and (not holds(interval, *at) or (are_read and at.seq >= (interval.last_seq or 0))):
                found.append(IntervalEnded(interval))
                self._done = interval.subscription
        return found

    def _was_over(self, interval: SubscriptionInterval) -> bool:
        """Whether it ended before the beginning."""
        ts, seq = self._begin
        if interval.open or beginning(interval) > self._begin:
            return False
        return (interval.until or 0) <= ts or (interval.last_seq or 0) <= seq < LAST_OF_MS


def _since(interval: SubscriptionInterval, first: StreamId) -> SubscriptionInterval:
    """The interval, with its first snapshot: the record of an open one lags a little behind."""
    if interval.first_row is not None:
        return interval
    return replace(interval, first_row=first.ts, first_seq=first.seq)


def intervals(
    symbols: Names = None, start: Points | None = None, end: Points | None = None, *, missing_ok: bool = False
) -> Query[list[SubscriptionInterval]]:
    """When these symbols were subscribed to: all that touches the time, oldest first, one symbol after the other.

    The open one comes last. A subscription that brought no row has no `first_row`: `end` says why. If a recorder left
    no record, what can be inferred from the snapshots stands in its place (marking.Inference): `subscription` is 0.
    """
    names = yield from chosen(symbols)
    bounds = yield from bounds_of(names, start, end)
    found: list[SubscriptionInterval] = []
    for symbol in names:
        some = yield from _intervals_of(symbol, bounds[symbol])
        if not some and not missing_ok and names_in(symbols) is not None:
            yield from refuse_unknown([symbol])
        found += some
    return found


class NewTurns(NamedTuple):
    """What ended since the last reading, what is open, and the cursor to ask with next time."""

    ended: list[SubscriptionInterval]
    open: SubscriptionInterval | None
    cursor: str


def turns_since(cursors: Mapping[str, str], most: int = PAGE_TURNS) -> Query[dict[str, NewTurns]]:
    """What each symbol's record has that is new: cheap to repeat, as it is one round trip for all symbols.

    A cursor is that of the last reading, or at first a unix ms in text. At most so many of a symbol come at a time.
    """
    commands: list[Command] = []
    for symbol, cursor in cursors.items():
        commands += [
            ("HMGET", open_turn_hash(symbol), *INTERVAL_FIELDS),
            ("XRANGE", turns_stream(symbol), cursor, "+", "COUNT", most),
        ]
    replies = yield commands
    found = {}
    for (symbol, cursor), values, entries in zip(cursors.items(), replies[::2], replies[1::2], strict=True):
        ended = [interval_of_entry(symbol, entry) for entry in entries]
        found[symbol] = NewTurns(ended, _open_of(symbol, values), _cursor_after(entries, cursor))
    return found


def _cursor_after(entries: Sequence[Any], before: str) -> str:
    return id_after(entries[-1][0].decode()) if entries else before


def _open_of(symbol: str, values: Sequence[bytes | None]) -> SubscriptionInterval | None:
    named = {name: value for name, value in zip(_NAMES, values, strict=True) if value is not None}
    return decode_interval(symbol, named) if named else None


def _intervals_of(symbol: str, bounds: Bounds) -> Query[list[SubscriptionInterval]]:
    record = yield from RecordReading.from_id(symbol, bounds.low).read()
    if record.first is None:
        return (yield from _inferred(symbol, bounds))
    return [each for each in record.intervals if _touches(each, bounds)]


def _touches(interval: SubscriptionInterval, bounds: Bounds) -> bool:
    first, last = interval.requested or interval.first_row or 0, interval.until
    low = 0 if bounds.low == "-" else int(bounds.low.partition("-")[0])
    high = None if bounds.high == "+" else int(bounds.high.partition("-")[0])
    return (interval.open or last is None or last >= low) and (high is None or first <= high)


def _inferred(symbol: str, bounds: Bounds) -> Query[list[SubscriptionInterval]]:
    inference = Inference()
    low = bounds.low
    while True:
        [entries] = yield [("XRANGE", stream_key(symbol), low, bounds.high, "COUNT", PAGE_TURNS)]
        for entry in entries:
            inference.take(snapshot_of_entry(symbol, entry))
        if len(entries) < PAGE_TURNS:
            return inference.intervals(unix_ms())
        low = id_after(entries[-1][0].decode())
