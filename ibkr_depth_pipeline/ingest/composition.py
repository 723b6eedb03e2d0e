"""Composes the parts of a run by its settings: its Redis and its pipeline. Callbacks of the program that started it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ibkr_depth_pipeline.clock import loop_time
from ibkr_depth_pipeline.errors import ConfigurationError, NoLongerWanted, NothingToRecord
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway_facts import starting_point
from ibkr_depth_pipeline.hours.instruments import MarketHours, calendar_hours
from ibkr_depth_pipeline.ingest.dump_schedule import SETTLE_SECS
from ibkr_depth_pipeline.ingest.hot_path import RowStore, Store
from ibkr_depth_pipeline.ingest.intervals import IntervalSink, no_sink
from ibkr_depth_pipeline.ingest.liveness import AILING_SECS
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.logs import RepeatedFailureLog, get_log
from ibkr_depth_pipeline.rotation.events import Connected, RotationPlan
from ibkr_depth_pipeline.rotation.slots import ADVISED_LINE_SECS, LATE_ROWS_SECS
from ibkr_depth_pipeline.schema.encoding import ReceiveStamp
from ibkr_depth_pipeline.schema.size_units import SizeUnit
from ibkr_depth_pipeline.schema.status import FactsFigures, FeedFigures, RunIdentity
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.backpressure import Backpressure
from ibkr_depth_pipeline.sink.claims import ContractClaims, StreamClaims
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline.sink.status import ClockEntry, StandbyStatus, StatusPublisher, keep_entry
from ibkr_depth_pipeline.sink.symbol_keys import ContractCache
from ibkr_depth_pipeline.sink.writer import RedisWriter
from ibkr_depth_pipeline.tasks import RunTasks

_REFUSALS_CYCLE_SECS = 1.0


@dataclass(frozen=True, slots=True)
class IngestTimings:
    """The program's own times that a test shortens, in seconds; described where they are defined."""

    ailing: float = AILING_SECS
    late_rows: float = LATE_ROWS_SECS
    advised_line: float = ADVISED_LINE_SECS
    dump_settle: float = SETTLE_SECS


def calendar_of(settings: Settings) -> Callable[[int], MarketHours]:
    """The sessions of IBKR_CALENDAR around a moment (unix ms); always open if there is no such calendar."""

    def hours(now_ms: int) -> MarketHours:
        try:
            return calendar_hours(settings.ibkr_calendar, now_ms)
        except ConfigurationError as error:
            get_log().error("calendar_unknown", error=str(error))
            tomorrow = now_ms + 86_400_000
            return MarketHours(settings.ibkr_calendar, ((0, tomorrow),), tomorrow)

    return hours


class RunStore:
    """What a run has in Redis: its lease and claims, the writer, and the keys beside the streams.

    `hold` it for the run; `release` it, then `aclose`, at the end. The writer pauses reading from `gateway` if a burst
    is faster than Redis.
    """

    def __init__(
        self,
        settings: Settings,
        symbols: Sequence[str],
        identity: RunIdentity,
        gateway: TwsGateway,
        stamp: ReceiveStamp,
        tasks: RunTasks,
    ) -> None:
        self._name = name = settings.ibkr_gateway_name
        self._wait_secs = settings.ibkr_lease_wait_secs
        self._tasks = tasks
        self.client = client = open_redis(settings.redis_target)
        self.lease = Lease(client, name, identity, settings.ibkr_lease_ttl_secs)
        self.claims = StreamClaims(client, name, identity, symbols, settings.ibkr_lease_ttl_secs)
        self.contract_claims = ContractClaims(client, name, identity)
        self.contracts = ContractCache(client)
        self.status = StatusPublisher(client, name)
        self.standby_status = StandbyStatus(client, name, identity)
        self.has_standby = settings.ibkr_standby != "off"
        self.is_reserve = settings.ibkr_standby == "reserve"
        self.writer = RedisWriter(
            client,
            lease=self.lease,
            maxlen=settings.ibkr_stream_maxlen,
            buffer_bytes=settings.ibkr_buffer_bytes,
            min_replicas=settings.ibkr_redis_min_replicas,
            snapshot_stamp=stamp if settings.ibkr_stream_recv_ns else None,
            row_stamp=stamp if settings.ibkr_stream_rows else None,
            backpressure=Backpressure(settings.ibkr_buffer_bytes, gateway.pause_reading, gateway.resume_reading),
        )

    async def hold(self, symbols: Iterable[str]) -> None:
        """Take the lease and claim the streams of `symbols`, and keep them.

        See Lease.acquire and StreamClaims.acquire.
        """
        await self.lease.acquire(self._wait_secs)
        self._tasks.start(self.lease.keep())
        self.claims.choose(symbols)
        await self.claims.acquire(self._wait_secs)
        self._tasks.start(self.claims.keep())

    async def flush_contracts(self) -> None:
        """Store the contracts that were noted, while the lease is ours."""
        if self.lease.fresh:
            await self.contracts.flush()

    def note_clock(self, entry: ClockEntry) -> None:
        """Store what happened to the host's clock, while the lease is ours."""
        if self.lease.fresh:
            self._tasks.start(keep_entry(self.client, self._name, entry))

    async def release(self) -> None:
        """Give claims and lease back. Nothing more is written."""
        await self.standby_status.withdraw()
        await self.contract_claims.release()
        await self.claims.release()
        await self.lease.release()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.aclose()


