"""The figures that an ingest reports: its log lines that stand for many rows, its published status, its summary."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ibkr_depth_pipeline.clock import loop_time
from ibkr_depth_pipeline.gateway.endpoint import Greeting
from ibkr_depth_pipeline.hours.instruments import MarketHours
from ibkr_depth_pipeline.ingest.books import LastBook, LiveInterval, PipelineFigures
from ibkr_depth_pipeline.ingest.composition import RunStore
from ibkr_depth_pipeline.ingest.connection import GatewayConnection
from ibkr_depth_pipeline.ingest.effects import LogLine
from ibkr_depth_pipeline.ingest.keepalive import WallClockMonitor
from ibkr_depth_pipeline.ingest.membership import FocusWatcher, Membership
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.logs import LogRateLimit, get_log
from ibkr_depth_pipeline.metrics.endpoint import MetricsEndpoint
from ibkr_depth_pipeline.schema.status import FactsFigures, FeedFigures, LatencyFigures, RunIdentity, SymbolFigures
from ibkr_depth_pipeline.sink.backlog import WriterFigures
from ibkr_depth_pipeline.sink.status import LEAST_REPORT_SECS, REPORT_SECS
from ibkr_depth_pipeline.tasks import first_of
from ibkr_depth_pipeline.universe.changes import UniverseFollower


class RateLimitedLog:
    """Logs lines as far as `limit` allows, and one line for what is new in the figures of pipeline and writer.

    A broken feed must not fill a disk.
    """

    def __init__(self, pipeline: PipelineFigures, writer: WriterFigures, limit: LogRateLimit) -> None:
        self._pipeline = pipeline
        self._writer = writer
        self._limit = limit
        self._logged_stored: dict[str, int] = {}
        self._logged_drops: dict[tuple[str, str], int] = {}
        self._log = get_log()

    def log(self, line: LogLine, /) -> None:
        """Log the line, unless there were too many of its event, or of the same."""
        if self._limit.allows(line.event, repr(line.fields)):
            getattr(self._log, line.level)(line.event, **line.fields)

    def log_persisted(self, symbols: Iterable[str], /) -> None:
        """Log one line per symbol of which snapshots were stored since the last such line."""
        for symbol in symbols:
            stored = self._writer.stored.get(symbol, 0)
            since = stored - self._logged_stored.get(symbol, 0)
            if since:
                self._logged_stored[symbol] = stored
                seq = self._writer.newest_seq.get(symbol, 0)
                self._log.info("snapshots_persisted", symbol=symbol, snapshots=since, seq=seq)

    def log_dropped(self) -> None:
        """Log one line per symbol and reason, however many rows, and one per event that was over its limit."""
        for (symbol, reason), count in self._pipeline.dropped.items():
            since = count - self._logged_drops.get((symbol, reason), 0)
            if since:
                self._logged_drops[symbol, reason] = count
                self._log.warning("rows_dropped", symbol=symbol, reason=reason, rows=since, total=count)
        for event, lines in self._limit.start_window().items():
            self._log.warning("lines_left_out", of=event, lines=lines)


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """The result of a run. Times are unix ms; the counts are of this run."""

    started_ts: int
    ended_ts: int
    rows: dict[str, int]
    snapshots: dict[str, int]
    dropped: dict[str, int] = field(default_factory=dict)
    unresolved: dict[str, str] = field(default_factory=dict)
    refused_309: int = 0
    connections: int = 0
    turns: int = 0
    drained: bool = True
    pacing_violations: int = 0
    books: dict[str, LastBook] = field(default_factory=dict)
    live_intervals: tuple[LiveInterval, ...] = ()
    greeting: Greeting = field(default_factory=Greeting)
    up_ms: int | None = None

    @property
    def has_recorded(self) -> bool:
        """Whether it ever began to, and did not only stand by."""
        return self.connections > 0


class RunFigures:
    """The figures of a run as they are at each time. `begin` it with the run.

    buffer_bound: IBKR_BUFFER_BYTES; wall_ms() is unix ms.
    """

    def __init__(
        self,
        run: RunIdentity,
        pipeline: DepthPipeline,
        writer: WriterFigures,
        connection: GatewayConnection,
        members: Membership,
        focus: FocusWatcher,
        clock: WallClockMonitor,
        follower: UniverseFollower | None,
        *,
        buffer_bound: int,
        wall_ms: Callable[[], int],
    ) -> None:
        self._run = run
        self._pipeline = pipeline
        self._writer = writer
        self._connection = connection
        self._members = members
        self._focus = focus
        self._clock = clock
        self._follower = follower
        self._buffer_bound = buffer_bound
        self._wall_ms = wall_ms
        self._started_ts = 0
        self._began = math.inf
        self._facts = FactsFigures()

    def begin(self) -> None:
        """Note the begin of the run."""
        self._started_ts, self._began = self._wall_ms(), loop_time()

    def note_facts(self, facts: FactsFigures) -> None:
        """Note where the rotation began."""
        self._facts = facts

    def _up_ms(self) -> int:
        return round((loop_time() - self._began) * 1000)

    def current(self, *, ended: bool = False) -> FeedFigures:
        """The figures as they are now; ended: the run is over."""
        now_ms, pipeline, writer = self._wall_ms(), self._pipeline, self._writer
        seen = pipeline.figures
        p50, p99 = writer.lag_percentiles()
        return FeedFigures(
            run=self._run,
            written_ts=now_ms,
            ended_ts=now_ms if ended else 0,
            connected=self._connection.in_use.is_set(),
            suspended=pipeline.liveness.suspended,
            ailments=pipeline.liveness.ailments,
            batch_size=pipeline.subscriptions.batch_size,
            connections=seen.connections,
            reconnects=max(0, seen.connections - 1),
            turns=seen.turns,
            refused_309=seen.refused_309,
            pacing_violations=seen.pacing_violations,
            buffer_bytes=writer.buffered_bytes,
            buffer_bound=self._buffer_bound,
            buffer_entries=writer.buffered_entries,
            lost=sum(writer.dropped.values()),
            write_failures=writer.write_failures,
            lag_p50_ms=p50,
            lag_p99_ms=p99,
            clock=self._clock.figures(),
            universe_problem=self._follower.problem if self._follower is not None else "",
            size_changes=pipeline.sizes.problem(loop_time()),
            facts=self._facts,
            symbols=self._symbols(now_ms),
            up_ms=self._up_ms(),
        )

    def _symbols(self, now_ms: int) -> Mapping[str, SymbolFigures]:
        pipeline, writer, markets, focus = self._pipeline, self._writer, self._members.markets, self._focus.describe()
        specs = {spec.name: spec for spec in self._members.universe.specs}
        due = pipeline.subscriptions.first_rows_due(loop_time())
        outlook, contracts = pipeline.subscriptions.outlook(), pipeline.subscriptions.contracts()
        subscribed = set(pipeline.subscriptions.subscribed.values())
        last_rows, last_came, live_ms = pipeline.books.last_rows(), pipeline.books.last_came(), pipeline.books.live_ms()
        books, rows, venues = pipeline.books.last_books(), pipeline.books.rows(), pipeline.subscriptions.venues()
        troubles = pipeline.lines.troubles()
        dropped: dict[str, dict[str, int]] = {}
        for (symbol, reason), count in pipeline.figures.dropped.items():
            dropped.setdefault(symbol, {})[reason] = count
        return {
            symbol: SymbolFigures(
                subscribed=symbol in subscribed,
                last_row_ts=last_rows.get(symbol, 0),
                row_age_ms=max(0, now_ms - last_came[symbol]) if symbol in last_came else None,
                rows=rows[symbol],
                live_ms=live_ms.get(symbol, 0),
                bid0=books[symbol].bids[0][0] if symbol in books and books[symbol].bids else 0.0,
                ask0=books[symbol].asks[0][0] if symbol in books and books[symbol].asks else 0.0,
                snapshots=writer.stored.get(symbol, 0),
                newest_seq=writer.newest_seq.get(symbol, 0),
                lost=writer.dropped.get(symbol, 0),
                refused_309=pipeline.figures.refused_309_of[symbol],
                venue=venues.get(symbol, ""),
                dropped=dropped.get(symbol, {}),
                trouble=troubles.get(symbol, ""),
                silent=pipeline.figures.silent[symbol],
                out_of_step=pipeline.figures.out_of_step[symbol],
                asked_again=pipeline.figures.asked_again[symbol],
                con_id=contracts[symbol].con_id if symbol in contracts else 0,
                contract=contracts[symbol].local_symbol if symbol in contracts else "",
                expiry=contracts[symbol].expiry if symbol in contracts else "",
                hours=markets.label(symbol, now_ms),
                closed_until=markets.closed_until(symbol, now_ms),
                first_due_ts=now_ms + round(due[symbol] * 1000) if symbol in due else 0,
                focus=focus.get(symbol, ""),
                weight=specs[symbol].weight if symbol in specs else 1,
                pinned=symbol in specs and specs[symbol].pin,
                share=round(outlook[symbol].share, 4) if symbol in outlook else 0.0,
                next_turn_secs=round(outlook[symbol].next_secs, 1) if symbol in outlook else None,
            )
            for symbol in (*specs, *(["unknown"] if "unknown" in dropped else []))
        }

    def latency(self) -> LatencyFigures:
        """From a row to Redis' answer, of all blocks of the run."""
        return self._writer.latency()

    def hours(self) -> Mapping[str, MarketHours]:
        """symbol -> when its market is open, as far as IBKR lists it."""
        return self._members.markets.listed()

    # ---- the summary

    def summary(self, unresolved: Mapping[str, str], *, drained: bool) -> IngestSummary:
        """The summary of the run, which has ended. drained: everything reached Redis."""
        pipeline, figures = self._pipeline, self._pipeline.figures
        return IngestSummary(
            started_ts=self._started_ts,
            ended_ts=self._wall_ms(),
            rows=dict(pipeline.books.rows()),
            snapshots=dict(self._writer.stored),
            dropped={f"{symbol} {reason}": count for (symbol, reason), count in figures.dropped.items()},
            unresolved=dict(unresolved),
            refused_309=figures.refused_309,
            connections=figures.connections,
            turns=figures.turns,
            pacing_violations=figures.pacing_violations,
            drained=drained,
            books=pipeline.books.last_books(),
            live_intervals=tuple(pipeline.books.live_intervals()),
            greeting=self._connection.greeting,
            up_ms=self._up_ms(),
        )


