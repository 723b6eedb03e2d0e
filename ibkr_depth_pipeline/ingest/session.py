"""Runs the pipeline: puts the parts of a run together, and takes the run from its start to its end.

Rows and events come from the gateway as plain calls and are dealt with at once, in order; nothing between the socket
and the writer's buffer waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import Callable, Iterable

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.errors import DepthPipelineError, GatewayError
from ibkr_depth_pipeline.gateway.events import ConnectionLost, FarmStatus, GatewayEvent
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.venues import Resolution
from ibkr_depth_pipeline.ingest.callbacks import FiguresCallback, WantedCallback, ask_for_ever, show_for_ever
from ibkr_depth_pipeline.ingest.clock_guard import WallClockMonitor
from ibkr_depth_pipeline.ingest.connection import GatewayConnection
from ibkr_depth_pipeline.ingest.counted_lines import RateLimitedLog
from ibkr_depth_pipeline.ingest.deeds import EffectExecutor
from ibkr_depth_pipeline.ingest.effects import Effect
from ibkr_depth_pipeline.ingest.figures import feed_figures
from ibkr_depth_pipeline.ingest.parts import pipeline_of, rows_requested, writer_of
from ibkr_depth_pipeline.ingest.summary import IngestSummary, summary_of
from ibkr_depth_pipeline.ingest.tasks import RunTasks, at_most, first_of
from ibkr_depth_pipeline.ingest.venue_search import VenueSearch
from ibkr_depth_pipeline.ingest.watch import Keepalive
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.metrics.endpoint import MetricsEndpoint
from ibkr_depth_pipeline.model import DepthRow
from ibkr_depth_pipeline.rotation.events import Connected, Deadline, Stop
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.advice import log_redis_advice
from ibkr_depth_pipeline.sink.claims import StreamClaims
from ibkr_depth_pipeline.sink.clock_journal import ClockEntry, keep_entry
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline.sink.status import REPORT_SECS, StatusPublisher, identity_of_this_process
from ibkr_depth_pipeline.universe import Universe

LATE_ROWS_CYCLE_SECS = 1.0
DROPS_CYCLE_SECS = 5.0
"""How often rows of cancelled requests are looked into, and how often dropped rows are logged."""

DRAIN_SECS = 3.0
"""For what is buffered when the end comes; all of it together stays below 5 s."""

FAREWELL_SECS = 0.5
"""For the gateway to read the cancels; for the last figures and for giving the lease back."""


class IngestSession:
    """One run of the recorder. `run` returns when `stop` was called or `duration` seconds are over.

    A gateway that is away or not ready is waited for, at the start as after a loss: for ever, unless
    IBKR_START_TIMEOUT_SECS or `once` (IBKR_CONNECT_TIMEOUT_SECS, where the former is 0) sets a limit to the start.

    It raises SinkUnavailable where Redis can't be reached, LeaseHeld where another ingest of this name is alive,
    LeaseLost when one has taken over, StreamHeld where one of another name records a symbol of this one's,
    NoLongerWanted where `wanted` says so, and SinkConflict when somebody else writes the same streams. Where the limit,
    or `duration`, is over before anything could be recorded: GatewayError where the gateway can't be reached,
    NothingToRecord where no symbol resolves.
    """

    def __init__(
        self,
        settings: Settings,
        universe: Universe,
        *,
        run_id: str | None = None,
        watcher: FiguresCallback | None = None,
        wanted: WantedCallback | None = None,
        once: bool = False,
        wall_ms: Callable[[], int] = unix_ms,
    ) -> None:
        self._settings = settings
        self._wall_ms = wall_ms
        self._universe = universe
        self._watcher = watcher
        self._wanted = wanted
        self._log = get_log()
        self._stop = asyncio.Event()
        self._overdue = False
        self._tasks = RunTasks(self._stop)
        self._timer: asyncio.TimerHandle | None = None
        self._identity = identity_of_this_process(wall_ms(), run_id)
        request_ids = itertools.count(1)
        self._gateway = TwsGateway.of_settings(
            settings,
            request_ids=request_ids,
            on_event=self._on_event,
            on_row=self._on_row,
            on_depth=self._on_depth,
            lacks_rows=lambda request: request in self._pipeline.awaited,
        )
        self._connection = GatewayConnection(self._gateway, settings, lambda: self._pipeline.connecting())
        self._venues = VenueSearch(
            self._gateway, universe.specs, connected=self._connection.in_use, take=self._take_venue
        )
        self._start_limit = settings.ibkr_start_timeout_secs or (
            settings.ibkr_connect_timeout_secs if once else math.inf
        )
        self._give_up_at = math.inf
        self._redis = open_redis(settings.redis_target)
        self._metrics = MetricsEndpoint.of_settings(settings)
        self._publisher = StatusPublisher(self._redis, settings.ibkr_gateway_name)
        self._lease = Lease(self._redis, settings.ibkr_gateway_name, self._identity, settings.ibkr_lease_ttl_secs)
        self._claims = StreamClaims(
            self._redis,
            settings.ibkr_gateway_name,
            self._identity,
            universe.symbols,
            settings.ibkr_lease_ttl_secs,
        )
        self._writer = writer_of(settings, self._redis, self._lease, self._gateway)
        self._pipeline = pipeline_of(settings, request_ids, lambda symbol: self._writer.queue(symbol).store)
        self._writer.hold_heartbeats_of(self._pipeline.out_of_step)
        self._clock = WallClockMonitor(wall_ms, self._pipeline, self._keep_clock_entry)
        self._lines = RateLimitedLog(self._pipeline.figures, self._writer.figures, self._writer.log_limit)
        self._deeds = EffectExecutor(
            self._gateway,
            self._writer,
            self._lines,
            self._tasks,
            rows=rows_requested(settings),
            recheck=self._venues.look_again,
            reconnect=self._give_connection_up,
        )
        self._watch = Keepalive(
            self._gateway,
            settings.ibkr_stall_secs,
            received=self._pipeline.received,
            on_answer=self._beat,
            on_stall=lambda: self._give_connection_up("neither rows nor answers came"),
            wall_ms=wall_ms,
            on_time=self._clock.answered,
        )

    def stop(self) -> None:
        """End the run: cancel every subscription, flush, disconnect. May be called more than once."""
        self._stop.set()

    def _end_by_duration(self) -> None:
        self._overdue = not self._stop.is_set()
        self._stop.set()

    async def run(self, duration: float | None = None) -> IngestSummary:
        """See the class."""
        started = self._wall_ms()
        if duration is not None:
            asyncio.get_running_loop().call_later(duration, self._end_by_duration)
        try:
            self._metrics.open()
            drained = True
            if await self._tasks.unless_stopped(self._set_up()):
                drained = await self._record()
            if self._overdue and (reason := self._why_nothing()) is not None:
                self._tasks.fail(reason)
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
        """Find out where the numbering stands, and connect."""
        await self._lease.acquire(self._settings.ibkr_lease_wait_secs)
        self._tasks.start(self._lease.keep())
        await self._claims.acquire(self._settings.ibkr_lease_wait_secs)
        self._tasks.start(self._claims.keep())
        self._pipeline.number_from(await self._take_over())
        self._clock.taken_over()
        self._tasks.start(log_redis_advice(self._settings, len(self._universe.specs)))
        self._tasks.start(self._clock.run())
        self._tasks.start(self._writer.run())
        self._tasks.start(self._tell_for_ever())
        if self._wanted is not None:
            self._tasks.start(ask_for_ever(self._wanted))
        self._give_up_at = self._now() + self._start_limit
        await self._connection.reconnect(self._give_up_at)

    def _why_nothing(self) -> DepthPipelineError | None:
        """What was in the way all the time, where it is known."""
        if self._connection.greeting.version == 0:
            return self._connection.failure
        return self._venues.nothing_found()

    async def _take_over(self) -> dict[str, StreamId]:
        """Raise the streams to a time at which the lease was ours, for sure: it may have been lost while we slept, and
        whoever holds it since has raised them higher. Once more where it may have been another's in between.
        """
        while True:
            now_ms = self._wall_ms()
            if await self._lease.confirm():
                positions = await self._writer.take_over(self._universe.symbols, now_ms)
                if await self._lease.confirm():
                    return positions

    async def _record(self) -> bool:
        """From the first subscription to the last flush. Returns whether everything was flushed."""
        if self._watcher is not None:
            self._tasks.start(show_for_ever(self._watcher, self._figures))
        self._tasks.start(self._watch.run())
        self._tasks.start(self._look_after_rows())
        self._tasks.start(self._inspect_lines())
        self._begin_rotation()
        self._tasks.start(self._venues.run())
        self._tasks.start(self._venues.wait_for_first(self._give_up_at, self._settings.ibkr_reconnect_slow_secs))
        lost = self._connection.lost
        try:
            while not self._stop.is_set():
                await first_of(self._stop.wait(), lost.wait())
                if lost.is_set() and not self._stop.is_set():
                    await self._tasks.unless_stopped(self._reconnect())
        finally:
            drained = await self._drain()
        return drained

    async def _reconnect(self) -> None:
        await self._connection.reconnect()
        self._begin_rotation()

    def _begin_rotation(self) -> None:
        if self._connection.use():
            self._watch.connected()
            self._carry_out(self._pipeline.tell_rotation(Connected(), self._now()))

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

    def _summary(self, started: int, drained: bool) -> IngestSummary:
        return summary_of(
            self._pipeline,
            self._writer.figures,
            self._venues.unresolved,
            started_ts=started,
            ended_ts=self._wall_ms(),
            drained=drained,
            greeting=self._connection.greeting,
        )

    # ---- what the gateway says

    def _on_depth(self, message: bytes) -> bool:
        """The hot path. False: it is for the gateway to read, and comes again as a row."""
        try:
            pipeline = self._pipeline
            request = pipeline.message(message, self._wall_ms())
            if request in pipeline.awaited:
                self._carry_out(pipeline.first_row(request, self._now()))
            return request != 0
        except Exception as error:
            self._tasks.fail(error)
            return True

    def _on_row(self, request: int, row: DepthRow) -> None:
        try:
            applied = self._pipeline.row(request, row, self._wall_ms())
            if request in self._pipeline.awaited:
                self._carry_out(self._pipeline.first_row(request, self._now(), applied))
            if not applied:
                self._pipeline.row_dropped(request, row, self._now())
        except Exception as error:
            self._tasks.fail(error)

    def _on_event(self, event: GatewayEvent) -> None:
        if isinstance(event, ConnectionLost):
            self._connection.lose()
            self._watch.disconnected()
        try:
            self._carry_out(self._pipeline.handle(event, self._now(), self._wall_ms()))
            if isinstance(event, FarmStatus) and event.healthy:
                self._venues.look_for_missing()
        except Exception as error:
            self._tasks.fail(error)

    def _take_venue(self, resolution: Resolution) -> None:
        self._writer.record_venue(resolution, self._wall_ms())
        self._carry_out(self._pipeline.resolved(resolution, self._now()))

    def _give_connection_up(self, why: str) -> None:
        """A loss of our own making: the gateway says nothing of it."""
        self._gateway.disconnect()
        self._on_event(ConnectionLost(why))

    # ---- what the pipeline wants done, and when it wants to be asked again

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        self._deeds.carry_out(effects)
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

    async def _inspect_lines(self) -> None:
        while True:
            await asyncio.sleep(self._pipeline.inspection_secs)
            self._carry_out(self._pipeline.inspect_lines(self._now()))

    # ---- the run's own figures

    async def _tell_for_ever(self) -> None:
        while True:
            figures = self._figures()
            self._metrics.publish(figures)
            if self._lease.fresh:
                await self._publisher.publish(figures)
            await asyncio.sleep(REPORT_SECS)

    async def _say_farewell(self) -> None:
        if self._lease.fresh:
            await self._publisher.publish(self._figures(ended=True))
        await self._claims.release()
        await self._lease.release()

    def _keep_clock_entry(self, entry: ClockEntry) -> None:
        if self._lease.fresh:
            self._tasks.start(keep_entry(self._redis, self._settings.ibkr_gateway_name, entry))

    def _figures(self, *, ended: bool = False) -> FeedFigures:
        clock = self._clock.figures()
        return feed_figures(
            self._identity,
            self._universe.symbols,
            self._pipeline,
            self._writer.figures,
            now_ms=self._wall_ms(),
            connected=self._connection.in_use.is_set(),
            buffer_bound=self._settings.ibkr_buffer_bytes,
            clock=clock,
            ended=ended,
        )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
