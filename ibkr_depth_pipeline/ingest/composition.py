"""Composes the writer and the pipeline of a run by its settings; the callbacks of the program that started the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ibkr_depth_pipeline.errors import ConfigurationError, NoLongerWanted
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.ingest.hot_path import RowStore, Store
from ibkr_depth_pipeline.ingest.intervals import IntervalSink, no_sink
from ibkr_depth_pipeline.ingest.liveness import AILING_SECS
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.instrument_hours import MarketHours, calendar_hours
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.rotation.events import RotationPlan
from ibkr_depth_pipeline.rotation.slots import ADVISED_LINE_SECS, LATE_ROWS_SECS
from ibkr_depth_pipeline.schema.encoding import ReceiveStamp
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.backpressure import Backpressure
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline.sink.writer import RedisWriter


@dataclass(frozen=True, slots=True)
class IngestTimings:
    """The program's own times that a test shortens, in seconds; described where they are defined."""

    ailing: float = AILING_SECS
    late_rows: float = LATE_ROWS_SECS
    advised_line: float = ADVISED_LINE_SECS


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


def writer_of(
    settings: Settings, client: Client, lease: Lease, gateway: TwsGateway, stamp: ReceiveStamp
) -> RedisWriter:
    """The writer into Redis; it pauses reading from `gateway` if a burst is faster than Redis."""
    return RedisWriter(
        client,
        lease=lease,
        maxlen=settings.ibkr_stream_maxlen,
        buffer_bytes=settings.ibkr_buffer_bytes,
        min_replicas=settings.ibkr_redis_min_replicas,
        snapshot_stamp=stamp if settings.ibkr_stream_recv_ns else None,
        row_stamp=stamp if settings.ibkr_stream_rows else None,
        backpressure=Backpressure(settings.ibkr_buffer_bytes, gateway.pause_reading, gateway.resume_reading),
    )


def pipeline_of(
    settings: Settings,
    timings: IngestTimings,
    request_ids: Iterator[int],
    outlet: Callable[[str], Store],
    turns: Callable[[str], IntervalSink] = no_sink,
    row_stores: Callable[[str], RowStore] | None = None,
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
    while True:
        await asyncio.sleep(callback.every_secs)
        try:
            await asyncio.to_thread(callback.receive, figures())
        except Exception as error:
            get_log().warning("watcher_failed", error=repr(error))


async def poll_wanted(wanted: WantedCallback) -> None:
    """Poll until cancelled. Raises NoLongerWanted as soon as the answer is no."""
    while True:
        await asyncio.sleep(wanted.every_secs)
        try:
            still = await asyncio.to_thread(wanted.ask)
        except Exception as error:
            get_log().warning("not_known_whether_wanted", error=repr(error))
        else:
            if not still:
                raise NoLongerWanted("this run has ended already for whoever started it")
