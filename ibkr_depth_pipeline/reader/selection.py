"""Which symbols a call is about, and which part of their streams. Pure: a query yields steps and is sent their results.

A batch of commands may go out in one pipeline; none spans two keys, but one of following.py if no cluster is read. Both
readers carry out the same queries, so a query's signature and docstring are those of their methods.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ibkr_depth_pipeline.errors import NothingRecorded, UnknownSymbol
from ibkr_depth_pipeline.reader.model import After, AfterId, At, Now, Point, Points, Start, is_point, point_for
from ibkr_depth_pipeline.redis_link.routing import Command
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot, snapshot_of_entry
from ibkr_depth_pipeline.schema.keys import (
    LAST_OF_MS,
    StreamId,
    heartbeat_key,
    id_after,
    last_key,
    open_turn_hash,
    parts_of_id,
    stream_key,
    turns_stream,
    venue_key,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Apart:
    """A batch of which each command fails by itself: an exception may be sent in the place of its reply."""

    commands: Sequence[Command]


@dataclass(frozen=True, slots=True)
class Keys:
    """Every key that matches the pattern, some perhaps more than once."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is asked for so many seconds."""

    secs: float


@dataclass(frozen=True, slots=True)
class Where:
    """The address of what is read, for an error: one reply, without a password."""


Query = Generator[Sequence[Command] | Apart | Keys | Pause | Where, list[Any], T]
"""If a step fails, redis-py's exception is thrown into the query."""

Names: TypeAlias = str | Iterable[str] | None
"""One symbol, several, or None for all that are recorded."""

BEGINNING = "0-0"

# ---- symbols


def symbols() -> Query[tuple[str, ...]]:
    """Every symbol that has a stream, sorted. Costs a walk over all the keys of the database."""
    keys = yield Keys(f"{stream_key('')}*")
    return symbols_of(keys)


def symbols_of(keys: Iterable[bytes]) -> tuple[str, ...]:
    """The symbols of these streams, sorted. Another program's key, the name of which is no text, is passed over."""
    found = {_symbol_of(key) for key in keys}
    # the recorder's check of a Redis leaves a name in lower case for a moment
    return tuple(sorted(symbol for symbol in found if symbol and symbol == symbol.upper()))


def _symbol_of(key: bytes) -> str:
    try:
        return key.decode().removeprefix(stream_key(""))
    except UnicodeDecodeError:
        return ""


def names_in(*given: Names) -> tuple[str, ...] | None:
    """The symbols that a caller named, one by one or in a collection, each once; None if all are meant.

    Raises TypeError for what is no name, ValueError for a collection that is empty.
    """
    if all(each is None for each in given):
        return None
    found: list[str] = []
    for each in given:
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, Iterable) and not isinstance(each, bytes):
            found += each
        else:
            raise TypeError(
                f"{each!r} is no symbol: give a name or a list of names; times by name, start=... and end=..."
            )
    if not found:
        raise ValueError("no symbol is in the list: name at least one, or leave it out for all")
    for name in found:
        if not isinstance(name, str) or not name:
            raise TypeError(f"{name!r} is no symbol: a symbol is a text, such as 'SPY'")
    return tuple(dict.fromkeys(found))


def asked_for(
    given: Sequence[Names | Point], start: Points | None, end: Points | None
) -> tuple[tuple[str, ...] | None, Points | None, Points | None]:
    """The symbols, start and end of a call that may have them one after the other, as `range` has.

    Raises TypeError if one is given twice.
    """
    first = next((at for at, each in enumerate(given) if is_point(each)), len(given))
    times: Sequence[Any] = given[first:]
    if len(times) > 2 or (times and start is not None) or (len(times) > 1 and end is not None):
        raise TypeError(f"{', '.join(map(repr, times))}: more than one start and one end")
    names = names_in(*given[:first])  # type: ignore[arg-type]  # no point is among them
    return names, (times[0] if times else start), (times[1] if len(times) > 1 else end)


def chosen(names: Names) -> Query[tuple[str, ...]]:
    """The named symbols, or all."""
    named = names_in(names)
    return (yield from symbols()) if named is None else named


def refuse_unknown(names: Sequence[str]) -> Query[None]:
    """Raises UnknownSymbol if nothing at all is known of some of these, while others are recorded there."""
    keys = (stream_key, last_key, venue_key, heartbeat_key, turns_stream, open_turn_hash)
    replies = yield [("EXISTS", key(name)) for name in names for key in keys]
    unknown = [name for at, name in enumerate(names) if not any(replies[at * len(keys) : (at + 1) * len(keys)])]
    if not unknown:
        return
    known = yield from symbols()
    if known:
        [where] = yield Where()
        raise UnknownSymbol(unknown, known, where)


