"""Mirrors snapshots into Redis: each one, exactly once, in order, without ever holding up whoever brings them.

A snapshot's commands are XADD, HSET, SET EX, in that order, each only after the one before was acknowledged; for the
hash and the heartbeat only a symbol's newest snapshot of a flush counts. They go out in three pipelines a flush, all
symbols together, so that one symbol's failing key holds up no other.

The XADDs of one symbol go in one MULTI on its one key: Redis refuses such a block as a whole (out of memory, read-only,
loading), and so no later snapshot can get in before an earlier one. Where the answer was lost the block is said again:
Redis refuses ids that it holds, which for a repeated snapshot means that it was stored.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as redis
from redis.exceptions import ExecAbortError, ResponseError

from ibkr_depth_pipeline.errors import SinkConflict, SinkUnavailable
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.model import BookSnapshot, Instrument, Unresolved
from ibkr_depth_pipeline.sink.connection import UNREACHABLE
from ibkr_depth_pipeline.sink.encoding import Entry, SnapshotEncoder, StreamPosition, venue_fields
from ibkr_depth_pipeline.sink.keys import heartbeat_key, last_key, stream_key, venue_key

FLUSH_ENTRIES = 512
"""Most snapshots of one symbol in one flush, so that a long backlog neither blocks Redis nor starves other symbols."""

FIRST_PAUSE_SECS = 0.05
LONGEST_PAUSE_SECS = 1.0

_ALREADY_STORED = "equal or smaller than the target stream top item"


@dataclass
class WriterFigures:
    """What the writer has done, since it was made. Sizes are bytes."""

    stored: dict[str, int] = field(default_factory=dict)
    newest_seq: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    write_failures: int = 0
    buffered_entries: int = 0
    buffered_bytes: int = 0
    lags_ms: deque[int] = field(default_factory=lambda: deque(maxlen=1000))

    def lag_percentiles(self) -> tuple[float | None, float | None]:
        """Half and 99 of 100 of the newest blocks were stored within so many ms of their oldest row."""
        ordered = sorted(self.lags_ms)
        if not ordered:
            return None, None
        return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


class _SymbolQueue:
    """What is still to be done for one symbol."""

    def __init__(self, symbol: str, levels_shown: int) -> None:
        self.encoder = SnapshotEncoder(levels_shown)
        self.stream_key = stream_key(symbol)
        self.waiting: deque[Entry] = deque()  # for XADD
        self.stored: Entry | None = None  # newest in the stream, for HSET
        self.beat: int | None = None  # unix ms, for SET EX
        self.uncertain_seq = 0  # snapshots up to this one may be stored already
        self.pause = 0.0  # seconds until its next try, after its key failed
        self.not_before = 0.0  # loop time of that try

    def commands_due(self, now: float) -> bool:
        return now >= self.not_before and bool(self.waiting or self.stored or self.beat)


class RedisWriter:
    """The sink. `append` and `beat` never wait; `run` writes until it is cancelled; `drain` waits for all to be out.

    maxlen is the approximate length of a stream, buffer_bytes the bound of what waits while Redis is away (the oldest
    go first, counted), levels_shown the rows a side that are stored. `heartbeat_ttl` is in seconds and may be changed.
    """

    def __init__(self, client: redis.Redis, *, maxlen: int, buffer_bytes: int, levels_shown: int) -> None:
        self._client = client
        self._maxlen = maxlen
        self._buffer_bytes = buffer_bytes
        self._levels_shown = levels_shown
        self._queues: dict[str, _SymbolQueue] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._away = False
        self._log = get_log()
        self.heartbeat_ttl = 30
        self.figures = WriterFigures()

    # ---- before the first snapshot

    async def positions(self, symbols: Iterable[str]) -> dict[str, StreamPosition]:
        """Where each symbol's numbering stands in Redis. Raises SinkUnavailable."""
        try:
            return {symbol: await self._position(symbol) for symbol in symbols}
        except UNREACHABLE as error:
            raise SinkUnavailable(f"Redis: {error}") from None

    async def _position(self, symbol: str) -> StreamPosition:
        ts, seq = await self._client.hmget(last_key(symbol), ["ts", "seq"])
        of_hash = StreamPosition(int(ts or 0), int(seq or 0))
        try:
            info = await self._client.xinfo_stream(stream_key(symbol))
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return of_hash
        of_stream = StreamPosition.of_stream_id(info["last-generated-id"])
        return StreamPosition(max(of_hash.ts, of_stream.ts), max(of_hash.seq, of_stream.seq))

    async def record_venue(self, resolution: Instrument | Unresolved, checked_ts: int, reason: str = "") -> None:
        """Store what is known of a symbol's venue. A failure is logged and costs nothing else."""
        fields = venue_fields(resolution, checked_ts, reason)
        try:
            await self._client.hset(venue_key(resolution.symbol), mapping=fields)
        except UNREACHABLE as error:
            self._failed(resolution.symbol, "HSET", error)

    # ---- never waits

    def append(self, snapshot: BookSnapshot) -> None:
        """Take one snapshot. Its seq must be the last one's of this symbol plus 1, its ts not below."""
        queue = self._queue(snapshot.symbol)
        entry = queue.encoder.encode(snapshot)
        queue.waiting.append(entry)
        self.figures.buffered_entries += 1
        self.figures.buffered_bytes += entry.cost
        if self.figures.buffered_bytes > self._buffer_bytes:
            self._drop_oldest()
        self._wake.set()
        self._idle.clear()

    def beat(self, symbol: str, ts: int) -> None:
        """Say that the book of `symbol` is live; ts is the unix ms of its last row."""
        self._queue(symbol).beat = ts
        self._wake.set()
        self._idle.clear()

    def _queue(self, symbol: str) -> _SymbolQueue:
        queue = self._queues.get(symbol)
        if queue is None:
            queue = self._queues[symbol] = _SymbolQueue(symbol, self._levels_shown)
        return queue

    def _drop_oldest(self) -> None:
        while self.figures.buffered_bytes > self._buffer_bytes:
            waiting = {symbol: queue for symbol, queue in self._queues.items() if queue.waiting}
            if not waiting:
                return  # everything is on its way
            symbol = min(waiting, key=lambda name: waiting[name].waiting[0].ts)
            self._forget(waiting[symbol].waiting.popleft())
            dropped = self.figures.dropped[symbol] = self.figures.dropped.get(symbol, 0) + 1
            if dropped & (dropped - 1) == 0:  # at 1, 2, 4, 8, ...: often enough to see, seldom enough to bear
                self._log.error("buffer_full", symbol=symbol, dropped=dropped, buffer_bytes=self._buffer_bytes)

    def _forget(self, entry: Entry) -> None:
        self.figures.buffered_entries -= 1
        self.figures.buffered_bytes -= entry.cost

    # ---- writes

    async def run(self) -> None:
        """Write whatever there is, until cancelled. Raises SinkConflict when somebody else writes our streams."""
        pause = 0.0
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._flush()
                pause = 0.0
                self._back()
            except UNREACHABLE as error:
                self._gone(error)
                pause = min(max(2 * pause, FIRST_PAUSE_SECS), LONGEST_PAUSE_SECS)
                await asyncio.sleep(pause)
            self._look_again()

    async def drain(self, timeout: float) -> bool:
        """Wait until nothing is left to write, at most `timeout` seconds. Returns whether nothing is."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except (asyncio.TimeoutError, TimeoutError):
            return False
        return True

    def _look_again(self) -> None:
        """Wake up for what came meanwhile, at once; for keys that failed, when their pause is over."""
        loop = asyncio.get_running_loop()
        left = [queue for queue in self._queues.values() if queue.commands_due(float("inf"))]
        if not left:
            self._idle.set()
            return
        earliest = min(queue.not_before for queue in left)
        if earliest <= loop.time():
            self._wake.set()
        else:
            loop.call_at(earliest, self._wake.set)

    async def _flush(self) -> None:
        now = asyncio.get_running_loop().time()
        due = {symbol: queue for symbol, queue in self._queues.items() if queue.commands_due(now)}
        await self._write_streams({symbol: queue for symbol, queue in due.items() if queue.waiting})
        await self._write_hashes({s: queue for s, queue in due.items() if queue.stored and now >= queue.not_before})
        await self._write_beats({s: queue for s, queue in due.items() if queue.beat and now >= queue.not_before})

    async def _write_streams(self, queues: dict[str, _SymbolQueue]) -> None:
        if not queues:
            return
        pipe = self._client.pipeline(transaction=False)
        sent: list[tuple[str, _SymbolQueue, list[Entry]]] = []
        for symbol, queue in queues.items():
            entries = [queue.waiting.popleft() for _ in range(min(FLUSH_ENTRIES, len(queue.waiting)))]
            sent.append((symbol, queue, entries))
            pipe.execute_command("MULTI")
            for entry in entries:
                pipe.execute_command(*self._xadd(queue.stream_key, entry))
            pipe.execute_command("EXEC")
        try:
            replies = iter(await pipe.execute(raise_on_error=False))
        except BaseException:
            for _, queue, entries in sent:  # stored or not: unknown
                queue.waiting.extendleft(reversed(entries))
                queue.uncertain_seq = entries[-1].seq
            raise
        for symbol, queue, entries in sent:
            queued = [next(replies) for _ in range(1 + len(entries))]
            self._settle(symbol, queue, entries, _first_error(queued), next(replies))

    def _xadd(self, key: str, entry: Entry) -> tuple[Any, ...]:
        fields = ("ts", entry.ts, "bids", entry.bids, "asks", entry.asks, "seq", entry.seq, "venue", entry.venue)
        return ("XADD", key, "MAXLEN", "~", self._maxlen, entry.stream_id, *fields)

    def _settle(
        self, symbol: str, queue: _SymbolQueue, entries: list[Entry], queue_error: Exception | None, outcome: Any
    ) -> None:
        """Take note of what Redis said of one symbol's block."""
        failure = outcome if isinstance(outcome, Exception) else None
        if isinstance(outcome, ExecAbortError):
            failure = queue_error or outcome
        for index, entry in enumerate(entries):
            reply = failure or outcome[index]
            if isinstance(reply, Exception) and not self._held_already(reply, entry, queue, symbol):
                queue.waiting.extendleft(reversed(entries[index:]))
                self._failed(symbol, "XADD", reply, queue)
                return
            self._forget(entry)
            queue.stored = entry
            self.figures.stored[symbol] = self.figures.stored.get(symbol, 0) + 1
            self.figures.newest_seq[symbol] = entry.seq
        self.figures.lags_ms.append(time.time_ns() // 1_000_000 - entries[0].ts)
        queue.pause = 0.0

    def _held_already(self, reply: Exception, entry: Entry, queue: _SymbolQueue, symbol: str) -> bool:
        if _ALREADY_STORED not in str(reply):
            return False
        if entry.seq > queue.uncertain_seq:
            raise SinkConflict(f"{queue.stream_key} already holds {entry.stream_id} or later: somebody else writes it")
        return True

    async def _write_hashes(self, queues: dict[str, _SymbolQueue]) -> None:
        newest = {symbol: queue.stored for symbol, queue in queues.items() if queue.stored is not None}
        pipe = self._client.pipeline(transaction=False)
        for symbol, entry in newest.items():
            pipe.hset(last_key(symbol), mapping=entry.last_fields())
        for (symbol, entry), reply in zip(newest.items(), await _replies(pipe), strict=True):
            if isinstance(reply, Exception):
                self._failed(symbol, "HSET", reply, queues[symbol])
                continue
            queues[symbol].stored = None
            if entry.live:
                queues[symbol].beat = max(entry.ts, queues[symbol].beat or 0)

    async def _write_beats(self, queues: dict[str, _SymbolQueue]) -> None:
        beats = {symbol: queue.beat for symbol, queue in queues.items() if queue.beat is not None}
        pipe = self._client.pipeline(transaction=False)
        for symbol, ts in beats.items():
            pipe.set(heartbeat_key(symbol), ts, ex=self.heartbeat_ttl)
        for symbol, reply in zip(beats, await _replies(pipe), strict=True):
            if isinstance(reply, Exception):
                self._failed(symbol, "SET", reply, queues[symbol])
            elif queues[symbol].beat == beats[symbol]:
                queues[symbol].beat = None

    async def extend_heartbeats(self, last_rows: dict[str, int], now_ms: int) -> None:
        """Give the heartbeats that still stand the TTL now in force, counted from their last row (unix ms).

        For when the batch shrinks: a symbol that waits its turn must not look dead. A heartbeat that is gone stays so.
        """
        pipe = self._client.pipeline(transaction=False)
        for symbol, ts in last_rows.items():
            left = self.heartbeat_ttl - (now_ms - ts) // 1000
            if left > 0:
                pipe.expire(heartbeat_key(symbol), left)
        try:
            await _replies(pipe)
        except UNREACHABLE as error:
            self._gone(error)

    # ---- failures

    def _failed(self, symbol: str, command: str, error: Exception, queue: _SymbolQueue | None = None) -> None:
        self.figures.write_failures += 1
        self._log.error("redis_write_failed", symbol=symbol, command=command, error=str(error))
        if queue is not None:
            queue.pause = min(max(2 * queue.pause, FIRST_PAUSE_SECS), LONGEST_PAUSE_SECS)
            queue.not_before = asyncio.get_running_loop().time() + queue.pause

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


async def _replies(pipe: Any) -> list[Any]:
    return list(await pipe.execute(raise_on_error=False))


def _first_error(replies: list[Any]) -> Exception | None:
    return next((reply for reply in replies if isinstance(reply, Exception)), None)
