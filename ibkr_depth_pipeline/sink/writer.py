"""Mirrors snapshots into Redis: each one, exactly once, in order, without ever holding up the caller.

All there is to write goes out in one flush; while its answers are on their way, the next one gathers. So a lone
row is sent at once, and under load the flushes grow. What is sent, and what an answer means, is in writes.py.

A flush is sent by the callback that brought the rows, by the one that read the last reply to the flush before it, or by
a timer. `run` sends what one of these may not: if the lease is to be renewed or a connection to be made, after a
failure, and to a cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ibkr_depth_pipeline.clock import loop_time, monotonic
from ibkr_depth_pipeline.errors import SinkConflict
from ibkr_depth_pipeline.logs import LogRateLimit, RepeatedFailureLog, get_log
from ibkr_depth_pipeline.model import Instrument, Unresolved
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE, as_unavailable, text_of
from ibkr_depth_pipeline.redis_link.pipeline import ask_each
from ibkr_depth_pipeline.schema.encoding import ReceiveStamp, venue_fields
from ibkr_depth_pipeline.schema.keys import StreamId, heartbeat_key, rows_stream
from ibkr_depth_pipeline.schema.size_units import SizeUnit
from ibkr_depth_pipeline.sink.backlog import RETRIES, Backlog, SymbolQueue, WriterFigures
from ibkr_depth_pipeline.sink.backpressure import Backpressure
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline.sink.row_queue import RowQueue
from ibkr_depth_pipeline.sink.stream_fence import newest_ids, raise_positions, raise_streams
from ibkr_depth_pipeline.sink.turn_fence import close_lost_turns, stored_sizes
from ibkr_depth_pipeline.sink.turns import SymbolTurns
from ibkr_depth_pipeline.sink.wire import Answer, Outcome, Part, open_wire, packed_of
from ibkr_depth_pipeline.sink.writes import EXTEND_BEAT, StreamWrite, Write, is_held, writes_of
from ibkr_depth_pipeline.tasks import first_of


class _Flush(NamedTuple):
    """What goes out together, and when it did (clock.monotonic)."""

    writes: list[Write]
    parts: list[Part]
    began: float

    def unknown(self) -> None:
        """Whether any of it was carried out is unknown."""
        for write in self.writes:
            write.unknown()


class RedisWriter:
    """The sink. `queue(symbol).store` takes snapshots, and like `beat` never waits; `run` writes until it is cancelled;
    `drain` waits for all to be out. A snapshot's seq must be the last one's of its symbol plus 1, its ts not below.

    maxlen is the approximate length of a stream, buffer_bytes the bound of what waits while Redis is away (the oldest
    go first, counted). With a `lease`, nothing is sent that it does not allow; `backpressure` gets each flush's time.
    `heartbeat_ttl` is in seconds and may be changed, as may `own_heartbeat_ttls`, those of symbols with another one.
    What fewer than min_replicas replicas have is sent again. snapshot_stamp: snapshots bear its `recv_ns`; row_stamp:
    rows are kept as well, by `rows(symbol)`, and bear its.
    """

    def __init__(
        self,
        client: Client,
        *,
        maxlen: int,
        buffer_bytes: int,
        lease: Lease | None = None,
        backpressure: Backpressure | None = None,
        min_replicas: int = 0,
        snapshot_stamp: ReceiveStamp | None = None,
        row_stamp: ReceiveStamp | None = None,
    ) -> None:
        self._client = client
        self._min_replicas = min_replicas
        self._row_stamp = row_stamp
        self._maxlen = maxlen
        self._wire = open_wire(client, min_replicas)
        self._lease = lease
        self._backpressure = backpressure
        self._wake = asyncio.Event()
        self._is_parked = False  # whether `run` waits for work
        self._sent: _Flush | None = None  # whose answers come by `_answered`
        self._failure: Exception | None = None  # of such a flush, for `run`
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._outage = RepeatedFailureLog("redis_write_failed", over="redis_back")
        self._log = get_log()
        self.heartbeat_ttl = 30
        self.own_heartbeat_ttls: Mapping[str, int] = {}
        self.figures = WriterFigures()
        self.log_limit = LogRateLimit()  # of refused writes; the owner starts its windows
        self._backlog = Backlog(
            maxlen=maxlen,
            bound=buffer_bytes,
            figures=self.figures,
            backpressure=backpressure,
            on_work=self._there_is_work,
            stamp=snapshot_stamp,
        )

    # ---- before the first snapshot

    async def take_over(self, symbols: Iterable[str], now_ms: int) -> dict[str, StreamId]:
        """Where each symbol's numbering stands; no predecessor can add to the streams any more. See raise_positions."""
        positions = await raise_positions(self._client, symbols, now_ms, self._min_replicas)
        for symbol, position in positions.items():
            self._backlog.queue(symbol).number_from(position)
        if self._row_stamp is not None:
            with as_unavailable():
                await raise_streams(self._client, rows_stream, positions, now_ms, self._min_replicas)
        return positions

    async def take_over_turns(self, symbols: Iterable[str], now_ms: int) -> dict[str, int]:
        """How far each symbol's subscriptions are numbered, once `take_over` is done. See turn_fence.py."""
        return await close_lost_turns(self._client, symbols, now_ms, self._min_replicas)

    async def known_sizes(self, symbols: Iterable[str]) -> dict[str, SizeUnit]:
        """What is stored of the unit of each symbol's sizes. Raises SinkUnavailable."""
        return await stored_sizes(self._client, symbols)

    # ---- never waits

    def queue(self, symbol: str) -> SymbolQueue:
        """The queue of `symbol`, whose `store` takes its snapshots."""
        return self._backlog.queue(symbol)

    def turns(self, symbol: str) -> SymbolTurns:
        """What takes the intervals of `symbol`."""
        return self._backlog.queue(symbol).turns

    def rows(self, symbol: str) -> RowQueue:
        """What takes the rows of `symbol`, if they are kept."""
        queue = self._backlog.row_queues.get(symbol)
        if not isinstance(queue, RowQueue):
            assert self._row_stamp is not None
            queue = RowQueue(symbol, self._maxlen, self._row_stamp, self._backlog)
            self._backlog.row_queues[symbol] = queue
        return queue

    def has_unsent(self, symbol: str) -> bool:
        """Whether a snapshot, a row or an interval of it waits or is on its way."""
        queues = (self._backlog.queues.get(symbol), self._backlog.row_queues.get(symbol))
        return any(queue.waiting or queue.on_its_way or queue.turns.has_work for queue in queues if queue is not None)

    def forget(self, symbol: str) -> None:
        """Forget a symbol that is not written any more; nothing of it may be unsent."""
        self._backlog.forget(symbol)

    def beat(self, symbol: str, ts: int) -> None:
        """Note that the book of `symbol` is live; ts is the unix ms of its last row."""
        self._backlog.queue(symbol).note_beat(ts, monotonic())

    def hold_heartbeats_if(self, held: Callable[[str], bool]) -> None:
        """Write no heartbeat of a symbol while held(symbol) is true, even if its rows are stored."""
        self._backlog.held = held

    def record_venue(
        self,
        resolution: Instrument | Unresolved,
        checked_ts: int,
        reason: str = "",
        refused_venues: str | None = None,
    ) -> None:
        """Store what is known of a symbol's venue. Where its key fails, that is logged and costs nothing else."""
        fields = venue_fields(resolution, checked_ts, reason, refused_venues)
        self._backlog.queue(resolution.symbol).note_venue(fields)

    def record_sizes(self, symbol: str, unit: SizeUnit) -> None:
        """Store what is known of the unit of a symbol's sizes, beside its venue."""
        self._backlog.queue(symbol).note_venue(unit.fields())

    def record_contract(self, instrument: Instrument) -> None:
        """The snapshots of this symbol that come from now on are of this contract."""
        queue = self._backlog.queue(instrument.symbol)
        queue.note_contract(instrument.con_id, instrument.local_symbol, instrument.expiry)

    def gather(self) -> None:
        """A batch of rows follows, and then `send_now`: what is stored meanwhile is not sent before."""
        self._backlog.gathers = True

    def send_now(self) -> None:
        """Send what is due in this turn of the event loop, unless a flush is under way or `run` has to wait first.

        To be called at the end of a batch of rows. Nothing is lost without it but a turn of the loop.
        """
        self._backlog.gathers = False
        queue = self._backlog.lone()
        if queue is not None and self._sent is None and self._is_parked and self._may_send():
            self._send_lone(queue)
        elif self._backlog.has_news:
            self._idle.clear()
            self._attend()

    def _send_lone(self, queue: SymbolQueue) -> None:
        """Send the snapshot that waits there, and only then note what was sent: its reader is not to wait for that."""
        self._wire.write((queue.waiting[0],))
        self._backlog.note_read()
        self._expect([StreamWrite(queue, queue.take(1))])

    def _there_is_work(self) -> None:
        self._idle.clear()
        if self._sent is None:
            self._wake.set()

    # ---- flushes that callbacks send: nothing is to be waited for, neither the lease nor a connection

    def _attend(self) -> None:
        """Send what is due, or let `run` do it; after the flush that is under way, if one is."""
        if self._sent is not None or not self._is_parked:
            return
        writes = self._due() if self._may_send() else None
        if writes:
            self._wire.write(packed_of([write.part for write in writes]))
            self._expect(writes)
        else:
            self._schedule_next()

    def _expect(self, writes: list[Write]) -> None:
        flush = self._sent = _Flush(writes, [write.part for write in writes], monotonic())
        self._wire.expect(flush.parts, self._answered)
        self._idle.clear()

    def _may_send(self) -> bool:
        """Whether `_permit` would wait for nothing, and a connection stands."""
        lease = self._lease
        fresh = lease is None or (lease.fresh and not lease.regained)
        return fresh and self._failure is None and self._wire.can_send()

    def _answered(self, outcome: Outcome) -> None:
        """Take the outcome of the flush that was sent; what it raises is for `run`."""
        flush, self._sent = self._sent, None
        assert flush is not None
        try:
            if isinstance(outcome, Exception):
                flush.unknown()
                raise outcome
            self._settle_all(flush, outcome)
        except Exception as error:
            self._failure = error
            self._wake.set()
        self._attend()

    # ---- writes

    async def run(self) -> None:
        """Writes all there is, until cancelled.

        Raises SinkConflict when somebody else writes our streams, LeaseLost when another ingest has taken over.
        """
        pause = 0.0
        try:
            while True:
                self._is_parked = True
                self._attend()
                await self._wake.wait()
                self._wake.clear()
                if self._sent is not None:
                    continue
                self._is_parked = False
                try:
                    await self._flush()
                    pause = 0.0
                except UNREACHABLE as error:
                    self._gone(error)
                    pause = RETRIES.longer(pause)
                    await asyncio.sleep(pause)
        finally:
            self._is_parked = False
            self._ended.set()
            try:
                await self._wire.close()
            finally:
                if self._sent is not None:
                    self._sent.unknown()

    async def drain(self, timeout: float) -> bool:
        """Wait until nothing is left to write, at most `timeout` seconds. Returns whether nothing is."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            self._backlog.hurry()
            self._wake.set()
            left = deadline - asyncio.get_running_loop().time()
            await first_of(self._idle.wait(), self._ended.wait(), within=max(0.0, left))
            # what came in the moment in which nothing was left is waited for, too
            if self._idle.is_set() or self._ended.is_set() or left <= 0:
                return self._idle.is_set()

    def _schedule_next(self) -> None:
        """Wake `run` if something is due; else a timer ends when something is."""
        loop = asyncio.get_running_loop()
        earliest = self._backlog.next_due()
        if earliest is None:
            self._idle.set()
        elif earliest <= loop.time():
            self._wake.set()
        elif self._timer is None or earliest < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(earliest, self._time_is_over)

    def _time_is_over(self) -> None:
        self._timer = None
        self._attend()

    async def _flush(self) -> None:
        """Send what is due and take the answers in. Raises what is in UNREACHABLE if there were none."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        await self._permit()
        writes = self._due()
        if not writes:
            return
        flush = _Flush(writes, [write.part for write in writes], monotonic())
        try:
            answers = await self._wire.exchange(flush.parts)
        except BaseException:
            flush.unknown()
            raise
        self._outage.end(loop_time(), waiting=self.figures.buffered_entries)
        self._settle_all(flush, answers)

    def _settle_all(self, flush: _Flush, answers: list[Answer]) -> None:
        """Take the answers in. Raises SinkConflict if one shows that another writes our streams."""
        secs = monotonic() - flush.began
        conflicts = [self._settle(write, answer) for write, answer in zip(flush.writes, answers, strict=True)]
        if self._backpressure is not None:
            progress = any(isinstance(write, StreamWrite) and write.is_stored for write in flush.writes)
            self._backpressure.flushed(secs, progress, self._backlog.acceptable_bytes())
        for conflict in filter(None, conflicts):
            raise conflict

    def _due(self) -> list[Write]:
        """All that is due now."""
        now = loop_time()
        due = self._backlog.due(now)
        most = self._backlog.share(len(due)) if due else 0
        return [write for queue in due for write in writes_of(queue, most, now, self._ttl_of(queue.symbol))]

    async def _permit(self) -> None:
        """To be called right before each write that is sent."""
        if self._lease is not None:
            await self._lease.hold()
            while self._lease.regained:
                with self._lease.checking():
                    await self._check_for_others(self._lease)
                await self._lease.hold()  # the check may have taken its time

    async def _check_for_others(self, lease: Lease) -> None:
        """The lease was free for a while: if another held it then, the streams have moved on."""
        found = await newest_ids(self._client, self._backlog.queues)
        for symbol, newest in found.items():
            if newest > self._backlog.queues[symbol].newest_sent:
                lease.lose(f"another ingest has written the stream of {symbol} while this one could not be heard")

    def _settle(self, write: Write, answer: Answer) -> SinkConflict | None:
        """Take note of one answer. Returns the conflict that it shows, if it does."""
        if isinstance(answer, Exception):
            write.unknown()
            self._failed(write, answer)
            return None
        error = write.settle(answer)
        if error is None:
            if isinstance(write, StreamWrite) and write.arrived is not None:
                self.figures.note_lag(monotonic() - write.arrived)
            return None
        self._failed(write, error)
        if isinstance(write, StreamWrite) and is_held(error):
            return SinkConflict(f"{write.part.key} already holds its next id or a later one: somebody else writes it")
        return None

    async def extend_heartbeats(self, last_rows: dict[str, int], now_ms: int) -> None:
        """Give the heartbeats that still stand the TTL now in force, counted from when their last row arrived.

        Of a symbol without a row of this writer's, that is its time in `last_rows`, in ms by the clock of `now_ms`.
        For when the batch shrinks: a symbol that waits its turn must not seem dead. A heartbeat that is gone stays so,
        and none is shortened: that of a quiet book counts from the gateway's last answer.
        """
        left = {
            heartbeat_key(symbol): self._ttl_of(symbol) - int(self._age_of(symbol, (now_ms - ts) / 1000))
            for symbol, ts in last_rows.items()
        }
        try:
            await self._permit()
            await ask_each(
                self._client, [("EVAL", EXTEND_BEAT, 1, key, secs * 1000) for key, secs in left.items() if secs > 0]
            )
        except UNREACHABLE as error:
            self._gone(error)

    def _ttl_of(self, symbol: str) -> int:
        return self.own_heartbeat_ttls.get(symbol, self.heartbeat_ttl)

    def _age_of(self, symbol: str, otherwise: float) -> float:
        """For how many seconds the newest row of `symbol` has been here; never less than 0."""
        queue = self._backlog.queues.get(symbol)
        arrived = queue.arrivals.newest if queue is not None else None
        return max(0.0, otherwise if arrived is None else monotonic() - arrived)

    # ---- failures

    def _failed(self, write: Write, error: Exception) -> None:
        self.figures.write_failures += 1
        what = {"symbol": write.queue.symbol, "command": write.command, "error": str(error)}
        if self.log_limit.allows("redis_write_failed", repr(what)):
            self._log.error("redis_write_failed", **what)
        write.postpone(loop_time())

    def _gone(self, error: Exception) -> None:
        self.figures.write_failures += 1
        self._outage.record(text_of(error), loop_time(), waiting=self.figures.buffered_entries)
