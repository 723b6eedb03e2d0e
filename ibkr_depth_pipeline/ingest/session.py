"""Runs the pipeline: the event loop, the clock, the connection, the timers, the signals.

Rows and events come from the gateway as plain calls and are dealt with at once, in order; nothing between the socket
and the writer's buffer waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from ibkr_depth_pipeline.errors import GatewayError, NothingToRecord
from ibkr_depth_pipeline.gateway.events import ConnectionLost, GatewayEvent
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.venues import Resolution
from ibkr_depth_pipeline.ingest import effects as do
from ibkr_depth_pipeline.ingest.counted_lines import CountedLines
from ibkr_depth_pipeline.ingest.figures import feed_figures
from ibkr_depth_pipeline.ingest.onlookers import Wanted, Watcher, ask_for_ever, show_for_ever
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.ingest.resolver import resolve_symbol, resolve_symbols
from ibkr_depth_pipeline.ingest.summary import IngestSummary
from ibkr_depth_pipeline.ingest.tasks import RunTasks, at_most, first_of
from ibkr_depth_pipeline.ingest.watch import GatewayWatch
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.metrics.endpoint import MetricsEndpoint
from ibkr_depth_pipeline.model import DepthRow, Unresolved
from ibkr_depth_pipeline.rotation.controller import RotationPlan
from ibkr_depth_pipeline.rotation.events import Connected, Deadline, Stop
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.figures import FeedFigures, RunIdentity
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline.sink.report import REPORT_SECS, IngestReport
from ibkr_depth_pipeline.sink.throttle import Throttle
from ibkr_depth_pipeline.sink.writer import RedisWriter
from ibkr_depth_pipeline.universe import Universe

LATE_ROWS_CYCLE_SECS = 1.0
DROPS_CYCLE_SECS = 5.0
"""How often rows of cancelled requests are looked into, and how often dropped rows are logged."""

FIRST_BACKOFF_SECS = 0.1
RECHECK_PAUSE_SECS = 5.0
DRAIN_SECS = 3.0
"""For what is buffered when the end comes; all of it together stays below 5 s."""

FAREWELL_SECS = 0.5
"""For the gateway to read the cancels; for the last figures and for giving the lease back."""


class IngestSession:
    """One run of the recorder. `run` returns when `stop` was called or `duration` seconds are over.

    It raises GatewayError where the gateway can't be reached at the start, SinkUnavailable where Redis can't,
    NothingToRecord where no symbol resolves, LeaseHeld where another ingest of this name is alive, LeaseLost when one
    has taken over, NoLongerWanted where `wanted` says so, and SinkConflict when somebody else writes the same streams.
    """

    def __init__(
        self,
        settings: Settings,
        universe: Universe,
        *,
        run_id: str | None = None,
        watcher: Watcher | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        self._settings = settings
        self._universe = universe
        self._specs = {spec.symbol: spec for spec in universe.specs}
        self._request_ids = itertools.count(1)
        self._gateway = TwsGateway.of_settings(
            settings,
            request_ids=self._request_ids,
            on_event=self._on_event,
            on_row=self._on_row,
            on_depth=self._on_depth,
        )
        self._log = get_log()
        self._stop = asyncio.Event()
        self._lost = asyncio.Event()
        self._connected = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = RunTasks(self._stop)
        self._unresolved: dict[str, str] = {}
        self._rechecking: set[str] = set()
        self._identity = RunIdentity.of_this_process(_now_ms(), run_id)
        self._watcher = watcher
        self._wanted = wanted
        self._redis = open_redis(settings.redis_target)
        self._metrics = MetricsEndpoint.of_settings(settings)
        self._report_of_run = IngestReport(self._redis, settings.ibkr_gateway_name)
        self._lease = Lease(self._redis, settings.ibkr_gateway_name, self._identity, settings.ibkr_lease_ttl_secs)
        self._writer = RedisWriter(
            self._redis,
            lease=self._lease,
            maxlen=settings.ibkr_stream_maxlen,
            buffer_bytes=settings.ibkr_buffer_bytes,
            min_replicas=settings.ibkr_redis_min_replicas,
            throttle=Throttle(settings.ibkr_buffer_bytes, self._gateway.rest, self._gateway.go_on),
        )
        self._rows = settings.ibkr_depth_rows + settings.ibkr_depth_extra_rows
        self._pipeline = DepthPipeline(
            _plan(settings),
            self._request_ids,
            lambda symbol: self._writer.queue(symbol).store,
            rows=self._rows,
            levels_shown=settings.ibkr_depth_rows,
            heartbeat_ttl=settings.ibkr_heartbeat_ttl,
        )
        self._lines = CountedLines(self._pipeline.figures, self._writer.figures)
        self._watch = GatewayWatch(
            self._gateway,
            settings.ibkr_stall_secs,
            received=self._pipeline.received,
            on_answer=self._beat,
            on_stall=lambda: self._give_connection_up("neither rows nor answers came"),
        )

    def stop(self) -> None:
        """End the run: cancel every subscription, flush, disconnect. May be called more than once."""
        self._stop.set()

    async def run(self, duration: float | None = None) -> IngestSummary:
        """See the class."""
        started = _now_ms()
        if duration is not None:
            asyncio.get_running_loop().call_later(duration, self._stop.set)
        try:
            self._metrics.open()
            drained = True
            if await self._tasks.unless_stopped(self._set_up()):
                drained = await self._record()
            if self._tasks.failure is not None:
                raise self._tasks.failure
            return self._summary(started, drained)
        finally:
            self._gateway.disconnect()
            if self._timer is not None:
                self._timer.cancel()
            await self._tasks.end()
            await asyncio.gather(at_most(FAREWELL_SECS, self._say_farewell()), self._metrics.aclose())
            await self._redis.aclose()

    # ---- the course of a run

    async def _set_up(self) -> None:
        """Find out where the numbering stands, connect, find the venues."""
        await self._lease.acquire(self._settings.ibkr_lease_wait_secs)
        self._tasks.start(self._lease.keep())
        self._pipeline.number_from(await self._writer.take_over(self._universe.symbols, _now_ms()))
        self._tasks.start(self._writer.run())
        self._tasks.start(self._tell_for_ever())
        if self._wanted is not None:
            self._tasks.start(ask_for_ever(self._wanted))
        await self._connect()
        resolutions = await resolve_symbols(self._gateway, self._universe.specs)
        for resolution in resolutions.values():
            await self._take(resolution)
        if len(self._unresolved) == len(resolutions):
            await self._writer.drain(FAREWELL_SECS)  # why, for each
            raise NothingToRecord(self._unresolved)

    async def _record(self) -> bool:
        """From the first subscription to the last flush. Returns whether everything was flushed."""
        if self._watcher is not None:
            self._tasks.start(show_for_ever(self._watcher, self._figures))
        self._tasks.start(self._watch.run())
        self._tasks.start(self._look_after_rows())
        self._begin_rotation()
        try:
            while not self._stop.is_set():
                await first_of(self._stop.wait(), self._lost.wait())
                if self._lost.is_set() and not self._stop.is_set():
                    await self._tasks.unless_stopped(self._reconnect())
        finally:
            drained = await self._drain()
        return drained

    async def _drain(self) -> bool:
        self._log.info("draining", subscriptions=len(self._pipeline.subscribed))
        self._carry_out(self._pipeline.tell_rotation(Stop(), self._now()))
        drained, _ = await asyncio.gather(
            self._writer.drain(DRAIN_SECS), at_most(FAREWELL_SECS, self._cancels_have_arrived())
        )
        self._lines.stored(self._universe.symbols)
        self._lines.dropped()
        self._log.info("stopped", drained=drained, lost=self._writer.figures.buffered_entries)
        return drained

    async def _cancels_have_arrived(self) -> None:
        """The gateway takes messages in order: its answer says that it has read the cancels, and not only our end."""
        with contextlib.suppress(GatewayError, ConnectionError):
            await self._gateway.server_time(timeout=None)

    def _begin_rotation(self) -> None:
        if self._lost.is_set():  # again, already
            return
        self._connected.set()
        self._watch.connected()
        self._carry_out(self._pipeline.tell_rotation(Connected(), self._now()))

    async def _connect(self) -> None:
        settings = self._settings
        ids = range(settings.ibkr_client_id, settings.ibkr_client_id + settings.ibkr_client_id_max_offset + 1)
        self._lost.clear()  # before the attempt: the new connection may be lost at once
        client_id = await self._gateway.connect(
            ids, lambda taken: self._log.warning("client_id_in_use", client_id=taken, code=326)
        )
        self._log.info(
            "connected",
            host=settings.ibkr_host,
            port=settings.ibkr_port,
            client_id=client_id,
            server_version=self._gateway.server_version,
        )

    async def _reconnect(self) -> None:
        """Try again until the gateway answers or the run is to end. The pauses grow up to the setting, with jitter."""
        self._gateway.disconnect()
        began = self._now()
        for attempt in itertools.count(1):
            try:
                await self._connect()
            except GatewayError as error:
                longest = min(self._settings.ibkr_reconnect_max_secs, FIRST_BACKOFF_SECS * 2 ** min(attempt, 20))
                pause = longest * random.uniform(0.5, 1.0)
                self._log.warning("connect_failed", error=str(error), attempt=attempt, pause_secs=round(pause, 3))
                with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), pause)
                if self._stop.is_set():
                    return
            else:
                self._log.info("reconnected", attempts=attempt, away_secs=round(self._now() - began, 3))
                self._begin_rotation()
                return

    # ---- symbols

    async def _take(self, resolution: Resolution) -> None:
        """Record and log a symbol's venue, or that it has none, and tell the rotation."""
        if isinstance(resolution, Unresolved):
            self._unresolved[resolution.symbol] = resolution.reason
        else:
            self._unresolved.pop(resolution.symbol, None)
            self._log.info(
                "symbol_resolved",
                symbol=resolution.symbol,
                con_id=resolution.con_id,
                exchange=resolution.exchange,
                primary_exchange=resolution.primary_exchange,
            )
        self._writer.record_venue(resolution, _now_ms())
        self._carry_out(self._pipeline.resolved(resolution, self._now()))

    async def _recheck(self, symbol: str) -> None:
        self._rechecking.add(symbol)
        while True:
            await self._connected.wait()
            try:
                resolution = await resolve_symbol(self._gateway, self._specs[symbol])
            except (GatewayError, ConnectionError) as error:  # says nothing of the symbol
                self._log.warning("recheck_failed", symbol=symbol, error=str(error))
                await asyncio.sleep(RECHECK_PAUSE_SECS)
            else:
                self._rechecking.discard(symbol)
                await self._take(resolution)
                return

    # ---- called by the gateway

    def _on_depth(self, message: bytes) -> bool:
        """The hot path. False: it is for the gateway to read, and comes again as a row."""
        try:
            pipeline = self._pipeline
            request = pipeline.message(message, time.time_ns() // 1_000_000)
            if request in pipeline.awaited:
                self._carry_out(pipeline.first_row(request, self._now()))
            return request != 0
        except Exception as error:
            self._tasks.fail(error)
            return True

    def _on_row(self, request: int, row: DepthRow) -> None:
        try:
            applied = self._pipeline.row(request, row, _now_ms())
            if request in self._pipeline.awaited:
                self._carry_out(self._pipeline.first_row(request, self._now(), applied))
        except Exception as error:
            self._tasks.fail(error)

    def _on_event(self, event: GatewayEvent) -> None:
        if isinstance(event, ConnectionLost):
            self._connected.clear()
            self._watch.disconnected()
            self._lost.set()
        try:
            self._carry_out(self._pipeline.handle(event, self._now(), _now_ms()))
        except Exception as error:
            self._tasks.fail(error)

    # ---- what the pipeline wants done

    def _carry_out(self, effects: Iterable[do.Effect]) -> None:
        for effect in effects:
            _DEEDS[type(effect)](self, effect)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._pipeline.next_deadline()
        loop = asyncio.get_running_loop()
        self._timer = None if deadline is None else loop.call_at(deadline, self._on_deadline)

    def _on_deadline(self) -> None:
        try:
            self._carry_out(self._pipeline.tell_rotation(Deadline(), self._now()))
        except Exception as error:
            self._tasks.fail(error)

    def _subscribe(self, effect: do.Subscribe) -> None:
        self._log.info(
            "subscribed",
            symbol=effect.instrument.symbol,
            request_id=effect.request,
            exchange=effect.instrument.exchange,
            rows=self._rows,
        )
        self._try_sending(lambda: self._gateway.subscribe(effect.request, effect.instrument, self._rows))

    def _cancel(self, effect: do.Cancel) -> None:
        self._log.info("unsubscribed", symbol=effect.symbol, request_id=effect.request)
        self._try_sending(lambda: self._gateway.cancel(effect.request))

    def _try_sending(self, send: Callable[[], None]) -> None:
        try:
            send()
        except (GatewayError, ConnectionError) as error:  # the loss itself is on its way as an event
            self._log.warning("send_failed", error=str(error))

    def _start_recheck(self, effect: do.Recheck) -> None:
        if effect.symbol not in self._rechecking:
            self._tasks.start(self._recheck(effect.symbol))

    def _record_refusal(self, effect: do.RecordRefusal) -> None:
        self._writer.record_venue(effect.instrument, _now_ms(), effect.reason)

    def _report(self, effect: do.ReportPersisted) -> None:
        self._lines.stored(effect.symbols)

    def _set_heartbeat_ttl(self, effect: do.SetHeartbeatTtl) -> None:
        self._writer.heartbeat_ttl = effect.secs
        if effect.last_rows:
            self._tasks.start(self._writer.extend_heartbeats(dict(effect.last_rows), _now_ms()))

    def _drop_connection(self, effect: do.Reconnect) -> None:
        self._give_connection_up(effect.why)

    def _give_connection_up(self, why: str) -> None:
        self._gateway.disconnect()
        self._on_event(ConnectionLost(why))

    def _say(self, effect: do.Say) -> None:
        self._lines.say(effect)

    # ---- heartbeats and dropped rows

    def _beat(self) -> None:
        """The gateway has answered, so that quiet books are quiet, not dead."""
        books = self._pipeline.live_books()
        for symbol, ts in books.items():
            self._writer.beat(symbol, ts)
        self._log.info("heartbeats", symbols=sorted(books), ttl_secs=self._writer.heartbeat_ttl)

    async def _look_after_rows(self) -> None:
        for cycle in itertools.count(1):
            await asyncio.sleep(LATE_ROWS_CYCLE_SECS)
            self._carry_out(self._pipeline.look_at_late_rows(self._now()))
            if cycle % (DROPS_CYCLE_SECS // LATE_ROWS_CYCLE_SECS) == 0:
                self._lines.dropped()

    # ---- the run's own figures

    async def _tell_for_ever(self) -> None:
        while True:
            figures = self._figures()
            self._metrics.tell(figures)
            if self._lease.fresh:
                await self._report_of_run.tell(figures)
            await asyncio.sleep(REPORT_SECS)

    async def _say_farewell(self) -> None:
        if self._lease.fresh:
            await self._report_of_run.tell(self._figures(ended=True))
        await self._lease.release()

    def _figures(self, *, ended: bool = False) -> FeedFigures:
        return feed_figures(
            self._identity,
            self._universe.symbols,
            self._pipeline,
            self._writer.figures,
            now_ms=_now_ms(),
            connected=self._connected.is_set(),
            buffer_bound=self._settings.ibkr_buffer_bytes,
            ended=ended,
        )

    # ---- time and the end

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _summary(self, started: int, drained: bool) -> IngestSummary:
        figures = self._pipeline.figures
        return IngestSummary(
            started_ts=started,
            ended_ts=_now_ms(),
            rows=dict(self._pipeline.rows()),
            snapshots=dict(self._writer.figures.stored),
            dropped={f"{symbol} {reason}": count for (symbol, reason), count in figures.dropped.items()},
            unresolved=dict(self._unresolved),
            refused_309=figures.refused_309,
            connections=figures.connections,
            turns=figures.turns,
            drained=drained,
            books=self._pipeline.last_books(),
            stretches=tuple(self._pipeline.stretches()),
        )


def _plan(settings: Settings) -> RotationPlan:
    return RotationPlan(
        max_batch=settings.ibkr_max_concurrent_depth,
        dwell=settings.ibkr_rotation_secs,
        first_row_cap=settings.ibkr_first_row_secs,
        cooldown=settings.ibkr_error309_cooldown_secs,
        recovery_turns=settings.ibkr_error309_recovery_cycles,
        unsupported_retry=settings.ibkr_unsupported_retry_secs,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


_DEEDS: dict[type, Callable[[IngestSession, Any], None]] = {
    do.Subscribe: IngestSession._subscribe,
    do.Cancel: IngestSession._cancel,
    do.Recheck: IngestSession._start_recheck,
    do.RecordRefusal: IngestSession._record_refusal,
    do.ReportPersisted: IngestSession._report,
    do.SetHeartbeatTtl: IngestSession._set_heartbeat_ttl,
    do.Reconnect: IngestSession._drop_connection,
    do.Say: IngestSession._say,
}
