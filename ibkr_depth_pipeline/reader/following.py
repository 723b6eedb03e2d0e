"""Following streams: the position in each, what has gone missing. Pure: queries, as in queries.py.

A position moves only when what was read is handed over, in one step without I/O: a read that fails half-way, or that is
cancelled, is simply done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.reader.model import NOW, IntervalItem, Item, Points, Start, point_for, position_of
from ibkr_depth_pipeline.reader.selection import (
    Apart,
    Position,
    Query,
    nothing_recorded,
    positions_of,
    refuse_unknown,
)
from ibkr_depth_pipeline.reader.selection import symbols as all_symbols
from ibkr_depth_pipeline.reader.turns import IntervalTracker
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot, RawEntry, snapshot_of_entry
from ibkr_depth_pipeline.schema.gaps import Gap, GapCause
from ibkr_depth_pipeline.schema.keys import parts_of_id, stream_key, turns_stream


class Following:
    """The positions in the streams of some symbols. `read` is a query for what is new.

    symbols: None follows all that are recorded when it begins. starts: one for all symbols or one for each. most: how
    many snapshots of a symbol are read at once. intervals: hand on where intervals begin and end, too, and mark the
    snapshots, for one more round trip a batch. missing_ok: wait for symbols of which nothing is known, too. `trouble`
    is why the last `read_apart` could not read some of them, None if it could.
    """

    def __init__(
        self,
        symbols: Sequence[str] | None,
        starts: Points,
        most: int,
        *,
        intervals: bool = False,
        missing_ok: bool = False,
    ) -> None:
        if symbols is None and isinstance(starts, Mapping):
            symbols = tuple(starts)
        self._named = symbols
        self._starts = starts
        self._check_starts()
        self._symbols: dict[bytes, str] = {}
        self._with_intervals = intervals
        self._trackers: dict[str, IntervalTracker] = {}
        self._positions: dict[str, Position] = {}
        self._most = most
        self._missing_ok = missing_ok
        self.trouble: Exception | None = None

    def _check_starts(self) -> None:
        if self._named is None:
            position_of(self._starts)
        for symbol in self._named or ():
            _start_of(symbol, self._starts)

    def read(self, block_ms: int) -> Query[list[IntervalItem]]:
        """What is new, in order within each symbol; waits for it up to block_ms, at least 1."""
        yield from self._begin()
        ids = self._ids()
        [reply] = yield [("XREAD", "COUNT", self._most, "BLOCK", block_ms, "STREAMS", *ids, *ids.values())]
        return (yield from self._take(dict(reply or ())))

    def read_apart(self) -> Query[list[IntervalItem]]:
        """As `read`, with a command for each stream, so without waiting; and what can't be read is no reason to miss
        the rest, see `trouble`."""
        yield from self._begin()
        commands = [("XREAD", "COUNT", self._most, "STREAMS", key, after) for key, after in self._ids().items()]
        replies: list[Any] = yield Apart(commands)
        self.trouble = next((reply for reply in replies if isinstance(reply, Exception)), None)
        return (
            yield from self._take(dict(reply[0] for reply in replies if reply and not isinstance(reply, Exception)))
        )

    def _ids(self) -> dict[bytes, str]:
        """The streams to read, and the id behind which each is read."""
        ids = {key: self._positions[symbol].stream_id for key, symbol in self._symbols.items()}
        turns = {turns_stream(name).encode(): tracker.reading.position for name, tracker in self._trackers.items()}
        return ids | turns

    def _begin(self) -> Query[None]:
        if not self._positions:
            names = yield from self._names()
            starts = {name: _start_of(name, self._starts) for name in names}
            positions = yield from positions_of(starts)
            self._symbols = {stream_key(name).encode(): name for name in names}
            if self._with_intervals:
                self._trackers = {name: IntervalTracker(name, positions[name].id) for name in names}
            self._positions = positions

    def _names(self) -> Query[Sequence[str]]:
        if self._named is None:
            found = yield from all_symbols()
            if not found:
                raise (yield from nothing_recorded(None, None, None))
            return found
        if not self._missing_ok:
            yield from refuse_unknown(self._named)
        return self._named

    def _take(self, replies: Mapping[bytes, Sequence[RawEntry]]) -> Query[list[IntervalItem]]:
        # a stream that is made or whose last id is raised wakes a waiting XREAD, with nothing in it
        batches = [
            (self._symbols[key], entries) for key, entries in replies.items() if entries and key in self._symbols
        ]
        oldest = yield from self._oldest_where_doubtful(batches)
        yield from self._read_records()
        found: dict[str, list[Item]] = {}
        taken: dict[str, Position] = {}
        for symbol, entries in batches:
            found[symbol], taken[symbol] = advance(self._positions[symbol], symbol, entries, oldest.get(symbol))
        self._positions.update(taken)
        if not self._trackers:
            return [item for items in found.values() for item in items]
        now = unix_ms()
        return [
            item
            for symbol, tracker in self._trackers.items()
            for item in tracker.items(found.get(symbol, ()), self._positions[symbol].id, now)
        ]

    def _read_records(self) -> Query[None]:
        """Brings the records of the symbols up to date: behind their snapshots, see IntervalTracker."""
        trackers = list(self._trackers.values())
        while trackers:
            replies = yield [command for tracker in trackers for command in tracker.reading.commands()]
            size = len(replies) // len(trackers)
            trackers = [
                tracker
                for at, tracker in enumerate(trackers)
                if tracker.reading.take(replies[at * size : (at + 1) * size])
            ]

    def _oldest_where_doubtful(self, batches: Sequence[tuple[str, Sequence[RawEntry]]]) -> Query[dict[str, str]]:
        """The id of the oldest entry still held, for the symbols whose batch does not join on."""
        doubtful = [
            symbol
            for symbol, entries in batches
            if self._positions[symbol].skips(snapshot_of_entry(symbol, entries[0]))
        ]
        if not doubtful:
            return {}
        replies = yield [("XRANGE", stream_key(symbol), "-", "+", "COUNT", 1) for symbol in doubtful]
        return {symbol: entries[0][0].decode() for symbol, entries in zip(doubtful, replies, strict=True) if entries}


def advance(
    position: Position, symbol: str, entries: Sequence[RawEntry], oldest: str | None
) -> tuple[list[Item], Position]:
    """The items of one batch, and the position after it. `oldest` is the stream's oldest id, if it was asked for.

    A stream is trimmed at its beginning only, so within a batch nothing can have been.
    """
    items: list[Item] = []
    for index, entry in enumerate(entries):
        snapshot = snapshot_of_entry(symbol, entry)
        if position.skips(snapshot):
            trimmed = index == 0 and oldest is not None and parts_of_id(oldest) >= (snapshot.ts, snapshot.seq)
            gap = _gap(position, snapshot, trimmed)
            items += [] if gap is None else [gap]
        items.append(snapshot)
        position = Position(entry[0].decode(), snapshot.seq)
    return items, position


def _gap(position: Position, snapshot: DepthSnapshot, trimmed: bool) -> Gap | None:
    if position.seq is None and not trimmed:
        return None  # the stream reaches back to where we began: nothing was there
    cause = GapCause.TRIMMED if trimmed else GapCause.NEVER_STORED
    if position.seq is not None and snapshot.seq <= position.seq:
        cause = GapCause.RENUMBERED
    return Gap(snapshot.symbol, position.seq, snapshot.seq, snapshot.ts, cause)


def _start_of(symbol: str, starts: Points) -> Start:
    return point_for(symbol, starts) or NOW
