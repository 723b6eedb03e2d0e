"""The depth feed as an asset: one op that records as long as its run lives; its config, its job and its schedule.

The feed is built from an op, since an `@dg.asset` takes no `configured` mapping. With one, bad config is refused in the
Launchpad before a run exists, for the job and for Materialize alike.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ibkr_depth_pipeline.errors import ConfigurationError, GatewayError
from ibkr_depth_pipeline.hours.trading import OutsideSession
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.monitoring.ticks import universe_sessions
from ibkr_depth_pipeline.orchestration.gateway_assets import (
    FEED_OP,
    INGEST_JOB,
    INGEST_POOL,
    PROBE_JOB,
    STANDBY_JOB,
    STANDBY_OP,
    STANDBY_POOL,
    GatewayAssets,
    GatewayNames,
    symbol_key,
)
from ibkr_depth_pipeline.orchestration.ingest.metadata import (
    contract_metadata,
    dump_metadata,
    feed_progress,
    figures_at_end,
    figures_at_start,
    session_metadata,
    symbols_progress,
)
from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import is_ending, tracked_ingest
from ibkr_depth_pipeline.orchestration.monitoring.watchdog import held_by_probe, still_wanted
from ibkr_depth_pipeline.orchestration.resources import (
    ExchangeHours,
    IbkrGateway,
    RedisStore,
    UniverseClock,
    about,
    check_overrides,
    errors_as_failures,
    refuse,
    session_clock,
    settings_and_universe,
    universe_file,
)
from ibkr_depth_pipeline.orchestration.scheduling import (
    opening_schedule,
    read_settings,
    schedule_status,
    settings_at_load,
    utc_now,
)
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.universe import Universe

if TYPE_CHECKING:  # what only a run needs is imported in its process: the code server never records
    from ibkr_depth_pipeline.ingest.figures import IngestSummary
    from ibkr_depth_pipeline.ingest.flight_recorder import DumpReport
    from ibkr_depth_pipeline.ingest.run import IngestOutcome

LEAST_DURATION_SECS = 0.1

_DESCRIPTION = """Records market depth into Redis until the session closes, the duration is over, or on Terminate.

Books are in `raw:ibkr:depth:stream:{SYMBOL}` and `raw:ibkr:depth:last:{SYMBOL}`; the log is in the run's stderr."""
_STANDBY = """Stands by: connected under a client id of its own, every contract resolved, no slot held.

Takes over within the second once the run that records ends, or as soon as its lease has run out. Then it records."""
_ANY_TIME = "With stop_at_close: false in the run config, or IBKR_STOP_AT_CLOSE=false, a run records at any time"

Metadata = Mapping[str, dg.MetadataValue]