def nothing_recorded(names: Names, start: Points | None, end: Points | None) -> Query[NothingRecorded]:
    """The error that says what there is in the place of what was asked for."""
    [where] = yield Where()
    known = yield from symbols()
    if not known:
        return NothingRecorded(f"nothing is recorded in {where}: is it the right database, and does the recorder run?")
    found = names_in(names) or known
    asked = "" if start is None else f" from {start} on"
    asked += "" if end is None else f" before {end}"
    spans = []
    for symbol in found[:_SPANS_SHOWN]:
        first, last = yield [(name, stream_key(symbol), *ends, "COUNT", 1) for name, *ends in _FIRST_AND_LAST]
        spans.append(f"{symbol}: {_span(symbol, first, last)}")
    more = f" and {len(found) - _SPANS_SHOWN} more symbols" if len(found) > _SPANS_SHOWN else ""
    return NothingRecorded(f"nothing is recorded{asked} in {where}; there is {', '.join(spans)}{more}")


_SPANS_SHOWN = 5
_FIRST_AND_LAST = (("XRANGE", "-", "+"), ("XREVRANGE", "+", "-"))


def _span(symbol: str, first: Sequence[Any], last: Sequence[Any]) -> str:
    if not first or not last:
        return "nothing"
    oldest, newest = snapshot_of_entry(symbol, first[0]), snapshot_of_entry(symbol, last[0])
    return f"{oldest.time:%Y-%m-%dT%H:%M:%S}Z (seq {oldest.seq}) to {newest.time:%Y-%m-%dT%H:%M:%S}Z (seq {newest.seq})"


# ---- positions in a stream


@dataclass(frozen=True, slots=True)
class Position:
    """Read after `stream_id`. The last seq is `seq`, None if it is unknown: then nothing is expected of the next.

    began_at is the unix ms from which everything was asked for, None if that was not by time.
    """

    stream_id: str
    seq: int | None = None
    began_at: int | None = None

    @property
    def id(self) -> StreamId:
        """`stream_id` as numbers."""
        return StreamId(*parts_of_id(self.stream_id))

    def skips(self, first: DepthSnapshot) -> bool:
        """Whether snapshots may be missing before `first`."""
        if self.seq is not None:
            return first.seq != self.seq + 1
        return self.began_at is not None and first.seq > 1 and first.ts > self.began_at


class Bounds(NamedTuple):
    """The ids between which entries are read, as XRANGE takes them: both are held."""

    low: str
    high: str

    @property
    def times(self) -> tuple[int | None, int | None]:
        """The unix ms of the start, and of the end, which is not held any more; None if that is open."""
        low, high = (None if each in "-+" else parts_of_id(each)[0] for each in self)
        return low, None if high is None else high + 1


def positions_of(starts: Mapping[str, Start]) -> Query[dict[str, Position]]:
    """Where these are. The current ends are asked for in one batch, so that "now" is one moment for all."""
    positions: dict[str, Position] = {}
    now = [symbol for symbol, start in starts.items() if isinstance(start, Now)]
    if now:
        replies = yield [("XREVRANGE", stream_key(symbol), "+", "-", "COUNT", 1) for symbol in now]
        for symbol, entries in zip(now, replies, strict=True):
            positions[symbol] = _end_of(symbol, entries)
    for symbol, start in starts.items():
        match start:
            case AfterId(stream_id):
                positions[symbol] = Position(stream_id, parts_of_id(stream_id)[1])
            case At(moment):
                positions[symbol] = _before(int(moment))  # type: ignore[arg-type]  # unix ms by now
            case After(seq):
                positions[symbol] = yield from find_seq(symbol, seq)
    return positions


def bounds_of(names: Sequence[str], start: Points | None, end: Points | None) -> Query[dict[str, Bounds]]:
    """What lies from `start` on and before `end`, for each symbol."""
    lows = yield from positions_of(_given(names, start))
    highs = yield from positions_of(_given(names, end))
    return {
        name: Bounds(
            id_after(lows[name].stream_id) if name in lows else "-",
            highs[name].stream_id if name in highs else "+",
        )
        for name in names
    }


def _given(names: Sequence[str], points: Points | None) -> dict[str, Start]:
    return {name: found for name in names if (found := point_for(name, points)) is not None}


def _end_of(symbol: str, newest: Sequence[Any]) -> Position:
    if not newest:
        return Position(BEGINNING)
    return Position(newest[0][0].decode(), snapshot_of_entry(symbol, newest[0]).seq)


def _before(ts: int) -> Position:
    return Position(id_before(ts), began_at=max(ts, 0))


def id_before(ts: int) -> str:
    """The largest id before that unix ms."""
    return f"{ts - 1}-{LAST_OF_MS}" if ts > 0 else BEGINNING


def find_seq(symbol: str, seq: int) -> Query[Position]:
    """The position of the snapshot `seq`, by a binary search over the time that the stream spans.

    One round trip and one entry read a step: at most log2(span in ms) steps, 20 for a quarter of an hour. A seq that
    the stream does not reach back to is put at its beginning; one that it has not got to yet at its end.
    """
    key = stream_key(symbol)
    first, last = yield [("XRANGE", key, "-", "+", "COUNT", 1), ("XREVRANGE", key, "+", "-", "COUNT", 1)]
    if not first or seq < snapshot_of_entry(symbol, first[0]).seq:
        return Position(BEGINNING, max(seq, 0))
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