def pipeline_of(
    settings: Settings,
    timings: IngestTimings,
    request_ids: Iterator[int],
    outlet: Callable[[str], Store],
    turns: Callable[[str], IntervalSink] = no_sink,
    row_stores: Callable[[str], RowStore] | None = None,
    record_sizes: Callable[[str, SizeUnit], None] = lambda symbol, unit: None,
) -> DepthPipeline:
    """Books and rotation, still without symbols."""
    return DepthPipeline(
        _plan_of(settings, timings),
        request_ids,
        outlet,
        rows=rows_requested(settings),
        levels_shown=settings.ibkr_depth_rows,
        heartbeat_ttl=settings.ibkr_heartbeat_ttl,
        silent_line=settings.ibkr_silent_line_secs,
        crossed_book=settings.ibkr_crossed_book_secs,
        ailing_secs=timings.ailing,
        turns=turns,
        row_stores=row_stores if settings.ibkr_stream_rows else None,
        record_sizes=record_sizes,
    )


def is_stamped(settings: Settings) -> bool:
    """Whether each read of the gateway's socket is to be timed in nanoseconds."""
    return settings.ibkr_stream_recv_ns or settings.ibkr_stream_rows


def rows_requested(settings: Settings) -> int:
    """How many rows a side the gateway is asked for: the levels shown, and those that move up into their place."""
    return settings.ibkr_depth_rows + settings.ibkr_depth_extra_rows


def _plan_of(settings: Settings, timings: IngestTimings) -> RotationPlan:
    return RotationPlan(
        max_batch=settings.ibkr_max_concurrent_depth,
        dwell=settings.ibkr_rotation_secs,
        first_row_cap=settings.ibkr_first_row_secs,
        cooldown=settings.ibkr_error309_cooldown_secs,
        recovery_turns=settings.ibkr_error309_recovery_cycles,
        unsupported_retry=settings.ibkr_unsupported_retry_secs,
        outage=settings.ibkr_outage_secs,
        late_rows=timings.late_rows,
        advised_line=timings.advised_line,
    )


def first_connected(settings: Settings, accounts: Sequence[str], note: Callable[[FactsFigures], None]) -> Connected:
    """The first connection of a run, with what is known of the slots of these accounts, which is noted as well."""
    known = starting_point(settings, accounts)
    if known.problem or known.seen_ts is not None:
        seen = known.slots, known.slots_ts, known.release_pause, known.release_pause_ts
        note(FactsFigures(str(settings.ibkr_gateway_facts.absolute()), *seen, known.problem))
    return Connected(slots=known.slots, release_pause=known.release_pause)


async def fail_if_all_refused(pipeline: DepthPipeline, symbols: Callable[[], Sequence[str]], at: float) -> None:
    """From `at`, the loop's time, on, until a first row: raise NothingToRecord once every symbol is refused."""
    if at == math.inf:
        return
    await asyncio.sleep(max(0.0, at - loop_time()))
    while not any(pipeline.books.rows().values()):
        refusals = pipeline.subscriptions.refusals()
        if refusals.keys() >= set(symbols()):
            raise NothingToRecord(refusals)
        await asyncio.sleep(_REFUSALS_CYCLE_SECS)


# ---- callbacks


@dataclass(frozen=True, slots=True)
class FiguresCallback:
    """Receives the figures every so many seconds, in a thread of its own."""

    receive: Callable[[FeedFigures], None]
    every_secs: float


@dataclass(frozen=True, slots=True)
class WantedCallback:
    """Answers whether the run is still wanted, every so many seconds, in a thread of its own.

    False ends the run: it drains, and `run` raises NoLongerWanted. What `ask` raises is logged, and ends nothing.
    """

    ask: Callable[[], bool]
    every_secs: float = 10.0


async def deliver_figures(callback: FiguresCallback, figures: Callable[[], FeedFigures]) -> None:
    """Deliver the figures until cancelled. What the callback raises is logged, and ends nothing."""
    failures = RepeatedFailureLog("watcher_failed", level=logging.WARNING)
    while True:
        await asyncio.sleep(callback.every_secs)
        try:
            await asyncio.to_thread(callback.receive, figures())
        except Exception as error:
            failures.record(repr(error), loop_time())
        else:
            failures.end(loop_time())


async def poll_wanted(wanted: WantedCallback) -> None:
    """Poll until cancelled. Raises NoLongerWanted as soon as the answer is no."""
    failures = RepeatedFailureLog("not_known_whether_wanted", level=logging.WARNING)
    while True:
        await asyncio.sleep(wanted.every_secs)
        try:
            still = await asyncio.to_thread(wanted.ask)
        except Exception as error:
            failures.record(repr(error), loop_time())
        else:
            failures.end(loop_time())
            if not still:
                raise NoLongerWanted("this run has ended already for whoever started it")
