"""Runs a probe: connects, resolves, carries out what plan.py decides, and reports. `run_probe` is the blocking call."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from typing_extensions import assert_never

from ibkr_depth_pipeline.clock import loop_time, unix_ms
from ibkr_depth_pipeline.errors import ConfigurationError, GatewayError, GatewayUnavailable, SinkUnavailable
from ibkr_depth_pipeline.gateway.connecting import ConnectRound
from ibkr_depth_pipeline.gateway.events import GatewayEvent
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.tws_session import GatewayCallbacks
from ibkr_depth_pipeline.gateway.venues import NO_CONTRACT, Resolution
from ibkr_depth_pipeline.gateway_facts import starting_point
from ibkr_depth_pipeline.hours.instruments import ALWAYS_OPEN, MarketHours
from ibkr_depth_pipeline.ingest.connection import ids_to_try, log_connected
from ibkr_depth_pipeline.ingest.effects import DepthRequester, LogLine, RequestDepth
from ibkr_depth_pipeline.ingest.open_markets import OpenMarkets
from ibkr_depth_pipeline.ingest.resolver import PATIENT_TRIES, NoAnswer, Resolver
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.model import DepthRow, Instrument
from ibkr_depth_pipeline.probe.plan import Commands, DetectIngest, ProbePlan
from ibkr_depth_pipeline.probe.report import Outcome, ProbeReport, SymbolReport
from ibkr_depth_pipeline.probe.symbol_probe import ProbeLimits
from ibkr_depth_pipeline.probe.venue_cache import VenueCache
from ibkr_depth_pipeline.rotation.events import Cancel
from ibkr_depth_pipeline.rotation.slots import Reconnect
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.status import hours_age_secs
from ibkr_depth_pipeline.tasks import DeadlineTimer, RunTasks, at_most, signals_caught
from ibkr_depth_pipeline.universe import Universe, load_universe

PROGRESS_SECS = 0.2

MOST_RECONNECTS = 5
RECONNECT_PAUSE_SECS = 1.0
"""Reconnects while symbols are resolved: how many, and the pause before each."""

DRAIN_SECS = 2.0
"""Longest wait for the last cancels, which are sent at the pace of all messages."""

QUIET_SECS = 0.5
"""A book with both sides that has not grown for so long counts as complete."""

SHORTEST_RETRY_SECS = 0.1
RETRIES_WHILE_TAKEN = 3

FRESH_HOURS_SECS = 3600.0
"""Hours that were published so recently are not asked for again before a run is refused by them."""

LONGEST_REFRESH_SECS = 180.0
"""For how long hours are asked for: thousands of contracts take a minute or two."""

_UNKNOWN_CONTRACT = 200


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a running probe: `host:port` of its gateway, seconds since it began, and each symbol so far."""

    where: str
    elapsed: float
    symbols: tuple[SymbolReport, ...]


OnProgress = Callable[[Progress], None]