class FiguresPublisher:
    """Publishes the figures of a run every REPORT_SECS: to Prometheus, and to Redis while the lease is ours.

    They are one key, so a reader never finds more holders of slots than there are slots; it is published soon after
    these change.
    """

    def __init__(self, figures: RunFigures, metrics: MetricsEndpoint, store: RunStore) -> None:
        self._figures = figures
        self._metrics = metrics
        self._status = store.status
        self._lease = store.lease
        self._standbys = store.standby_status if store.has_standby else None
        self._ready: int | None = None
        self._changed = asyncio.Event()

    def publish_soon(self) -> None:
        """Publish without waiting for the next report: other symbols hold slots, a connection was lost or is back."""
        self._changed.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            self._changed.clear()
            figures = replace(self._figures.current(), standbys_ready=self._ready)
            self._metrics.open()
            self._metrics.publish(figures, self._figures.latency())
            if self._lease.fresh:
                await self._status.publish(figures)
                await self._status.publish_hours(self._figures.hours(), figures.symbols)
            if self._standbys is not None:
                self._ready = await self._standbys.count()
            await asyncio.sleep(LEAST_REPORT_SECS)
            await first_of(self._changed.wait(), asyncio.sleep(REPORT_SECS - LEAST_REPORT_SECS))

    async def publish_last(self) -> None:
        """Publish that the run has ended, and before that the hours, which say whether a run is to be missed."""
        if self._lease.fresh:
            figures = self._figures.current(ended=True)
            await self._status.publish_hours(self._figures.hours(), figures.symbols)
            await self._status.publish(figures)
