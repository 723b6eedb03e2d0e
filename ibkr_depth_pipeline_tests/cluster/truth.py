"""A recording into several servers under load, a reader and an archiver beside it, and the truth to compare with."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from ibkr_depth_pipeline.archive.archiver import Archiver
from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.reader import AsyncDepthReader, At, DepthReader, Gap, Item
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval, interval_of_entry
from ibkr_depth_pipeline.schema.keys import open_turn_hash, stream_key, turns_stream
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.rows import BID, DELETE, INSERT, WireRow
from ibkr_depth_pipeline_tests.cluster.filling import SYMBOLS
from ibkr_depth_pipeline_tests.cluster.servers import Servers, client_of
from ibkr_depth_pipeline_tests.end_to_end.recording import settings_for, universe_of
from ibkr_depth_pipeline_tests.sink.writing import BookSnapshot, SnapshotWriter

Sides = tuple[list[list[Any]], list[list[Any]]]

_SETTINGS: dict[str, Any] = {
    "ibkr_rotation_secs": 3600,
    "ibkr_max_concurrent_depth": len(SYMBOLS),
    "archive_flush_secs": 0.5,
}


def books_of(rows: Iterable[WireRow], levels: int = 10) -> list[Sides]:
    """Bids and asks after each row, in a way of its own: plain lists, as the rows' own words say."""
    bids: list[list[Any]] = []
    asks: list[list[Any]] = []
    books = []
    for position, operation, side, price, size, venue in rows:
        book = bids if side == BID else asks
        level = [price, size, venue]
        if operation == INSERT:
            book.insert(position, level)
        elif operation == DELETE:
            del book[position]
        else:
            book[position] = level
        books.append((bids[:levels], asks[:levels]))
    return books


@dataclass
class Trial:
    """A recording under way. `followed` is what the readers have seen, the one for asyncio first."""

    servers: Servers
    gateway: SimulatedGateway
    archiver: Archiver
    tasks: Sequence[asyncio.Task[Any]]
    logged: list[Any]
    followed: list[Item]
    followed_too: list[Item]

    def stored(self, symbol: str) -> list[dict[bytes, bytes]]:
        """The entries of its stream."""
        with client_of(self.servers.master_of(stream_key(symbol))) as client:
            return [fields for _, fields in client.xrange(stream_key(symbol))]

    def intervals(self, symbol: str) -> list[SubscriptionInterval]:
        """Its intervals, and none that is open."""
        with client_of(self.servers.master_of(open_turn_hash(symbol))) as client:
            assert not client.exists(open_turn_hash(symbol))
        with client_of(self.servers.master_of(turns_stream(symbol))) as client:
            return [interval_of_entry(symbol, entry) for entry in client.xrange(turns_stream(symbol))]

    def length(self, symbol: str) -> int:
        """How many entries its stream has."""
        with client_of(self.servers.master_of(stream_key(symbol))) as client:
            return int(client.xlen(stream_key(symbol)))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something in Redis or here; fails as what runs meanwhile does. The test's own timeout bounds it."""
        while not await asyncio.to_thread(condition):
            for task in self.tasks:
                if task.done():
                    raise AssertionError(f"it ended: {task}") from task.exception()
            await asyncio.sleep(0.05)

    async def grows(self, symbols: Sequence[str] = SYMBOLS, by: int = 200) -> None:
        """Wait until the streams of `symbols` have so many more entries than now."""

        before = {symbol: await asyncio.to_thread(self.length, symbol) for symbol in symbols}
        await self.until(lambda: all(self.length(symbol) >= before[symbol] + by for symbol in symbols))

    async def is_true(self) -> None:
        """Stop the market and wait until each row that was sent has its snapshot in Redis, in the archive and with the
        reader; then compare them one by one."""
        self.gateway.set_rate(0.0)
        for symbol in SYMBOLS:
            await self.until(lambda symbol=symbol: self._has_all(symbol))  # type: ignore[misc]
            await asyncio.to_thread(self._is_the_truth, symbol)
            for items in (self.followed, self.followed_too):
                followed = numbers(items, symbol)
                assert followed == list(range(1, len(followed) + 1)), [
                    each for each in followed if isinstance(each, Gap)
                ]

    def _has_all(self, symbol: str) -> bool:
        kept = self.archiver.summary.snapshots.get(symbol, 0)
        count = self.gateway.journal.row_counts[symbol]
        seen = [len(numbers(items, symbol)) for items in (self.followed, self.followed_too)]
        return [self.length(symbol), kept, *seen] == [count] * 4

    def _is_the_truth(self, symbol: str) -> None:
        stored = self.stored(symbol)
        truth = books_of(self.gateway.journal.rows(symbol))
        assert [int(fields[b"seq"]) for fields in stored] == list(range(1, len(truth) + 1))
        for fields, (bids, asks) in zip(stored, truth, strict=True):
            assert _shown(fields[b"bids"]) == bids
            assert _shown(fields[b"asks"]) == asks