class IngestConfig(dg.Config):
    """Record the whole universe until the close, or Terminate; everything here is optional."""

    symbols: list[str] = Field(
        default=[], description="Record only these symbols, such as [AAPL, SPY]. Empty: the universe."
    )
    duration: float | None = Field(
        default=None, description="Stop by itself after so many seconds. Left out: at the close, or on Terminate."
    )
    rotation_secs: float | None = Field(default=None, description=about("ibkr_rotation_secs"))
    max_concurrent_depth: int | None = Field(
        default=None, description=f"{about('ibkr_max_concurrent_depth')} Wins over the resource's."
    )

    stop_at_close: bool | None = Field(
        default=None,
        description="Follow the markets' hours: refuse to start outside the session of the universe's instruments, and "
        "stop at its last close. False: record at any time. Left out: IBKR_STOP_AT_CLOSE of the environment or of "
        ".env, else True.",
    )

    def overrides(self) -> dict[str, Any]:
        """Setting -> value, of the fields that are given."""
        fields = {"ibkr_rotation_secs": self.rotation_secs, "ibkr_max_concurrent_depth": self.max_concurrent_depth}
        return {name: value for name, value in fields.items() if value is not None}

    def check(self) -> None:
        """Raise DagsterInvalidConfigError for what is wrong in any environment."""
        if self.duration is not None and not self.duration >= LEAST_DURATION_SECS:
            wrong = f"{self.duration!r} is not allowed; seconds, {LEAST_DURATION_SECS} or more, or left out"
            raise refuse(ConfigurationError("run config", [f"duration={wrong}"]))
        try:
            Universe(()).subset(self.symbols)
        except ConfigurationError as error:
            raise refuse(error) from None
        check_overrides(self.overrides())

    def resolve(self, names: GatewayNames, ibkr: IbkrGateway, redis: RedisStore) -> tuple[Settings, Universe]:
        """Settings and universe in force for this run. Raises ConfigurationError."""
        return settings_and_universe(names, self.symbols, ibkr, redis, **self.overrides())

    def follows_close(self, by_default: bool) -> bool:
        """Whether the close ends the run; by_default if this config does not say."""
        return by_default if self.stop_at_close is None else self.stop_at_close

    def resolved(self, names: GatewayNames, ibkr: IbkrGateway, redis: RedisStore) -> tuple[Settings, Universe]:
        """As `resolve`, for a run: what is wrong is its failure."""
        with errors_as_failures():
            return self.resolve(names, ibkr, redis)

    def seconds_to_record(
        self, hours: ExchangeHours | UniverseClock, now: datetime, *, by_default: bool = True
    ) -> float | None:
        """How long to record from `now` on; None: until Terminate. Raises OutsideSession if the calendar forbids it.

        by_default says whether the calendar counts if this config does not say.
        """
        if not self.follows_close(by_default):
            return self.duration
        try:
            left = hours.seconds_to_close(now)
        except OutsideSession as closed:
            raise OutsideSession(f"{closed}. {_ANY_TIME}") from None
        return left if self.duration is None else min(left, self.duration)


class SessionObserver:
    """Logs an observation of the feed and of each symbol every few minutes: what happened since the one before.

    `log` is the op's log_event; it is called in the watcher's thread.
    """

    def __init__(self, log: Callable[[dg.AssetObservation], None], feed: dg.AssetKey, universe: Universe) -> None:
        self._log = log
        self._feed = feed
        self._symbols = universe.symbols
        self._seen: FeedFigures | None = None

    def observe(self, now: FeedFigures) -> None:
        """Log what happened since the last call."""
        before, self._seen = self._seen, now
        problem = {"universe": now.universe_problem} if now.universe_problem else {}
        self._log(dg.AssetObservation(self._feed, metadata={**feed_progress(before, now), **problem}))
        for observation in self._of_symbols(before, now):
            self._log(observation)

    def dumped(self, report: "DumpReport") -> None:
        """Log an observation of the feed with a tape that the flight recorder has written; called in a thread."""
        self._log(dg.AssetObservation(self._feed, description="; ".join(report.why), metadata=dump_metadata(report)))

    def conclude(self, summary: "IngestSummary") -> None:
        """Log the rest of a session that is over, and the symbols that could not be recorded."""
        before = self._seen or figures_at_start(summary, self._symbols)
        for observation in self._of_symbols(before, figures_at_end(before, summary), summary):
            self._log(observation)

    def _of_symbols(
        self, before: FeedFigures | None, now: FeedFigures, summary: "IngestSummary | None" = None
    ) -> Iterator[dg.AssetObservation]:
        unresolved = summary.unresolved if summary else {}
        for symbol, figures in symbols_progress(before, now).items():
            if symbol in self._symbols or (symbol != "unknown" and summary is None):
                note = {"unresolved": unresolved[symbol]} if symbol in unresolved else {}
                contract = contract_metadata(now.symbols[symbol]) if symbol in now.symbols else {}
                yield dg.AssetObservation(symbol_key(symbol), metadata={**figures, **contract, **note})


