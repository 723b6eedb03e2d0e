"""What to ask of Redis, and what its replies mean. Pure: each query yields steps and is sent their results.

A batch of commands may go out in one pipeline; none spans two keys, but one of following.py if no cluster is read. Both
readers carry out the same queries, so a query's signature and docstring are those of their methods.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ibkr_depth_pipeline.reader import frames
from ibkr_depth_pipeline.reader.model import Moment, unix_ms
from ibkr_depth_pipeline.redis_link.routing import Command
from ibkr_depth_pipeline.schema.decoding import (
    DepthSnapshot,
    Heartbeat,
    VenueInfo,
    heartbeat_of,
    snapshot_of_entry,
    snapshot_of_hash,
    venue_of_hash,
)
from ibkr_depth_pipeline.schema.keys import (
    LAST_FIELDS,
    VENUE_FIELDS,
    heartbeat_key,
    id_after,
    last_key,
    stream_key,
    venue_key,
)

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

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


Query = Generator[Sequence[Command] | Apart | Keys | Pause, list[Any], T]
"""If a step fails, redis-py's exception is thrown into the query."""

Span = tuple[str, Moment, Moment | None]
"""A symbol, and the time from the first moment up to, without, the second; None: up to now."""

PAGE_ENTRIES = 2_000
"""Snapshots asked for at once, about 2.5 MB: a longer range neither blocks Redis nor fills its output buffer."""


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


def latest(symbol: str) -> Query[DepthSnapshot | None]:
    """The newest book; None if nothing was ever recorded. Whether it is live, `heartbeat` says."""
    return (yield from latest_all([symbol])).get(symbol)


def latest_all(symbols: Sequence[str] | None = None) -> Query[dict[str, DepthSnapshot]]:
    """The newest book of each symbol that has one; of all symbols if none are named."""
    if symbols is None:
        symbols = yield from _all_symbols()
    replies = yield [("HMGET", last_key(symbol), *LAST_FIELDS) for symbol in symbols]
    found = (snapshot_of_hash(symbol, values) for symbol, values in zip(symbols, replies, strict=True))
    return {snapshot.symbol: snapshot for snapshot in found if snapshot is not None}


_all_symbols = symbols  # latest_all has an argument of that name


def heartbeat(symbol: str) -> Query[Heartbeat | None]:
    """None: no book of this symbol is live, don't trust `latest`."""
    return (yield from heartbeats([symbol])).get(symbol)


def heartbeats(symbols: Sequence[str]) -> Query[dict[str, Heartbeat]]:
    """The heartbeat of each symbol that has one."""
    commands: list[Command] = []
    for symbol in symbols:
        key = heartbeat_key(symbol)
        commands += [("GET", key), ("PTTL", key)]
    replies = yield commands
    return {
        symbol: heartbeat_of(symbol, beat, ttl)
        for symbol, beat, ttl in zip(symbols, replies[::2], replies[1::2], strict=True)
        if beat is not None and ttl > 0
    }


def venue(symbol: str) -> Query[VenueInfo | None]:
    """Which venue is recorded, or why none is; None if the recorder has never looked for one."""
    return (yield from venues([symbol])).get(symbol)


def venues(symbols: Sequence[str]) -> Query[dict[str, VenueInfo]]:
    """What is known of each symbol's venue, for the symbols of which anything is."""
    replies = yield [("HMGET", venue_key(symbol), *VENUE_FIELDS) for symbol in symbols]
    found = (venue_of_hash(symbol, values) for symbol, values in zip(symbols, replies, strict=True))
    return {venue.symbol: venue for venue in found if venue is not None}


def read_range(
    symbol: str, start: Moment | None = None, end: Moment | None = None, *, limit: int | None = None
) -> Query[list[DepthSnapshot]]:
    """The snapshots with start <= ts < end, oldest first, at most `limit`, as far as the stream still holds them."""
    key = stream_key(symbol)
    low = "-" if start is None else str(max(0, unix_ms(start)))
    high = "+" if end is None else str(unix_ms(end) - 1)  # an id without its second part stands for the whole ms
    if high.startswith("-"):
        return []
    found: list[DepthSnapshot] = []
    while True:
        page = PAGE_ENTRIES if limit is None else min(PAGE_ENTRIES, limit - len(found))
        if page <= 0:
            return found
        [entries] = yield [("XRANGE", key, low, high, "COUNT", page)]
        found += (snapshot_of_entry(symbol, entry) for entry in entries)
        if len(entries) < page:
            return found
        low = id_after(entries[-1][0].decode())


def newest(symbol: str, count: int) -> Query[list[DepthSnapshot]]:
    """The last `count` snapshots, oldest first."""
    [entries] = yield [("XREVRANGE", stream_key(symbol), "+", "-", "COUNT", count)]
    return [snapshot_of_entry(symbol, entry) for entry in reversed(entries)]


def first_of(spans: Sequence[Span]) -> Query[list[DepthSnapshot | None]]:
    """The first snapshot of each span `(symbol, start, end)`, None if it holds none. Cheap: one entry each."""
    commands = []
    for symbol, start, end in spans:
        high = "+" if end is None else str(max(0, unix_ms(end) - 1))
        commands.append(("XRANGE", stream_key(symbol), str(max(0, unix_ms(start))), high, "COUNT", 1))
    replies = yield commands
    return [
        snapshot_of_entry(symbol, entries[0]) if entries else None
        for (symbol, _, _), entries in zip(spans, replies, strict=True)
    ]


def last_of(spans: Sequence[Span]) -> Query[list[DepthSnapshot | None]]:
    """The last snapshot of each span `(symbol, start, end)`, None if it holds none. Cheap: one entry each."""
    commands = []
    for symbol, start, end in spans:
        high = "+" if end is None else str(max(0, unix_ms(end) - 1))
        commands.append(("XREVRANGE", stream_key(symbol), high, str(max(0, unix_ms(start))), "COUNT", 1))
    replies = yield commands
    return [
        snapshot_of_entry(symbol, entries[0]) if entries else None
        for (symbol, _, _), entries in zip(spans, replies, strict=True)
    ]


def to_arrow(*symbols: str, start: Moment | None = None, end: Moment | None = None) -> Query[pa.Table]:
    """`range` of each symbol, one after the other, as one table of `frames.schema()`. Needs the extra `arrow`."""
    frames.need_arrow()
    found: list[DepthSnapshot] = []
    for symbol in symbols:
        found += yield from read_range(symbol, start, end)
    return frames.to_arrow(found)


def to_polars(*symbols: str, start: Moment | None = None, end: Moment | None = None) -> Query[pl.DataFrame]:
    """As `to_arrow`. Needs the extra `polars`."""
    frames.need_polars()
    return frames.to_polars((yield from to_arrow(*symbols, start=start, end=end)))


def to_pandas(*symbols: str, start: Moment | None = None, end: Moment | None = None) -> Query[pd.DataFrame]:
    """As `to_arrow`, with a column a level: `bid_price_0` and so on. Needs the extra `pandas`."""
    frames.need_pandas()
    return frames.to_pandas((yield from to_arrow(*symbols, start=start, end=end)))
