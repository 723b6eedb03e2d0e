"""The reader for programs without an event loop: carries out the queries, waits, reconnects."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ibkr_depth_pipeline.reader import connection, frames, queries
from ibkr_depth_pipeline.reader.following import Following
from ibkr_depth_pipeline.reader.model import NOW, Item, Moment, Starts
from ibkr_depth_pipeline.reader.pace import Pace
from ibkr_depth_pipeline.reader.queries import Apart, Query, Span
from ibkr_depth_pipeline.redis_link.commands import Command
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot, Heartbeat, VenueInfo

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

T = TypeVar("T")


class DepthReader:
    """Reads what the recorder keeps in the Redis at `url`. Close it, or use it in a `with`.

    `url` is one that redis_link/url.py knows: of a server, of Sentinels or of a cluster.

    Every method but `follow` raises SinkUnavailable where Redis can't be reached or refuses, SchemaMismatch where a key
    does not hold what docs/redis-schema.md says. Threads may share a reader, but not what `follow` returns.
    """

    def __init__(self, url: str = "redis://localhost:6379/0") -> None:
        self._target = connection.target_of(url)
        self._link = connection.open_link(self._target)

    def __enter__(self) -> DepthReader:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Repeatable."""
        self._link.close()

    def symbols(self) -> tuple[str, ...]:
        """Every symbol that has a stream, sorted. Costs a walk over all the keys of the database."""
        try:
            return queries.symbols_of(self._link.keys(queries.STREAMS))
        except connection.unreachable() as error:
            raise connection.unavailable(self._target, error) from None

    def latest(self, symbol: str) -> DepthSnapshot | None:
        """The newest book; None where nothing was ever recorded. Whether it is live, `heartbeat` says."""
        return self._ask(queries.latest([symbol])).get(symbol)

    def latest_all(self, symbols: Sequence[str] | None = None) -> dict[str, DepthSnapshot]:
        """The newest book of each symbol, of all those that have one where none are named."""
        return self._ask(queries.latest(self.symbols() if symbols is None else symbols))

    def heartbeat(self, symbol: str) -> Heartbeat | None:
        """None: no book of this symbol is live, don't trust `latest`."""
        return self._ask(queries.heartbeats([symbol])).get(symbol)

    def heartbeats(self, symbols: Sequence[str]) -> dict[str, Heartbeat]:
        """The heartbeat of each symbol that has one."""
        return self._ask(queries.heartbeats(symbols))

    def venue(self, symbol: str) -> VenueInfo | None:
        """Which venue is recorded, or why none is; None where the recorder has never looked."""
        return self._ask(queries.venues([symbol])).get(symbol)

    def venues(self, symbols: Sequence[str]) -> dict[str, VenueInfo]:
        """What is known of each symbol's venue, of those of which anything is."""
        return self._ask(queries.venues(symbols))

    def range(
        self, symbol: str, start: Moment | None = None, end: Moment | None = None, *, limit: int | None = None
    ) -> list[DepthSnapshot]:
        """The snapshots with start <= ts < end, oldest first, as far as the stream still holds them."""
        return self._ask(queries.read_range(symbol, start, end, limit))

    def newest(self, symbol: str, count: int) -> list[DepthSnapshot]:
        """The last `count` snapshots, oldest first."""
        return self._ask(queries.newest(symbol, count))

    def first_of(self, spans: Sequence[Span]) -> list[DepthSnapshot | None]:
        """The first snapshot of each span `(symbol, start, end)`, None where it holds none. Cheap: one entry each."""
        return self._ask(queries.first_of(spans))

    def follow(
        self, *symbols: str, start: Starts = NOW, patience: float | None = None, most: int = 1_000
    ) -> SyncFollowing:
        """Every snapshot from `start` on, as it is stored, with a Gap wherever some are missing.

        Order holds within a symbol. Where Redis goes away the reading goes on where it was once it is back: nothing
        comes twice, and what was trimmed meanwhile is a Gap. After `patience` seconds away SinkUnavailable is raised,
        and at once where Redis can't be reached at the beginning; None waits for ever.

        `After(seq)` costs a binary search: at most log2(the milliseconds that the stream spans) round trips a symbol.
        `most` snapshots of a symbol are read at a time.
        """
        return SyncFollowing(self, Following(symbols, start, most), patience)

    def to_arrow(self, *symbols: str, start: Moment | None = None, end: Moment | None = None) -> pa.Table:
        """`range` of each symbol, one after the other, as one table of `frames.schema()`. Needs the extra `arrow`."""
        frames.need_arrow()
        return frames.to_arrow(snapshot for symbol in symbols for snapshot in self.range(symbol, start, end))

    def to_polars(self, *symbols: str, start: Moment | None = None, end: Moment | None = None) -> pl.DataFrame:
        """As `to_arrow`. Needs the extra `polars`."""
        frames.need_polars()
        return frames.to_polars(self.to_arrow(*symbols, start=start, end=end))

    def to_pandas(self, *symbols: str, start: Moment | None = None, end: Moment | None = None) -> pd.DataFrame:
        """As `to_arrow`, with a column a level: `bid_price_0` and so on. Needs the extra `pandas`."""
        frames.need_pandas()
        return frames.to_pandas(self.to_arrow(*symbols, start=start, end=end))

    def _ask(self, query: Query[T]) -> T:
        try:
            return self._carry_out(query)
        except connection.unreachable() as error:
            raise connection.unavailable(self._target, error) from None

    def _carry_out(self, query: Query[T]) -> T:
        try:
            batch = next(query)
            while True:
                batch = query.send(self._execute(batch))
        except StopIteration as done:
            result: T = done.value
            return result

    def _execute(self, batch: Sequence[Command] | Apart) -> list[Any]:
        if isinstance(batch, Apart):
            return self._link.ask_each(batch.commands)
        replies = self._link.ask_each(batch)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies


class SyncFollowing(Pace):
    """Iterate over it, or `read` with a timeout. It never ends by itself."""

    def __init__(self, reader: DepthReader, following: Following, patience: float | None) -> None:
        super().__init__(reader._target, following, patience)
        self._reader = reader

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        while not self._waiting:
            self._waiting.extend(self._read(connection.LONGEST_BLOCK_SECS))
        return self._waiting.popleft()

    def read(self, timeout: float | None = None) -> list[Item]:
        """All that has come since the last read; waits for it at most `timeout` seconds, None for ever.

        Empty when the time was up, also where Redis is away.
        """
        if self._waiting:
            return self._handed_over()
        until = self._until(timeout)
        while True:
            items = self._read(self._left(until))
            if items or self._is_over(until):
                return items

    def _read(self, wait: float) -> list[Item]:
        """One try; a failed one costs a pause, at most `wait` seconds."""
        try:
            if connection.is_apart(self._target):
                return self._looked(self._look(wait))
            return self._looked(self._reader._carry_out(self._following.read(max(1, round(wait * 1000)))))
        except connection.unreachable() as error:
            time.sleep(min(wait, self._pause_after(error)))
            return []

    def _look(self, wait: float) -> list[Item]:
        """Look again and again until there is something."""
        until = time.monotonic() + wait
        if self._following.trouble is not None:
            time.sleep(min(wait, connection.FIRST_PAUSE_SECS))
        while True:
            items = self._reader._carry_out(self._following.read_apart())
            left = until - time.monotonic()
            if items or self._following.trouble is not None or left <= 0:
                return items
            time.sleep(min(left, connection.LOOK_SECS))