def build_feed(assets: GatewayAssets) -> dg.AssetsDefinition:
    """The feed, downstream of every symbol of the universe."""
    upstream = {f"symbol_{number}": spec.key for number, spec in enumerate(assets.specs, start=1)}
    return dg.AssetsDefinition.from_op(
        _feed_op(tuple(upstream), assets.names),
        keys_by_input_name=upstream,
        keys_by_output_name={"result": assets.names.feed_key},
        group_name=assets.names.group,
        descriptions_by_output_name={"result": _DESCRIPTION},
        metadata_by_output_name={"result": assets.feed_metadata},
    )


def _feed_op(inputs: Sequence[str], names: GatewayNames) -> dg.OpDefinition:
    # No retry policy: with one, Terminate would restart the op.
    @dg.op(
        name=names.named(f"{FEED_OP}_unchecked"),
        description=_DESCRIPTION,
        pool=names.named(INGEST_POOL),
        ins={name: dg.In(dg.Nothing) for name in inputs},
        out=dg.Out(dg.Nothing),
    )
    def record(
        context: dg.OpExecutionContext,
        config: IngestConfig,
        ibkr: IbkrGateway,
        redis: RedisStore,
        exchange: ExchangeHours,
    ) -> dg.Output[None]:
        outcome, metadata = _record(context, config, names, exchange, *config.resolved(names, ibkr, redis))
        return _concluded(context, names.feed_key, outcome, metadata)

    return _checked(record, names.named(FEED_OP))


def _checked(unchecked: dg.OpDefinition, name: str) -> dg.OpDefinition:
    """`unchecked` under that name, with a config that is checked before launch."""

    @dg.configured(unchecked, name=name)
    def checked(config: IngestConfig) -> dict[str, Any]:
        config.check()
        return config.model_dump()

    return checked


def _record(
    context: dg.OpExecutionContext,
    config: IngestConfig,
    names: GatewayNames,
    exchange: ExchangeHours,
    settings: Settings,
    universe: Universe,
) -> "tuple[IngestOutcome, Metadata]":
    """Record until the end, with observations. A run that only stood by has observed nothing."""
    from ibkr_depth_pipeline.ingest.composition import FiguresCallback, WantedCallback
    from ibkr_depth_pipeline.ingest.run import run_ingest

    with errors_as_failures():
        configure_logging(settings.ibkr_log_level)
        observer = SessionObserver(context.log_event, names.feed_key, universe)
        hours, duration = _session_to_record(config, exchange, settings, universe)
        outcome = run_ingest(
            settings,
            universe,
            duration,
            run_id=context.run_id,
            figures_callback=FiguresCallback(observer.observe, settings.ibkr_observe_secs),
            wanted_callback=WantedCallback(lambda: still_wanted(context.instance, context.run_id)),
            dump_callback=observer.dumped,
            until_close=isinstance(hours, UniverseClock) and config.follows_close(settings.ibkr_stop_at_close),
            file=universe_file(settings, config.symbols),
        )
    metadata = session_metadata(outcome, settings)
    if not outcome.summary.has_recorded:
        return outcome, {**metadata, "stood_by": dg.MetadataValue.bool(True)}
    observer.conclude(outcome.summary)
    return outcome, metadata


def _session_to_record(
    config: IngestConfig, exchange: ExchangeHours, settings: Settings, universe: Universe
) -> tuple[ExchangeHours | UniverseClock, float | None]:
    """Whose session the run follows, and for how many seconds it records. Raises OutsideSession.

    The hours that are published may be old, or none. So the gateway is asked for them before they refuse a run.
    """
    from ibkr_depth_pipeline.probe.session import refresh_hours

    def judged() -> tuple[ExchangeHours | UniverseClock, float | None]:
        hours = session_clock(settings, universe, exchange, utc_now())
        return hours, config.seconds_to_record(hours, utc_now(), by_default=settings.ibkr_stop_at_close)

    try:
        return judged()
    except OutsideSession as closed:
        if exchange.calendar is not None or settings.ibkr_session == "calendar":
            raise
        try:
            closed.interrupted_by = refresh_hours(settings, universe_file(settings, ()).load())
        except GatewayError as error:
            raise OutsideSession(f"{closed}. The gateway could not be asked for its hours: {error}") from None
        if closed.interrupted_by is not None:
            raise
    return judged()


