"""What to ask of Redis, and what its replies mean. Pure: each query yields commands and is sent their replies.

A query yields a batch of commands, which may go out in one pipeline; none spans two keys, but one of following.py where
no cluster is read. The sync and the async reader carry out the same queries.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ibkr_depth_pipeline.reader.model import Moment, unix_ms
from ibkr_depth_pipeline.redis_link.commands import Command
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

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Apart:
    """A batch of which each command fails by itself: an exception may be sent in the place of its reply."""

    commands: Sequence[Command]


Query = Generator[Sequence[Command] | Apart, list[Any], T]

Span = tuple[str, Moment, Moment | None]
"""A symbol, and the time from the first moment up to, without, the second; None: up to now."""

PAGE_ENTRIES = 2_000
"""Snapshots asked for at once, about 2.5 MB: a longer range neither blocks Redis nor fills its output buffer."""

STREAMS = f"{stream_key('')}*"
"""The pattern of the keys that `symbols_of` takes."""


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


def latest(symbols: Sequence[str]) -> Query[dict[str, DepthSnapshot]]:
    """The newest snapshot of each symbol that has one."""
    replies = yield [("HMGET", last_key(symbol), *LAST_FIELDS) for symbol in symbols]
    found = (snapshot_of_hash(symbol, values) for symbol, values in zip(symbols, replies, strict=True))
    return {snapshot.symbol: snapshot for snapshot in found if snapshot is not None}


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


def venues(symbols: Sequence[str]) -> Query[dict[str, VenueInfo]]:
    """What is known of each symbol's venue, of those of which anything is."""
    replies = yield [("HMGET", venue_key(symbol), *VENUE_FIELDS) for symbol in symbols]
    found = (venue_of_hash(symbol, values) for symbol, values in zip(symbols, replies, strict=True))
    return {venue.symbol: venue for venue in found if venue is not None}


def read_range(symbol: str, start: Moment | None, end: Moment | None, limit: int | None) -> Query[list[DepthSnapshot]]:
    """The snapshots with start <= ts < end, oldest first, at most `limit` of them."""
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
    """The last `count` snapshots of the stream, oldest first."""
    [entries] = yield [("XREVRANGE", stream_key(symbol), "+", "-", "COUNT", count)]
    return [snapshot_of_entry(symbol, entry) for entry in reversed(entries)]


def first_of(spans: Sequence[Span]) -> Query[list[DepthSnapshot | None]]:
    """The first snapshot of each span, None where it holds none: one cheap command each."""
    commands = []
    for symbol, start, end in spans:
        high = "+" if end is None else str(max(0, unix_ms(end) - 1))
        commands.append(("XRANGE", stream_key(symbol), str(max(0, unix_ms(start))), high, "COUNT", 1))
    replies = yield commands
    return [
        snapshot_of_entry(symbol, entries[0]) if entries else None
        for (symbol, _, _), entries in zip(spans, replies, strict=True)
    ]
