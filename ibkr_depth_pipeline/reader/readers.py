"""The readers, for asyncio and without an event loop: both carry out the same queries.

redis-py is imported when a reader is made, not when this package is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from ibkr_depth_pipeline.reader import alerts, queries, turns
from ibkr_depth_pipeline.reader.following import Following
from ibkr_depth_pipeline.reader.methods import Lookup, Method
from ibkr_depth_pipeline.reader.model import NOW, IntervalItem, Item, Points
from ibkr_depth_pipeline.reader.polling import Polling, unavailable, unreachable
from ibkr_depth_pipeline.reader.selection import Apart, Keys, Names, Pause, Query, Where, names_in, symbols
from ibkr_depth_pipeline.redis_link.url import RedisTarget, parse_redis_url
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot, Heartbeat, VenueInfo

if TYPE_CHECKING:
    from ibkr_depth_pipeline.redis_link.sync import SyncLink

T = TypeVar("T")
ItemT = TypeVar("ItemT")

CONNECT_TIMEOUT_SECS = 2.0
ANSWER_TIMEOUT_SECS = 5.0

_FORMS = (
    "redis://[user:password@]host[:port][/db], unix://path, redis+sentinel://host[:port][,...]/name or "
    "redis+cluster://host[:port][,...], and rediss for TLS"
)


class _Reader:
    """The queries that both readers carry out."""

    symbols = Method(symbols)
    latest = Lookup(queries.latest, DepthSnapshot)
    latest_all = Method(queries.latest_all)
    heartbeat = Lookup(queries.heartbeat, Heartbeat)
    heartbeats = Method(queries.heartbeats)
    venue = Lookup(queries.venue, VenueInfo)
    venues = Method(queries.venues)
    range = Method(queries.read_range)
    newest = Method(queries.newest)
    first_of = Method(queries.first_of)
    last_of = Method(queries.last_of)
    intervals = Method(turns.intervals)
    turns_since = Method(turns.turns_since)
    alerts_since = Method(alerts.alerts_since)
    to_arrow = Method(queries.to_arrow)
    to_polars = Method(queries.to_polars)
    to_pandas = Method(queries.to_pandas)
    resample = Method(queries.resample)

    def __init__(self, url: str) -> None:
        self._target = _target_of(url)

    def _polling(
        self, symbols: tuple[Names, ...], start: Points, patience: float | None, most: int, **options: bool
    ) -> Polling:
        return Polling(self._target, Following(names_in(*symbols), start, most, **options), patience)


class DepthReader(_Reader):
    """Reads what the recorder keeps in the Redis at `url`. Close it, or use it in a `with`.

    `url` is one that redis_link/url.py knows: of a server, of Sentinels or of a cluster.

    Every method but `follow` raises SinkUnavailable if Redis can't be reached or refuses, SchemaMismatch if a key does
    not hold what docs/redis-schema.md says. Threads may share a reader, but not what `follow` returns.
    """

    def __init__(self, url: str = "redis://localhost:6379/0") -> None:
        super().__init__(url)
        from ibkr_depth_pipeline.redis_link.sync import open_link

        self._link: SyncLink = open_link(
            self._target, connect_timeout=CONNECT_TIMEOUT_SECS, answer_timeout=ANSWER_TIMEOUT_SECS
        )

    def __enter__(self) -> DepthReader:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections. Repeatable."""
        self._link.close()

    @overload
    def follow(
        self,
        *symbols: Names,
        start: Points = NOW,
        patience: float | None = None,
        most: int = 1_000,
        intervals: Literal[False] = False,
        missing_ok: bool = False,
    ) -> SyncFollowing[Item]: ...
    @overload
    def follow(
        self,
        *symbols: Names,
        start: Points = NOW,
        patience: float | None = None,
        most: int = 1_000,
        intervals: bool,
        missing_ok: bool = False,
    ) -> SyncFollowing[IntervalItem]: ...
    def follow(
        self,
        *symbols: Names,
        start: Points = NOW,
        patience: float | None = None,
        most: int = 1_000,
        intervals: bool = False,
        missing_ok: bool = False,
    ) -> SyncFollowing[Any]:
        """Every snapshot from `start` on, as it is stored, with a Gap wherever some are missing.

        Without a name all symbols are followed that are recorded at the first read. missing_ok waits also for a symbol
        of which nothing is known yet, while others are. With `intervals` an IntervalStarted comes before the first
        snapshot of each subscription (at once, if one is open where the following begins) and an IntervalEnded after
        its last, and the snapshots are marked; that costs one more round trip a batch.

        Order holds within a symbol. If Redis goes away the reading goes on from the same position once it is back:
        nothing comes twice, and what was trimmed meanwhile is a Gap. After `patience` seconds away SinkUnavailable is
        raised, and at once if Redis can't be reached at the beginning; None waits without end.

        `After(seq)` costs a binary search: at most log2(the milliseconds that the stream spans) round trips a symbol.
        `most` snapshots of a symbol are read at a time.
        """
        return SyncFollowing(
            self, self._polling(symbols, start, patience, most, intervals=intervals, missing_ok=missing_ok)
        )

    def _ask(self, query: Query[T]) -> T:
        try:
            return self._carry_out(query)
        except unreachable() as error:
            raise unavailable(self._target, error) from None

    def _carry_out(self, query: Query[T]) -> T:
        try:
            step = next(query)
            while True:
                try:
                    result = self._do(step)
                except unreachable() as error:
                    step = query.throw(error)
                else:
                    step = query.send(result)
        except StopIteration as done:
            found: T = done.value
            return found

    def _do(self, step: Any) -> list[Any]:
        match step:
            case Pause(secs):
                time.sleep(secs)
                return []
            case Where():
                return [f"Redis at {self._target.address}"]
            case Keys(pattern):
                return list(self._link.keys(pattern))
            case Apart(commands):
                return self._link.ask_each(commands)
            case commands:
                return _unrefused(self._link.ask_each(commands))


