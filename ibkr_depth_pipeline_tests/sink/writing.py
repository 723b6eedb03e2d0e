"""What the tests of the writer share: snapshots to tell apart, a writer at work, a look into Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import redis.asyncio as redis

from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS, Levels
from ibkr_depth_pipeline.schema.encoding import encode_side, level_text, venue_field
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.schema.status import RunIdentity
from ibkr_depth_pipeline.sink.backpressure import Backpressure
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.writer import RedisWriter

DRAIN = 100.0


class BookSnapshot(NamedTuple):
    """The state of one symbol's book after one row, as values. ts is unix ms, venue the subscription's."""

    symbol: str
    seq: int
    ts: int
    venue: str
    bids: Levels
    asks: Levels


def side_text(side: Levels, levels_shown: int = SNAPSHOT_LEVELS) -> bytes:
    """A side as Redis reads it."""
    return encode_side([level_text(level) for level in side], levels_shown)


def side_json(side: Levels, levels_shown: int = SNAPSHOT_LEVELS) -> bytes:
    """A side as it is stored."""
    return side_text(side, levels_shown).split(b"\r\n")[1]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class SnapshotWriter(RedisWriter):
    """A writer that takes values."""

    def append(self, snapshot: BookSnapshot) -> None:
        symbol, seq, ts, venue, bids, asks = snapshot
        self.queue(symbol).store(ts, seq, venue_field(venue), side_text(bids), side_text(asks))


def snapshots(
    symbol: str = "SPY", count: int = 10, first: int = 1, ts: int = 1_700_000_000_000
) -> Iterator[BookSnapshot]:
    """Books whose best bid carries the number, so that a reader can tell them apart."""
    for seq in range(first, first + count):
        bids = ((float(seq), 100.0, "ARCA"),)
        yield BookSnapshot(symbol, seq, ts + seq // 3, "ARCA", bids, ((2.5, 300.0, "NSDQ"),))


def identity(name: str) -> RunIdentity:
    """Of a run called `name`, on a host of its own."""
    return RunIdentity(name, f"host-of-{name}", 1, 1_700_000_000_000)


@asynccontextmanager
async def writing(
    url: str, *, maxlen: int = 1_000_000, buffer_bytes: int = 1 << 26, backpressure: Backpressure | None = None
) -> AsyncIterator[SnapshotWriter]:
    """A writer at work on the Redis at `url`."""
    client = open_redis(url)
    writer = SnapshotWriter(client, maxlen=maxlen, buffer_bytes=buffer_bytes, backpressure=backpressure)
    task = asyncio.ensure_future(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        await client.aclose()
        assert isinstance(ended, asyncio.CancelledError), ended


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[redis.Redis]:
    """A plain client to look with."""
    client = redis.Redis.from_url(url)
    try:
        yield client
    finally:
        await client.aclose()


async def numbers(client: redis.Redis, symbol: str = "SPY") -> list[int]:
    """The seq of every entry in the stream."""
    return [int(fields[b"seq"]) for _, fields in await client.xrange(stream_key(symbol))]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `condition` holds; the test's own timeout bounds it."""
    while not await condition():  # noqa: ASYNC110 - the condition is in Redis
        await asyncio.sleep(0.01)