class ProbeSession:
    """One probe of the symbols of `universe`; created and run in one event loop, once.

    books: subscribe to depth; else contracts, venues and hours alone are asked for, as beside a running ingest. record:
    use Redis, to detect a running ingest and to store venue hashes. first_book_secs: longest wait for a
    symbol's book, IBKR_FIRST_ROW_SECS if None. on_progress is called every PROGRESS_SECS and once at the end.
    """

    def __init__(
        self,
        settings: Settings,
        universe: Universe,
        *,
        books: bool = True,
        record: bool = True,
        first_book_secs: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._settings = settings
        self._books = books
        self._universe = universe
        self._limits = probe_limits(settings, first_book_secs)
        self._on_progress = on_progress
        self._request_ids = itertools.count(1)
        self._gateway = TwsGateway.of_settings(
            settings,
            request_ids=self._request_ids,
            callbacks=GatewayCallbacks(on_event=self._on_event, on_row=self._on_row),
            id_setting="IBKR_PROBE_CLIENT_ID",
        )
        self._requester = DepthRequester(self._gateway, self._limits.rows, _log_line)
        self._venue_cache = VenueCache(settings.redis_target if record else None, settings.ibkr_gateway_name)
        self._plan = ProbePlan(self._limits, self._request_ids)
        self._resolutions: dict[str, Resolution] = {}
        self._unprobed: dict[str, SymbolReport] = {}
        self._client_id: int | None = None
        self._reconnects = 0
        self._log = get_log()
        self._stop = asyncio.Event()
        self._stopped_by: str | None = None
        self._over = asyncio.Event()
        self._timer = DeadlineTimer(self._on_deadline)
        self._tasks = RunTasks(self._stop)
        self._began = 0.0

    def stop(self, by: str = "stop") -> None:
        """Ends the probe early: it cancels subscriptions, disconnects and reports. May be called again."""
        self._stopped_by = self._stopped_by or by
        self._stop.set()

    async def run(self) -> ProbeReport:
        """Returns the report, also after `stop`. Raises GatewayError if the gateway can't be reached."""
        started, self._began = unix_ms(), loop_time()
        if self._on_progress is not None:
            self._tasks.start(self._publish_progress(self._on_progress))
        try:
            finished = await self._tasks.unless_stopped(self._work())
            if self._tasks.failure is not None:
                raise self._tasks.failure
            self._carry_out(self._plan.stop(loop_time()))
            if self._on_progress is not None:
                self._on_progress(self._progress())
            return self._report(started, None if finished else self._stopped_by)
        finally:
            await self._clean_up()

    # ---- steps of a probe

    async def _work(self) -> None:
        ingest_runs = await self._venue_cache.detect_ingest(self._universe.symbols)
        await self._connect()
        await self._resolve_all()
        instruments = [found for found in self._resolutions.values() if isinstance(found, Instrument)]
        if ingest_runs or not self._books:
            self._unprobed.update({each.symbol: SymbolReport.venue_only(each) for each in instruments})
        elif instruments:
            start = starting_point(self._settings, self._gateway.accounts)
            self._plan.begin_with(start.slots, start.release_pause)
            self._carry_out(self._plan.begin(instruments, loop_time()))
            await self._over.wait()
        known = [each for each in self._reports() if each.symbol in self._resolutions]
        await self._venue_cache.record(
            [(_at_granted_venue(self._resolutions[each.symbol], each), each) for each in known],
            self._hours(instruments),
        )

    def _hours(self, instruments: Iterable[Instrument]) -> dict[str, MarketHours]:
        """symbol -> when its market is open, if the whole universe is probed: Dagster's session follows from it."""
        with contextlib.suppress(ConfigurationError):
            if set(load_universe(self._settings.symbol_config_path).symbols) - set(self._universe.symbols):
                return {}
        markets = OpenMarkets(lambda now_ms: ALWAYS_OPEN)
        for spec in self._universe.specs:
            markets.wish(spec.name, spec.hours)
        for instrument in instruments:
            markets.resolved(instrument, unix_ms())
        return markets.listed()

    async def _connect(self) -> None:
        settings = self._settings
        terms = ConnectRound(
            lambda taken: self._log.warning("client_id_in_use", client_id=taken, code=326),
            lambda hung: self._log.warning(
                "client_id_unanswered", client_id=hung, secs=settings.ibkr_connect_timeout_secs
            ),
        )
        self._client_id = await self._gateway.connect(ids_to_try(settings, settings.ibkr_probe_client_id), terms=terms)
        log_connected(settings, self._gateway, self._client_id)

    async def _reconnect(self) -> None:
        self._gateway.disconnect()
        try:
            await self._connect()
        except GatewayError as error:
            self._plan.give_up(str(error), loop_time())
            self._carry_out([])
        else:
            self._carry_out(self._plan.reconnected(loop_time()))

    async def _resolve_all(self) -> None:
        resolver = Resolver(
            self._gateway, self._universe.specs, ready=self._reconnect_if_lost, most_tries=PATIENT_TRIES
        )
        async for found in resolver.results():
            if isinstance(found, NoAnswer):
                self._unprobed[found.symbol] = SymbolReport(found.symbol, Outcome.NO_ANSWER, found.reason)
                continue
            self._resolutions[found.symbol] = found
            if isinstance(found, Instrument):
                self._log.info("symbol_resolved", symbol=found.symbol, con_id=found.con_id, exchange=found.exchange)
                continue
            self._log.warning("symbol_skipped", symbol=found.symbol, reason=found.reason)
            codes = (_UNKNOWN_CONTRACT,) if found.reason == NO_CONTRACT else ()
            self._unprobed[found.symbol] = SymbolReport.unresolved(found, codes)

    async def _reconnect_if_lost(self) -> None:
        """At most MOST_RECONNECTS times, each after a pause: the queries may be what ends the connection."""
        if self._gateway.is_connected:
            return
        self._reconnects += 1
        if self._reconnects > MOST_RECONNECTS:
            raise GatewayUnavailable("the connection to the gateway was lost again and again over the contract details")
        await asyncio.sleep(RECONNECT_PAUSE_SECS)
        await self._connect()

    async def _detect_ingest(self) -> None:
        running = await self._venue_cache.detect_ingest(self._universe.symbols)
        self._carry_out(self._plan.ingest_detected(running, loop_time()))

    # ---- inputs of the plan, and its commands

    def _on_row(self, request: int, row: DepthRow) -> None:
        self._carry_out(self._plan.row(request, row, loop_time()))

    def _on_event(self, event: GatewayEvent) -> None:
        self._carry_out(self._plan.handle(event, loop_time()))

    def _on_deadline(self) -> None:
        self._carry_out(self._plan.deadline(loop_time()))

    def _carry_out(self, commands: Commands) -> None:
        for command in commands:
            match command:
                case RequestDepth():
                    self._requester.request(command)
                case Cancel():
                    self._requester.cancel(command)
                case DetectIngest():
                    self._tasks.start(self._detect_ingest())
                case Reconnect():
                    self._tasks.start(self._reconnect())
                case _:
                    assert_never(command)
        self._timer.set(self._plan.next_deadline())
        if self._plan.is_over:
            self._over.set()

    # ---- reports

    def _reports(self) -> tuple[SymbolReport, ...]:
        return tuple(self._venue_cache.beside_ingest(self._symbol(symbol)) for symbol in self._universe.symbols)

    def _symbol(self, symbol: str) -> SymbolReport:
        reason = "resolved" if symbol in self._resolutions else "asks for its contract"
        unresolved = SymbolReport(symbol, Outcome.PENDING, reason)
        return self._plan.report(symbol) or self._unprobed.get(symbol, unresolved)

    def _progress(self) -> Progress:
        where = f"{self._settings.ibkr_host}:{self._settings.ibkr_port}"
        return Progress(where, loop_time() - self._began, self._reports())

    def _report(self, started: int, interrupted_by: str | None) -> ProbeReport:
        return ProbeReport(
            started_ts=started,
            ended_ts=unix_ms(),
            host=self._settings.ibkr_host,
            port=self._settings.ibkr_port,
            client_id=self._client_id,
            symbols=tuple(each.closed() for each in self._reports()),
            ingest=self._venue_cache.ingest,
            redis=self._venue_cache.use,
            redis_error=self._venue_cache.error,
            notices=self._plan.notices,
            interrupted_by=interrupted_by,
        )

    async def _publish_progress(self, on_progress: OnProgress) -> None:
        while True:
            on_progress(self._progress())
            await asyncio.sleep(PROGRESS_SECS)

    async def _clean_up(self) -> None:
        self._carry_out(self._plan.stop(loop_time()))
        self._timer.set(None)
        await at_most(DRAIN_SECS, self._gateway.drain())
        self._gateway.disconnect()
        await self._tasks.end()
        await self._venue_cache.close()


def _log_line(line: LogLine) -> None:
    getattr(get_log(), line.level)(line.event, **line.fields)


def _at_granted_venue(resolution: Resolution, report: SymbolReport) -> Resolution:
    """The contract at the venue with depth; the best venue if the probe found none."""
    if isinstance(resolution, Instrument) and report.outcome is Outcome.DEPTH:
        return replace(resolution, exchange=report.venue_requested)
    return resolution


def probe_limits(settings: Settings, first_book_secs: float | None = None) -> ProbeLimits:
    """The limits of the settings."""
    retry_pause = max(settings.ibkr_error309_cooldown_secs, SHORTEST_RETRY_SECS)
    return ProbeLimits(
        slots=settings.ibkr_max_concurrent_depth,
        rows=settings.ibkr_depth_rows + settings.ibkr_depth_extra_rows,
        full_rows=settings.ibkr_depth_rows,
        book_cap=first_book_secs or settings.ibkr_first_row_secs,
        quiet=QUIET_SECS,
        retry_pause=retry_pause,
        patience=RETRIES_WHILE_TAKEN * retry_pause,
    )


def run_probe(
    settings: Settings,
    universe: Universe,
    *,
    record: bool = True,
    first_book_secs: float | None = None,
    on_progress: OnProgress | None = None,
) -> ProbeReport:
    """Probes every symbol of `universe`, in a blocking call; the parameters are ProbeSession's.

    SIGINT and SIGTERM end it early if it runs in the main thread: subscriptions are cancelled, and the report has the
    signal in `interrupted_by`. Raises GatewayUnavailable if the gateway can't be reached and ClientIdsExhausted if no
    client id is free; a symbol that fails, or a Redis that is unavailable, raises nothing.
    """

    async def main() -> ProbeReport:
        session = ProbeSession(
            settings, universe, record=record, first_book_secs=first_book_secs, on_progress=on_progress
        )
        with signals_caught(session.stop):
            return await session.run()

    return asyncio.run(main())


def refresh_hours(settings: Settings, universe: Universe) -> str | None:
    """Asks for the hours of the whole `universe` and publishes them, in a blocking call, unless they are fresh.

    Returns the signal that ended it early, None if none did. Raises GatewayError if the gateway can't be asked.
    """

    async def main() -> str | None:
        with contextlib.suppress(SinkUnavailable):
            age = await hours_age_secs(settings.redis_target, settings.ibkr_gateway_name)
            if age < FRESH_HOURS_SECS:
                return None
        session = ProbeSession(settings, universe, books=False)
        with signals_caught(session.stop):
            asyncio.get_running_loop().call_later(LONGEST_REFRESH_SECS, session.stop, "")
            return (await session.run()).interrupted_by or None

    return asyncio.run(main())
