"""Runs the pipeline: composes the parts of a run, and takes it from its start to its end.

Rows and events come from the gateway as plain calls and are handled at once, in order; nothing between the socket and
the writer's buffer waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import Callable, Iterable
from time import time_ns

from ibkr_depth_pipeline.clock import loop_time, unix_ms
from ibkr_depth_pipeline.errors import DepthPipelineError, GatewayError
from ibkr_depth_pipeline.gateway import events
from ibkr_depth_pipeline.gateway.events import ConnectionLost, GatewayEvent
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.tws_session import GatewayCallbacks
from ibkr_depth_pipeline.ingest.composition import (
    FiguresCallback,
    IngestTimings,
    RunStore,
    WantedCallback,
    calendar_of,
    deliver_figures,
    fail_if_all_refused,
    first_connected,
    is_stamped,
    pipeline_of,
    poll_wanted,
    rows_requested,
)
from ibkr_depth_pipeline.ingest.connection import GatewayConnection
from ibkr_depth_pipeline.ingest.effects import Effect, EffectExecutor
from ibkr_depth_pipeline.ingest.figures import FiguresPublisher, IngestSummary, RateLimitedLog, RunFigures
from ibkr_depth_pipeline.ingest.flight_recorder import DumpReport, FlightRecorder
from ibkr_depth_pipeline.ingest.keepalive import Keepalive, WallClockMonitor
from ibkr_depth_pipeline.ingest.membership import FocusWatcher, Membership
from ibkr_depth_pipeline.ingest.open_markets import OpenMarkets
from ibkr_depth_pipeline.ingest.standby import Standby, hand_over_when_due
from ibkr_depth_pipeline.ingest.venue_search import VenueSearch
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.metrics.endpoint import MetricsEndpoint
from ibkr_depth_pipeline.model import DepthRow
from ibkr_depth_pipeline.rotation.events import Connected, Deadline, Stop
from ibkr_depth_pipeline.schema.encoding import ReceiveStamp
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.advice import log_redis_advice
from ibkr_depth_pipeline.sink.dump_requests import DumpRequests
from ibkr_depth_pipeline.sink.status import identity_of_this_process
from ibkr_depth_pipeline.tasks import DeadlineTimer, RunTasks, at_most, first_of
from ibkr_depth_pipeline.universe import Universe
from ibkr_depth_pipeline.universe.changes import UniverseFile, UniverseFollower

LATE_ROWS_CYCLE_SECS = 1.0
DROPS_CYCLE_SECS = 5.0
"""How often rows of cancelled requests are handled, and how often dropped rows are logged."""

QUIET_MS = 250
"""After so long without a read, or if it seems negative, the next one looks whether the clock was set."""

DRAIN_SECS = 3.0
"""How long the buffer may drain at the end; the whole end stays below 5 s."""

FAREWELL_SECS = 0.5
"""How long the gateway may take to read the cancels, and the last figures and the release of the lease may take."""

_PUBLISHED_AT_ONCE = (events.ConnectionLost, events.ConnectivityLost, events.ConnectivityRestored, events.FarmStatus)


class IngestSession:
    """One run of the recorder. `run` returns when `stop` was called or `duration` seconds are over.

    A gateway that is away or not ready is waited for, at the start as after a loss, without a limit unless
    IBKR_START_TIMEOUT_SECS or `once` (then IBKR_CONNECT_TIMEOUT_SECS, if the former is 0) sets one for the start. With
    IBKR_STANDBY it stands by while another ingest of this name records (ingest/standby.py).

    `run` raises SinkUnavailable if Redis can't be reached, LeaseHeld if another ingest of this name is alive, LeaseLost
    when one has taken over, StreamHeld if one of another name records one of the symbols, NoLongerWanted if
    wanted_callback answers so, and SinkConflict if another program writes the same streams. If the limit, or
    `duration`, is over before anything could be recorded: GatewayError if the gateway can't be reached, NothingToRecord
    if no symbol resolves.
    """

    def __init__(
        self,
        settings: Settings,
        universe: Universe,
        *,
        run_id: str | None = None,
        figures_callback: FiguresCallback | None = None,
        wanted_callback: WantedCallback | None = None,
        once: bool = False,
        until_close: bool = False,
        file: UniverseFile | None = None,
        dump_callback: Callable[[DumpReport], None] | None = None,
        wall_ms: Callable[[], int] = unix_ms,
        timings: IngestTimings | None = None,
    ) -> None:
        timings = timings or IngestTimings()
        self._settings = settings
        self._wall_ms = wall_ms
        self._stamp = ReceiveStamp()
        self._read_ms = 0  # when the socket was last read: the time of all rows that this brought
        self._figures_callback = figures_callback
        self._wanted_callback = wanted_callback
        self._log = get_log()
        self._stop = asyncio.Event()
        self._overdue = False
        self._tasks = RunTasks(self._stop)
        self._timer = DeadlineTimer(self._on_deadline)
        identity = identity_of_this_process(wall_ms(), run_id)
        self._recording = self._searching = False
        request_ids = itertools.count(1)
        self._flight = FlightRecorder(settings, lambda: self._pipeline, timings.dump_settle, dump_callback)
        self._gateway = TwsGateway.of_settings(
            settings,
            request_ids=request_ids,
            callbacks=GatewayCallbacks(
                on_event=self._on_event,
                on_row=self._on_row,
                on_depth=self._on_depth,
                on_read=self._on_stamped_read if is_stamped(settings) else self._on_read,
                on_read_end=self._on_read_end,
                wire=self._flight.wire,
            ),
            lacks_rows=lambda request: request in self._pipeline.liveness.awaited,
        )
        self._connection = GatewayConnection(self._gateway, settings, lambda: self._pipeline.liveness.connecting())
        self._venues = VenueSearch(
            self._gateway,
            universe.specs,
            connected=self._connection.in_use,
            take=lambda resolution: self._members.take(resolution),
            wall_ms=wall_ms,
        )
        self._start_limit = settings.ibkr_start_timeout_secs or (
            settings.ibkr_connect_timeout_secs if once else math.inf
        )
        self._give_up_at = math.inf
        self._metrics = MetricsEndpoint.of_settings(settings)
        self._store = RunStore(settings, universe.symbols, identity, self._gateway, self._stamp, self._tasks)
        self._pipeline = pipeline_of(
            settings,
            timings,
            request_ids,
            lambda symbol: self._store.writer.queue(symbol).store,
            lambda symbol: self._store.writer.turns(symbol),
            lambda symbol: self._store.writer.rows(symbol),
            self._store.writer.record_sizes,
        )
        self._store.writer.hold_heartbeats_if(self._pipeline.lines.is_out_of_step)
        self._clock = WallClockMonitor(wall_ms, self._pipeline, self._store.note_clock)
        self._lines = RateLimitedLog(self._pipeline.figures, self._store.writer.figures, self._store.writer.log_limit)
        self._executor = EffectExecutor(
            self._gateway,
            self._store.writer,
            self._lines,
            rows=rows_requested(settings),
            start=self._tasks.start,
            resolve_again=self._venues.resolve_again,
            reconnect=self._drop_connection,
            wall_ms=wall_ms,
            requested=lambda effect: self._pipeline.requested(effect, loop_time(), self._wall_ms()),
            cancelled=self._pipeline.intervals.cancelled,
            changed=lambda: self._publisher.publish_soon(),
            dump_tape=self._flight.trigger,
        )
        self._keepalive = Keepalive(
            self._gateway,
            settings.ibkr_stall_secs,
            self._pipeline,
            self._store.writer,
            self._clock,
            on_stall=lambda: self._drop_connection("neither rows nor answers came"),
            wall_ms=wall_ms,
        )
        self._members = Membership(
            universe,
            self._pipeline,
            self._venues,
            self._store,
            OpenMarkets(calendar_of(settings), int(settings.ibkr_hours_refresh_secs * 1000)),
            execute=self._execute,
            wall_ms=wall_ms,
            on_close=self._end_in_time if until_close else lambda: None,
        )
        self._focus = FocusWatcher(
            self._store.client,
            self._pipeline.subscriptions,
            lambda: self._members.universe.symbols,
            self._execute,
        )
        self._dump_requests = DumpRequests(self._store.client, settings.ibkr_gateway_name, self._flight.asked)
        self._follower = None if file is None else UniverseFollower(file, universe, self._members.apply)
        self._figures = RunFigures(
            identity,
            self._pipeline,
            self._store.writer.figures,
            self._connection,
            self._members,
            self._focus,
            self._clock,
            self._follower,
            buffer_bound=settings.ibkr_buffer_bytes,
            wall_ms=wall_ms,
        )
        self._publisher = FiguresPublisher(self._figures, self._metrics, self._store)
        parts = self._store, self._connection, self._members, self._figures, self._metrics
        self._standby = Standby(settings, identity, *parts, take_into_use=self._use_connection)

    def reload(self) -> None:
        """Read the universe's file now, and put it in force. Nothing happens in a run without one."""
        if self._follower is not None:
            self._follower.reload()

    def stop(self) -> None:
        """End the run: cancel every subscription, flush, disconnect. May be called more than once."""
        self._stop.set()

    def _end_in_time(self) -> None:
        self._overdue = self._recording and not self._stop.is_set()
        self._stop.set()

    async def run(self, duration: float | None = None) -> IngestSummary:
        """Record until the end. See the class for what it raises."""
        self._figures.begin()
        if duration is not None:
            asyncio.get_running_loop().call_later(duration, self._end_in_time)
        try:
            self._metrics.open()
            drained = True
            if await self._tasks.unless_stopped(self._set_up(duration)):
                drained = await self._record()
            if self._overdue and (reason := self._why_nothing()) is not None:
                self._tasks.fail(reason)
            if self._tasks.failure is not None:
                raise self._tasks.failure
            return self._figures.summary(self._venues.unresolved, drained=drained)
        finally:
            self._gateway.disconnect()
            self._timer.set(None)
            await self._tasks.end()
            released = at_most(FAREWELL_SECS, self._release())
            await asyncio.gather(released, self._metrics.aclose(), self._flight.aclose())
            await self._store.aclose()

    # ---- the course of a run

    async def _set_up(self, duration: float | None) -> None:
        """Take the lease, find out where the numbering stands, and connect; a standby connects first."""
        if self._wanted_callback is not None:
            self._tasks.start(poll_wanted(self._wanted_callback))
        if self._store.has_standby:
            self._begin_flight()
            await self._standby.take_lease(self._search, self._follower, duration, self.stop)
            self._flight.adopt()
        await self._store.hold(self._members.universe.symbols)
        self._recording = True
        await self._members.number(self._members.universe.symbols)
        await self._members.load()
        self._clock.taken_over()
        self._tasks.start(log_redis_advice(self._settings, len(self._members.universe.specs)))
        self._tasks.start(self._clock.run(), self._store.writer.run(), self._publisher.run(), self._dump_requests.run())
        if not self._store.has_standby:
            self._begin_flight()
        self._give_up_at = loop_time() + self._start_limit
        if not self._connection.in_use.is_set():
            await self._connection.reconnect(self._give_up_at)

    def _begin_flight(self) -> None:
        self._flight.begin()
        self._tasks.start(self._flight.run())

    def _search(self) -> None:
        """Resolve the universe from now on, over each connection that is in use."""
        self._searching = True
        first = self._venues.wait_for_first(self._give_up_at, self._settings.ibkr_reconnect_slow_secs)
        self._tasks.start(self._keepalive.run(), self._venues.run(), self._venues.refresh(), first)

    def _why_nothing(self) -> DepthPipelineError | None:
        """What was in the way all the time, if known."""
        if self._connection.greeting.version == 0:
            return self._connection.failure
        return self._venues.nothing_found()

    async def _record(self) -> bool:
        """From the first subscription to the last flush. Returns whether everything was flushed."""
        if self._figures_callback is not None:
            self._tasks.start(deliver_figures(self._figures_callback, self._figures.current))
        self._tasks.start(self._handle_late_rows(), self._inspect_lines(), self._focus.run())
        self._tasks.start(self._members.watch_markets(), self._members.gate.run())
        self._members.begin()
        self._begin_rotation()
        if not self._searching:
            self._search()
        if self._follower is not None:
            self._tasks.start(self._follower.run())
        self._tasks.start(fail_if_all_refused(self._pipeline, lambda: self._members.universe.symbols, self._give_up_at))
        self._tasks.start(hand_over_when_due(self._store, self.stop))
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
        self._venues.refresh_all()

    def _use_connection(self) -> bool:
        if not self._connection.use():
            return False
        self._keepalive.connected()
        self._pipeline.server_version = self._gateway.server_version
        return True

    def _begin_rotation(self) -> None:
        if self._use_connection():
            is_first = self._pipeline.figures.connections == 0
            first = self._settings, self._gateway.accounts, self._figures.note_facts
            self._execute(self._pipeline.rotate(first_connected(*first) if is_first else Connected(), loop_time()))
            self._publisher.publish_soon()

    async def _drain(self) -> bool:
        self._log.info("draining", subscriptions=len(self._pipeline.subscriptions.subscribed))
        self._execute(self._pipeline.rotate(Stop(), loop_time()))
        writer = self._store.writer
        await asyncio.gather(writer.drain(DRAIN_SECS), at_most(FAREWELL_SECS, self._cancels_have_arrived()))
        self._pipeline.intervals.close()
        drained = await writer.drain(FAREWELL_SECS)
        self._lines.log_persisted(self._members.universe.symbols)
        self._lines.log_dropped()
        self._log.info("stopped", drained=drained, lost=writer.figures.buffered_entries)
        return drained

    async def _cancels_have_arrived(self) -> None:
        """Wait until the gateway has read the cancels: it takes messages in order, so its answer shows that."""
        with contextlib.suppress(GatewayError, ConnectionError):
            await self._gateway.server_time(timeout=None)
            self._pipeline.intervals.spoke(self._wall_ms())

    # ---- rows and events of the gateway

    def _on_read(self) -> None:
        self._read_at(self._wall_ms())

    def _on_stamped_read(self) -> None:
        unix_ns = time_ns() if self._wall_ms is unix_ms else self._wall_ms() * 1_000_000
        self._stamp.read(unix_ns)
        self._read_at(unix_ns // 1_000_000)

    def _read_at(self, now_ms: int) -> None:
        """Note the time of a read. A step of the clock is found before the rows, whose times are by the new clock."""
        self._store.writer.gather()
        before, self._read_ms = self._read_ms, now_ms
        if not 0 <= now_ms - before < QUIET_MS:
            self._clock.check()

    def _on_read_end(self) -> None:
        try:
            self._store.writer.send_now()
        except Exception as error:
            self._tasks.fail(error)

    def _on_depth(self, message: bytes) -> bool:
        """Handle a depth message on the hot path. False: the gateway is to read it, and it comes again as a row."""
        try:
            pipeline = self._pipeline
            request = pipeline.hot_path.take(message, self._read_ms)
            if request in pipeline.liveness.awaited:
                self._execute(pipeline.first_row(request, loop_time()))
            return request != 0
        except Exception as error:
            self._tasks.fail(error)
            return True

    def _on_row(self, request: int, row: DepthRow) -> None:
        pipeline = self._pipeline
        try:
            applied = pipeline.books.row(request, row, self._read_ms)
            if request in pipeline.liveness.awaited:
                self._execute(pipeline.first_row(request, loop_time(), applied))
            if not applied:
                pipeline.row_dropped(request, row, loop_time())
        except Exception as error:
            self._tasks.fail(error)

    def _on_event(self, event: GatewayEvent) -> None:
        if isinstance(event, ConnectionLost):
            self._connection.lose()
            self._keepalive.disconnected()
        try:
            is_row = isinstance(event, events.BookReset)
            now_ms = self._read_ms if is_row else self._wall_ms()
            self._execute(self._pipeline.handle(event, loop_time(), now_ms))
            if isinstance(event, events.FarmStatus) and event.healthy:
                self._venues.resolve_missing()
            if isinstance(event, _PUBLISHED_AT_ONCE):
                self._publisher.publish_soon()
        except Exception as error:
            self._tasks.fail(error)

    def _drop_connection(self, reason: str) -> None:
        """Close the connection, and handle that as a loss: the gateway does not report it."""
        self._gateway.disconnect()
        self._on_event(ConnectionLost(reason))

    # ---- effects and deadlines of the pipeline

    def _execute(self, effects: Iterable[Effect]) -> None:
        self._executor.execute(effects)
        self._timer.set(self._pipeline.subscriptions.next_deadline())

    def _on_deadline(self) -> None:
        try:
            self._execute(self._pipeline.rotate(Deadline(), loop_time()))
        except Exception as error:
            self._tasks.fail(error)

    # ---- what is done at intervals

    async def _handle_late_rows(self) -> None:
        for cycle in itertools.count(1):
            await asyncio.sleep(LATE_ROWS_CYCLE_SECS)
            self._execute(self._pipeline.handle_late_rows(loop_time()))
            self._execute(self._pipeline.observe(loop_time(), self._wall_ms()))
            await self._members.release()
            await self._store.flush_contracts()
            if cycle % (DROPS_CYCLE_SECS // LATE_ROWS_CYCLE_SECS) == 0:
                self._lines.log_dropped()

    async def _inspect_lines(self) -> None:
        while True:
            await asyncio.sleep(self._pipeline.lines.period)
            self._execute(self._pipeline.inspect_lines(loop_time()))

    async def _release(self) -> None:
        await self._publisher.publish_last()
        await self._store.release()
