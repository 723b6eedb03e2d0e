"""The record of a symbol's subscriptions, as queries, and what each kind of call makes of it. Pure, as selection.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.reader.marking import Inference, Record
from ibkr_depth_pipeline.reader.moments import Points
from ibkr_depth_pipeline.reader.selection import Bounds, Names, Query, bounds_of, chosen, names_in, refuse_unknown
from ibkr_depth_pipeline.redis_link.routing import Command
from ibkr_depth_pipeline.schema.decoding import snapshot_of_entry
from ibkr_depth_pipeline.schema.intervals import (
    INTERVAL_FIELDS,
    SubscriptionInterval,
    decode_interval,
    interval_of_entry,
)
from ibkr_depth_pipeline.schema.keys import id_after, open_turn_hash, stream_key, turns_stream

PAGE_TURNS = 1_000
_NAMES = [name.encode() for name in INTERVAL_FIELDS]


class RecordReading:
    """Reads the record of one symbol piece by piece: what ended from unix ms `since` on, and what is open.

    The open subscription is asked for before the ended ones: one that ends in between is in one of the two replies.
    """

    def __init__(self, symbol: str, since: str = "-") -> None:
        self._symbol = symbol
        self._cursor = since
        self._first: SubscriptionInterval | None = None
        self._ended: list[SubscriptionInterval] = []
        self._open: SubscriptionInterval | None = None

    def commands(self) -> list[Command]:
        """What to ask for; `take` wants the replies."""
        turns = turns_stream(self._symbol)
        return [
            ("HMGET", open_turn_hash(self._symbol), *INTERVAL_FIELDS),
            ("XRANGE", turns, "-", "+", "COUNT", 1),
            ("XRANGE", turns, self._cursor, "+", "COUNT", PAGE_TURNS),
        ]

    def take(self, replies: Sequence[Any]) -> bool:
        """Takes the replies. Returns whether there is more to ask for."""
        values, first, ended = replies
        self._first = interval_of_entry(self._symbol, first[0]) if first else None
        self._ended += (interval_of_entry(self._symbol, entry) for entry in ended)
        if ended:
            self._cursor = id_after(ended[-1][0].decode())
        named = {name: value for name, value in zip(_NAMES, values, strict=True) if value is not None}
        self._open = decode_interval(self._symbol, named) if named else None
        return len(ended) == PAGE_TURNS

    def read(self) -> Query[Record]:
        """All that there is by now."""
        while self.take((yield self.commands())):
            pass
        return self.record

    @property
    def record(self) -> Record:
        """What has been read."""
        return Record(self._first or self._open, self._ended, self._open)


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


def _intervals_of(symbol: str, bounds: Bounds) -> Query[list[SubscriptionInterval]]:
    record = yield from RecordReading(symbol, bounds.low.partition("-")[0] or "-").read()
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
