"""Mirrors snapshots into Redis: each one, exactly once, in order, without ever holding up whoever brings them.

A snapshot's commands are XADD, the hash, the heartbeat, in that order, each only after the one before was acknowledged;
for the hash and the heartbeat only a symbol's newest snapshot of a flush counts. They go out in three pipelines a
flush, all symbols together, so that one symbol's failing key holds up no other.

The XADDs of one symbol go in one MULTI on its one key: Redis refuses such a block as a whole (out of memory, read-only,
loading), and so no later snapshot can get in before an earlier one. Where the answer was lost the block is said again:
Redis refuses ids that it holds, which for a repeated snapshot means that it was stored. Hash and heartbeat are written
by scripts that refuse what is older than what is there: an unanswered command may still be carried out, much later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import redis.asyncio as redis
from redis.exceptions import ExecAbortError

from ibkr_depth_pipeline.errors import SinkConflict
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.model import BookSnapshot, Instrument, Unresolved
from ibkr_depth_pipeline.sink.backlog import Backlog, SymbolQueue, WriterFigures, longer_pause
from ibkr_depth_pipeline.sink.connection import UNREACHABLE
from ibkr_depth_pipeline.sink.encoding import Entry, StreamPosition, venue_fields
from ibkr_depth_pipeline.sink.keys import heartbeat_key, last_key, venue_key
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline.sink.positions import newest_ids, raise_positions, read_positions
from ibkr_depth_pipeline.sink.scripts import STORE_BEAT, STORE_LAST

FLUSH_ENTRIES = 512
"""Most snapshots of one symbol in one flush, so that a long backlog neither blocks Redis nor starves other symbols."""

_ALREADY_STORED = "equal or smaller than the target stream top item"

_Queues = dict[str, SymbolQueue]


class RedisWriter:
    """The sink. `append` and `beat` never wait; `run` writes until it is cancelled; `drain` waits for all to be out.

    maxlen is the approximate length of a stream, buffer_bytes the bound of what waits while Redis is away (the oldest
    go first, counted), levels_shown the rows a side that are stored. With a `lease`, nothing is sent that it does not
    allow. `heartbeat_ttl` is in seconds and may be changed.
    """

    def __init__(
        self, client: redis.Redis, *, maxlen: int, buffer_bytes: int, levels_shown: int, lease: Lease | None = None
    ) -> None:
        self._client = client
        self._maxlen = maxlen
        self._lease = lease
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = asyncio.Event()
        self._away = False
        self._log = get_log()
        self.heartbeat_ttl = 30
        self.figures = WriterFigures()
        self._backlog = Backlog(buffer_bytes, levels_shown, self.figures)

    # ---- before the first snapshot

    async def positions(self, symbols: Iterable[str]) -> dict[str, StreamPosition]:
        """Where each symbol's numbering stands in Redis. Raises SinkUnavailable."""
        return await read_positions(self._client, symbols)

    async def take_over(self, symbols: Iterable[str], now_ms: int) -> dict[str, StreamPosition]:
        """As `positions`, after which no predecessor can add to the streams any more. See raise_positions."""
        positions = await raise_positions(self._client, symbols, now_ms)
        for symbol, position in positions.items():
            self._backlog.queue(symbol).newest_sent = position
        return positions

    # ---- never waits

    def append(self, snapshot: BookSnapshot) -> None:
        """Take one snapshot. Its seq must be the last one's of this symbol plus 1, its ts not below."""
        self._backlog.append(snapshot)
        self._there_is_work()

    def beat(self, symbol: str, ts: int) -> None:
        """Say that the book of `symbol` is live; ts is the unix ms of its last row."""
        self._backlog.queue(symbol).beat = ts
        self._there_is_work()

    def record_venue(self, resolution: Instrument | Unresolved, checked_ts: int, reason: str = "") -> None:
        """Store what is known of a symbol's venue. Where its key fails, that is logged and costs nothing else."""
        self._backlog.queue(resolution.symbol).venue = venue_fields(resolution, checked_ts, reason)
        self._there_is_work()

    def _there_is_work(self) -> None:
        self._wake.set()
        self._idle.clear()

    # ---- writes

    async def run(self) -> None:
        """Write whatever there is, until cancelled.

        Raises SinkConflict when somebody else writes our streams, LeaseLost when another ingest has taken over.
        """
        pause = 0.0
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._flush()
                    pause = 0.0
                    self._back()
                except UNREACHABLE as error:
                    self._gone(error)
                    pause = longer_pause(pause)
                    await asyncio.sleep(pause)
                self._look_again()
        finally:
            self._ended.set()

    async def drain(self, timeout: float) -> bool:
        """Wait until nothing is left to write, at most `timeout` seconds. Returns whether nothing is."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._idle, self._ended)]
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        return self._idle.is_set()

    def _look_again(self) -> None:
        """Wake up for what came meanwhile, at once; for keys that failed, when their pause is over."""
        loop = asyncio.get_running_loop()
        earliest = min((queue.not_before for queue in self._backlog.unfinished()), default=None)
        if earliest is None:
            self._idle.set()
        elif earliest <= loop.time():
            self._wake.set()
        else:
            loop.call_at(earliest, self._wake.set)

    async def _flush(self) -> None:
        now = asyncio.get_running_loop().time()
        due = self._backlog.due(now)
        await self._write_venues({symbol: queue for symbol, queue in due.items() if queue.venue})
        await self._write_streams({symbol: queue for symbol, queue in due.items() if queue.waiting})
        await self._write_hashes({s: queue for s, queue in due.items() if queue.stored and now >= queue.not_before})
        await self._write_beats({s: queue for s, queue in due.items() if queue.beat and now >= queue.not_before})

    async def _permit(self) -> None:
        """Owed right before each write that is sent."""
        if self._lease is not None:
            await self._lease.hold()
            if self._lease.regained:
                await self._look_for_others(self._lease)

    async def _execute(self, pipe: Any) -> list[Any]:
        await self._permit()
        return list(await pipe.execute(raise_on_error=False))

    async def _look_for_others(self, lease: Lease) -> None:
        """The lease was free for a while: if somebody held it then, the streams have moved on."""
        for symbol, newest in (await newest_ids(self._client, self._backlog.queues)).items():
            if newest > self._backlog.queues[symbol].newest_sent:
                lease.lose(f"another ingest has written the stream of {symbol} while this one could not be heard")
        lease.regained = False

    # ---- streams

    async def _write_streams(self, queues: _Queues) -> None:
        if not queues:
            return
        await self._permit()
        blocks = {symbol: queue.take(FLUSH_ENTRIES) for symbol, queue in queues.items() if queue.waiting}
        try:
            replies = iter(await self._stream_pipeline(queues, blocks).execute(raise_on_error=False))
        except BaseException:
            for symbol, entries in blocks.items():
                queues[symbol].put_back(entries)
                queues[symbol].doubt(entries)
            raise
        conflicts = []
        for symbol, entries in blocks.items():
            queued = [next(replies) for _ in range(1 + len(entries))]
            conflicts += self._settle(symbol, queues[symbol], entries, queued, next(replies))
        if conflicts:
            raise conflicts[0]

    def _stream_pipeline(self, queues: _Queues, blocks: dict[str, list[Entry]]) -> Any:
        pipe: Any = self._client.pipeline(transaction=False)
        for symbol, entries in blocks.items():
            pipe.execute_command("MULTI")
            for entry in entries:
                pipe.execute_command(*self._xadd(queues[symbol].stream_key, entry))
            pipe.execute_command("EXEC")
        return pipe

    def _xadd(self, key: str, entry: Entry) -> tuple[Any, ...]:
        fields = ("ts", entry.ts, "bids", entry.bids, "asks", entry.asks, "seq", entry.seq, "venue", entry.venue)
        return ("XADD", key, "MAXLEN", "~", self._maxlen, entry.stream_id, *fields)

    def _settle(
        self, symbol: str, queue: SymbolQueue, entries: list[Entry], queued: list[Any], outcome: Any
    ) -> list[SinkConflict]:
        """Take note of what Redis said of one symbol's block. Returns the conflict that it shows, if it does."""
        failure = _failure(queued, outcome)
        if isinstance(queued[0], Exception):  # without its MULTI each XADD went by itself
            queue.doubt(entries)
        for index, entry in enumerate(entries):
            reply = failure or outcome[index]
            if isinstance(reply, Exception) and not (_is_held(reply) and entry.seq <= queue.uncertain_seq):
                queue.put_back(entries[index:])
                self._failed(symbol, "XADD", reply, queue)
                return [_conflict(queue, entry)] if _is_held(reply) else []
            self._stored(symbol, queue, entry)
        self.figures.lags_ms.append(time.time_ns() // 1_000_000 - entries[0].ts)
        queue.pause = 0.0
        return []

    def _stored(self, symbol: str, queue: SymbolQueue, entry: Entry) -> None:
        self._backlog.forget(entry)
        queue.stored = entry
        self.figures.stored[symbol] = self.figures.stored.get(symbol, 0) + 1
        self.figures.newest_seq[symbol] = entry.seq

    # ---- the other keys

    async def _write_hashes(self, queues: _Queues) -> None:
        newest = {symbol: queue.stored for symbol, queue in queues.items() if queue.stored is not None}
        if not newest:
            return
        pipe: Any = self._client.pipeline(transaction=False)
        for symbol, entry in newest.items():
            pipe.eval(STORE_LAST, 1, last_key(symbol), entry.seq, *_flat(entry.last_fields()))
        for (symbol, entry), reply in zip(newest.items(), await self._execute(pipe), strict=True):
            if isinstance(reply, Exception):
                self._failed(symbol, "HSET", reply, queues[symbol])
                continue
            queues[symbol].stored = None
            if entry.live:
                queues[symbol].beat = max(entry.ts, queues[symbol].beat or 0)

    async def _write_beats(self, queues: _Queues) -> None:
        beats = {symbol: queue.beat for symbol, queue in queues.items() if queue.beat is not None}
        if not beats:
            return
        pipe: Any = self._client.pipeline(transaction=False)
        for symbol, ts in beats.items():
            pipe.eval(STORE_BEAT, 1, heartbeat_key(symbol), ts, self.heartbeat_ttl)
        for symbol, reply in zip(beats, await self._execute(pipe), strict=True):
            if isinstance(reply, Exception):
                self._failed(symbol, "SET", reply, queues[symbol])
            elif queues[symbol].beat == beats[symbol]:
                queues[symbol].beat = None

    async def _write_venues(self, queues: _Queues) -> None:
        venues = {symbol: queue.venue for symbol, queue in queues.items() if queue.venue is not None}
        if not venues:
            return
        pipe: Any = self._client.pipeline(transaction=False)
        for symbol, fields in venues.items():
            pipe.hset(venue_key(symbol), mapping=fields)
        for symbol, reply in zip(venues, await self._execute(pipe), strict=True):
            if isinstance(reply, Exception):
                self._failed(symbol, "HSET", reply)
            if queues[symbol].venue is venues[symbol]:
                queues[symbol].venue = None

    async def extend_heartbeats(self, last_rows: dict[str, int], now_ms: int) -> None:
        """Give the heartbeats that still stand the TTL now in force, counted from their last row (unix ms).

        For when the batch shrinks: a symbol that waits its turn must not look dead. A heartbeat that is gone stays so.
        """
        pipe: Any = self._client.pipeline(transaction=False)
        for symbol, ts in last_rows.items():
            left = self.heartbeat_ttl - (now_ms - ts) // 1000
            if left > 0:
                pipe.expire(heartbeat_key(symbol), left)
        try:
            await self._execute(pipe)
        except UNREACHABLE as error:
            self._gone(error)

    # ---- failures

    def _failed(self, symbol: str, command: str, error: Exception, queue: SymbolQueue | None = None) -> None:
        self.figures.write_failures += 1
        self._log.error("redis_write_failed", symbol=symbol, command=command, error=str(error))
        if queue is not None:
            queue.postpone(asyncio.get_running_loop().time())

    def _gone(self, error: Exception) -> None:
        self.figures.write_failures += 1
        self._log.error(
            "redis_write_failed", error=str(error) or type(error).__name__, waiting=self.figures.buffered_entries
        )
        self._away = True

    def _back(self) -> None:
        if self._away:
            self._away = False
            self._log.info("redis_back", waiting=self.figures.buffered_entries)


def _flat(fields: dict[Any, Any]) -> list[Any]:
    return [part for field in fields.items() for part in field]


def _failure(queued: list[Any], outcome: Any) -> Exception | None:
    """Why a block was refused as a whole; None where its commands have answers of their own."""
    if isinstance(outcome, ExecAbortError):
        return next((reply for reply in queued if isinstance(reply, Exception)), outcome)
    return outcome if isinstance(outcome, Exception) else None


def _is_held(reply: Exception) -> bool:
    return _ALREADY_STORED in str(reply)


def _conflict(queue: SymbolQueue, entry: Entry) -> SinkConflict:
    return SinkConflict(f"{queue.stream_key} already holds {entry.stream_id} or later: somebody else writes it")