def build_standby_job(assets: GatewayAssets) -> dg.JobDefinition:
    """The job of a hot standby: it waits, connected, and records once the run that records is gone."""
    names = assets.names

    @dg.op(name=names.named(f"{STANDBY_OP}_unchecked"), description=_STANDBY, pool=names.named(STANDBY_POOL))
    def stand_by(
        context: dg.OpExecutionContext,
        config: IngestConfig,
        ibkr: IbkrGateway,
        redis: RedisStore,
        exchange: ExchangeHours,
    ) -> None:
        settings, universe = config.resolved(names, ibkr, redis)
        settings = settings.model_copy(update={"ibkr_standby": "on"})
        outcome, metadata = _record(context, config, names, exchange, settings, universe)
        if outcome.summary.has_recorded:
            context.log_event(dg.AssetMaterialization(names.feed_key, metadata=metadata))
        if not _is_well(context, outcome):
            raise _why_not_well(outcome)

    @dg.job(name=names.named(STANDBY_JOB), description=_STANDBY, executor_def=dg.in_process_executor)
    def standby() -> None:
        _checked(stand_by, names.named(STANDBY_OP))()

    return standby


def _concluded(
    context: dg.OpExecutionContext, feed: dg.AssetKey, outcome: "IngestOutcome", metadata: Metadata
) -> dg.Output[None]:
    """The materialization is recorded however the session ended.

    A drained session is a success, also if a signal from outside ended it, as a restart of its service does: that is a
    hand-over to the next run. One that somebody terminated is canceled.
    """
    if _is_well(context, outcome):
        return dg.Output(None, metadata=metadata)
    context.log_event(dg.AssetMaterialization(feed, metadata=metadata))
    raise _why_not_well(outcome)


def _is_well(context: dg.OpExecutionContext, outcome: "IngestOutcome") -> bool:
    terminated = outcome.interrupted_by is not None and is_ending(context.instance, context.run_id)
    return outcome.summary.drained and not terminated


def _why_not_well(outcome: "IngestOutcome") -> BaseException:
    if outcome.interrupted_by is not None:
        return dg.DagsterExecutionInterruptedError(f"{outcome.interrupted_by}: subscriptions cancelled, buffer flushed")
    return dg.Failure("Redis did not take everything in time; the last snapshots are lost", allow_retries=False)


def build_ingest_job(assets: GatewayAssets) -> Any:
    """The job that records that gateway's universe."""
    return dg.define_asset_job(
        assets.names.named(INGEST_JOB),
        selection=dg.AssetSelection.assets(assets.names.feed_key).without_checks(),
        description="Record market depth. One click on Launch, with no config, records the whole universe until the "
        "session's close.",
        executor_def=dg.in_process_executor,  # a step process of its own would outlive a killed worker
    )


def build_ingest_schedule(assets: GatewayAssets) -> dg.ScheduleDefinition:
    """Starts the ingest a few minutes before the open; it ends by itself at the close."""
    settings, names = settings_at_load(), assets.names
    return opening_schedule(
        names.named("ibkr_depth_ingest_before_open"),
        tracked_ingest(assets),
        lead=timedelta(minutes=settings.ibkr_ingest_lead_minutes),
        after_open=True,
        run_config=names.scheduled_run_config,
        calendar=settings.ibkr_calendar,
        status=schedule_status(settings),
        hold=held_by_probe(assets.gateway.settings, names.named(PROBE_JOB)),
        sessions=lambda now: universe_sessions(read_settings(assets.gateway.settings).settings, now),
    )