class SyncFollowing(Generic[ItemT]):
    """Iterate over it, or `read` with a timeout. It never ends by itself."""

    def __init__(self, reader: DepthReader, polling: Polling) -> None:
        self._reader = reader
        self._polling = polling

    def __iter__(self) -> Iterator[ItemT]:
        return self

    def __next__(self) -> ItemT:
        item: ItemT = self._reader._carry_out(self._polling.next_item())
        return item

    def read(self, timeout: float | None = None) -> list[ItemT]:
        """All that has come since the last read; waits for it at most `timeout` seconds, None without end.

        Empty when the time was up, also if Redis is away.
        """
        return self._reader._carry_out(self._polling.read(timeout))


class AsyncDepthReader(_Reader):
    """DepthReader for asyncio: the same methods, awaited. Close it, or use it in an `async with`.

    Tasks may share a reader, but not what `follow` returns. Any method may be cancelled.
    """

    def __init__(self, url: str = "redis://localhost:6379/0") -> None:
        super().__init__(url)
        from ibkr_depth_pipeline.redis_link import aio, pipeline

        self._pipeline = pipeline
        self._client = aio.open_client(url, connect_timeout=CONNECT_TIMEOUT_SECS, answer_timeout=ANSWER_TIMEOUT_SECS)

    async def __aenter__(self) -> AsyncDepthReader:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections. Repeatable."""
        await self._client.aclose()

    @overload
    def follow(
        self,
        *symbols: Names,
        start: Points = NOW,
        patience: float | None = None,
        most: int = 1_000,
        intervals: Literal[False] = False,
        missing_ok: bool = False,
    ) -> AsyncFollowing[Item]: ...
    @overload
    def follow(
        self,
        *symbols: Names,
        start: Points = NOW,
        patience: float | None = None,
        most: int = 1_000,
        intervals: bool,
        missing_ok: bool = False,
    ) -> AsyncFollowing[IntervalItem]: ...
    def follow(
        self,
        *symbols: Names,
        start: Points = NOW,
        patience: float | None = None,
        most: int = 1_000,
        intervals: bool = False,
        missing_ok: bool = False,
    ) -> AsyncFollowing[Any]:
        """See DepthReader.follow."""
        return AsyncFollowing(
            self, self._polling(symbols, start, patience, most, intervals=intervals, missing_ok=missing_ok)
        )

    async def _ask(self, query: Query[T]) -> T:
        try:
            return await self._carry_out(query)
        except unreachable() as error:
            raise unavailable(self._target, error) from None

    async def _carry_out(self, query: Query[T]) -> T:
        try:
            step = next(query)
            while True:
                try:
                    result = await self._do(step)
                except unreachable() as error:
                    step = query.throw(error)
                else:
                    step = query.send(result)
        except StopIteration as done:
            found: T = done.value
            return found

    async def _do(self, step: Any) -> list[Any]:
        match step:
            case Pause(secs):
                await asyncio.sleep(secs)
                return []
            case Where():
                return [f"Redis at {self._target.address}"]
            case Keys(pattern):
                return [key async for key in self._client.scan_iter(match=pattern, count=1_000)]
            case Apart(commands):
                return await self._pipeline.ask_each(self._client, commands)
            case commands:
                return _unrefused(await self._pipeline.ask_each(self._client, commands))


class AsyncFollowing(Generic[ItemT]):
    """Iterate over it, or `read` with a timeout. It never ends by itself. A read that is cancelled loses nothing."""

    def __init__(self, reader: AsyncDepthReader, polling: Polling) -> None:
        self._reader = reader
        self._polling = polling

    def __aiter__(self) -> AsyncIterator[ItemT]:
        return self

    async def __anext__(self) -> ItemT:
        item: ItemT = await self._reader._carry_out(self._polling.next_item())
        return item

    async def read(self, timeout: float | None = None) -> list[ItemT]:
        """See SyncFollowing.read."""
        return await self._reader._carry_out(self._polling.read(timeout))


def _target_of(url: str) -> RedisTarget:
    """What `url` means. Raises ValueError, without a part of it, if it is none that is known."""
    try:
        return parse_redis_url(url)
    except ValueError as reason:
        raise ValueError(f"no Redis URL: {reason}; it may be {_FORMS}") from None


def _unrefused(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