def numbers(items: Sequence[Item], symbol: str) -> list[Any]:
    """The seq of every snapshot of `symbol`, and a Gap as it is."""
    return [getattr(item, "seq", item) for item in tuple(items) if item.symbol == symbol]


def _shown(side: bytes) -> list[list[Any]]:
    return [level for level in orjson.loads(side) if level != [0.0, 0.0, ""]]


@asynccontextmanager
async def recorded(servers: Servers, archive: Path, rate: float = 300.0, **settings: Any) -> AsyncIterator[Trial]:
    """The ingest, a reader that follows, and an archiver; all of them are stopped at the end, and must end well."""
    options = GatewayOptions(slots=len(SYMBOLS), rows_per_second=rate)
    with structlog.testing.capture_logs() as logged:
        async with SimulatedGateway(options) as gateway, AsyncDepthReader(servers.url) as reader:
            chosen = settings_for(
                gateway, servers.url, archive_url=str(archive / "archive"), **{**_SETTINGS, **settings}
            )
            session, archiver = IngestSession(chosen, universe_of(*SYMBOLS)), Archiver(chosen)
            followed: list[Item] = []
            followed_too: list[Item] = []
            over = threading.Event()
            ingest = asyncio.ensure_future(session.run())
            archiving = asyncio.ensure_future(archiver.run())
            tasks: list[asyncio.Task[Any]] = [ingest, archiving]
            trial = Trial(servers, gateway, archiver, tasks, logged, followed, followed_too)
            try:
                await trial.grows(by=1)  # a reader refuses to follow what is not recorded
                tasks.append(asyncio.ensure_future(_follow(reader, followed)))
                tasks.append(asyncio.ensure_future(asyncio.to_thread(_follow_too, servers.url, followed_too, over)))
                await trial.grows()
                yield trial
                session.stop()
                summary = await ingest
                archiver.stop()
                kept = await archiving
                sent = dict(gateway.journal.row_counts)
                assert summary.drained, summary
                assert summary.snapshots == sent, (summary.snapshots, sent)
                assert (kept.snapshots, kept.gaps) == (sent, []), (kept.snapshots, kept.gaps, sent)
                for symbol in SYMBOLS:
                    [interval] = await asyncio.to_thread(trial.intervals, symbol)
                    assert (interval.first_seq, interval.last_seq, interval.rows) == (1, sent[symbol], sent[symbol])
                    assert (interval.subscription, interval.end) == (1, EndReason.STOPPED)
            finally:
                session.stop()
                archiver.stop()
                for following in tasks[2:3]:
                    following.cancel()
                over.set()
                await asyncio.gather(*trial.tasks, return_exceptions=True)


async def _follow(reader: AsyncDepthReader, found: list[Item]) -> None:
    following = reader.follow(*SYMBOLS, start=At(0))
    while True:
        found += await following.read(1.0)


def _follow_too(url: str, found: list[Item], over: threading.Event) -> None:
    with DepthReader(url) as reader:
        following = reader.follow(*SYMBOLS, start=At(0))
        while not over.is_set():
            found += following.read(0.5)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds; the test's own timeout bounds it."""
    while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - the condition is elsewhere
        await asyncio.sleep(0.05)


async def secs_until_stored(writer: SnapshotWriter, snapshot: BookSnapshot) -> float:
    """Give the writer one snapshot and wait until it counts as stored."""
    began = time.monotonic()
    writer.append(snapshot)
    while writer.figures.newest_seq.get(snapshot.symbol) != snapshot.seq:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
    return time.monotonic() - began
