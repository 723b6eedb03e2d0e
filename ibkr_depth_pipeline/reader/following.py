"""Following streams: the position in each, what has gone missing. Pure: queries, as in queries.py.

A position moves only when what was read is handed over, in one step without I/O: a read that fails half-way, or that is
cancelled, is simply done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ibkr_depth_pipeline.reader.model import After, AfterId, At, Item, Now, Start, Starts, unix_ms
from ibkr_depth_pipeline.reader.queries import Apart, Query
from ibkr_depth_pipeline.redis_link.routing import Command
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot, RawEntry, snapshot_of_entry
from ibkr_depth_pipeline.schema.gaps import Gap, GapCause
from ibkr_depth_pipeline.schema.keys import parts_of_id, stream_key

_BEGINNING = "0-0"
_LAST_OF_MS = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Position:
    """Read after `stream_id`. The last seq is `seq`, None if it is unknown: then nothing is expected of the next.

    began_at is the unix ms from which everything was asked for, None if that was not by time.
    """

    stream_id: str
    seq: int | None = None
    began_at: int | None = None

    def skips(self, first: DepthSnapshot) -> bool:
        """Whether snapshots may be missing before `first`."""
        if self.seq is not None:
            return first.seq != self.seq + 1
        return self.began_at is not None and first.seq > 1 and first.ts > self.began_at


class Following:
    """The positions in the streams of some symbols. `read` is a query for what is new.

    starts: one for all symbols or one for each. most: how many snapshots of a symbol are read at once. `trouble` is why
    the last `read_apart` could not read some of them, None if it could.
    """

    def __init__(self, symbols: Sequence[str], starts: Starts, most: int) -> None:
        if not symbols:
            raise ValueError("name at least one symbol to follow")
        self._starts = {symbol: _start_of(symbol, starts) for symbol in dict.fromkeys(symbols)}
        self._symbols = {stream_key(symbol).encode(): symbol for symbol in self._starts}
        self._positions: dict[str, Position] = {}
        self._most = most
        self.trouble: Exception | None = None

    def read(self, block_ms: int) -> Query[list[Item]]:
        """What is new, in order within each symbol; waits for it up to block_ms, at least 1."""
        yield from self._begin()
        [reply] = yield [self._xread(block_ms)]
        return (yield from self._take([(self._symbols[key], entries) for key, entries in reply or ()]))

    def read_apart(self) -> Query[list[Item]]:
        """As `read`, with a command for each symbol, so without waiting; and what can't be read is no reason to miss
        the rest, see `trouble`."""
        yield from self._begin()
        replies: list[Any] = yield Apart(
            [
                ("XREAD", "COUNT", self._most, "STREAMS", key, self._positions[symbol].stream_id)
                for key, symbol in self._symbols.items()
            ]
        )
        self.trouble = next((reply for reply in replies if isinstance(reply, Exception)), None)
        found = [reply[0] for reply in replies if reply and not isinstance(reply, Exception)]
        return (yield from self._take([(self._symbols[key], entries) for key, entries in found]))

    def _begin(self) -> Query[None]:
        if not self._positions:
            self._positions = yield from _resolve(self._starts)

    def _take(self, batches: Sequence[tuple[str, Sequence[RawEntry]]]) -> Query[list[Item]]:
        # a stream that is made or whose last id is raised wakes a waiting XREAD, with nothing in it
        batches = [(symbol, entries) for symbol, entries in batches if entries]
        oldest = yield from self._oldest_where_doubtful(batches)
        items: list[Item] = []
        taken: dict[str, Position] = {}
        for symbol, entries in batches:
            more, taken[symbol] = advance(self._positions[symbol], symbol, entries, oldest.get(symbol))
            items += more
        self._positions.update(taken)
        return items

    def _xread(self, block_ms: int) -> Command:
        keys = list(self._symbols)
        ids = [self._positions[symbol].stream_id for symbol in self._symbols.values()]
        return ("XREAD", "COUNT", self._most, "BLOCK", block_ms, "STREAMS", *keys, *ids)

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


def _start_of(symbol: str, starts: Starts) -> Start:
    start = starts.get(symbol) if isinstance(starts, Mapping) else starts
    if start is None:
        raise ValueError(f"no start is given for {symbol}")
    if isinstance(start, AfterId):
        parts_of_id(start.stream_id)
    return start


def _resolve(starts: Mapping[str, Start]) -> Query[dict[str, Position]]:
    """Where to begin. The current ends are asked for in one batch, so that "now" is one moment for all."""
    positions: dict[str, Position] = {}
    now = [symbol for symbol, start in starts.items() if isinstance(start, Now)]
    if now:
        replies = yield [("XREVRANGE", stream_key(symbol), "+", "-", "COUNT", 1) for symbol in now]
        for symbol, entries in zip(now, replies, strict=True):
            positions[symbol] = _end_of(symbol, entries)
    for symbol, start in starts.items():
        if isinstance(start, AfterId):
            positions[symbol] = Position(start.stream_id, parts_of_id(start.stream_id)[1])
        elif isinstance(start, At):
            positions[symbol] = _before(unix_ms(start.moment))
        elif isinstance(start, After):
            positions[symbol] = yield from find_seq(symbol, start.seq)
    return positions


def _end_of(symbol: str, newest: Sequence[RawEntry]) -> Position:
    if not newest:
        return Position(_BEGINNING)
    return Position(newest[0][0].decode(), snapshot_of_entry(symbol, newest[0]).seq)


def _before(ts: int) -> Position:
    return Position(f"{ts - 1}-{_LAST_OF_MS}" if ts > 0 else _BEGINNING, began_at=max(ts, 0))


def find_seq(symbol: str, seq: int) -> Query[Position]:
    """The position of the snapshot `seq`, by a binary search over the time that the stream spans.

    One round trip and one entry read a step: at most log2(span in ms) steps, 20 for a quarter of an hour. A seq that
    the stream does not reach back to is put at its beginning; one that it has not got to yet at its end.
    """
    key = stream_key(symbol)
    first, last = yield [("XRANGE", key, "-", "+", "COUNT", 1), ("XREVRANGE", key, "+", "-", "COUNT", 1)]
    if not first or seq < snapshot_of_entry(symbol, first[0]).seq:
        return Position(_BEGINNING, seq)
    newest = snapshot_of_entry(symbol, last[0])
    if seq >= newest.seq:
        return Position(newest.stream_id, seq)
    low, high = snapshot_of_entry(symbol, first[0]).ts, newest.ts
    while low < high:  # the first entry of the ms `low` is not past seq; all after `high` are
        middle = (low + high + 1) // 2
        [found] = yield [("XRANGE", key, middle, "+", "COUNT", 1)]
        probe = snapshot_of_entry(symbol, found[0]) if found else newest
        if probe.seq > seq:
            high = middle - 1
        else:
            low = max(middle, probe.ts)
    return Position(f"{low}-{seq}", seq)
