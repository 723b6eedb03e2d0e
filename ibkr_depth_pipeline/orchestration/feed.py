"""The depth feed as an asset: one op that records for as long as its run lives."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from ibkr_depth_pipeline.ingest.onlookers import Wanted
from ibkr_depth_pipeline.ingest.run import IngestOutcome, run_ingest
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.orchestration.failures import our_errors_as_failures
from ibkr_depth_pipeline.orchestration.lineage import Lineage, Names
from ibkr_depth_pipeline.orchestration.observing import SessionObserver
from ibkr_depth_pipeline.orchestration.resources import IbkrGateway, RedisStore
from ibkr_depth_pipeline.orchestration.run_config import IngestConfig
from ibkr_depth_pipeline.orchestration.run_records import Work
from ibkr_depth_pipeline.orchestration.session_metadata import session_metadata
from ibkr_depth_pipeline.orchestration.trading_day import ExchangeHours, utc_now
from ibkr_depth_pipeline.orchestration.watchdog import still_wanted

FEED_OP = "ibkr_depth_feed"
INGEST_JOB = "ibkr_depth_ingest_job"
POOL = "ibkr_depth"
"""One slot: whoever records holds it. On the op, so that Materialize is bound by it as well as the job."""

_DESCRIPTION = """Records market depth into Redis until the session closes, the duration is over, or on Terminate.

Books are in `raw:ibkr:depth:stream:{SYMBOL}` and `raw:ibkr:depth:last:{SYMBOL}`; the log is in the run's stderr."""

Metadata = Mapping[str, dg.MetadataValue]


def build_feed(lineage: Lineage) -> dg.AssetsDefinition:
    """The feed, downstream of every symbol of the universe."""
    upstream = {f"symbol_{number}": spec.key for number, spec in enumerate(lineage.specs, start=1)}
    return dg.AssetsDefinition.from_op(
        _feed_op(tuple(upstream), lineage.names),
        keys_by_input_name=upstream,
        keys_by_output_name={"result": lineage.names.feed_key},
        group_name=lineage.names.group,
        descriptions_by_output_name={"result": _DESCRIPTION},
        metadata_by_output_name={"result": lineage.feed_metadata},
    )


def _feed_op(inputs: Sequence[str], names: Names) -> dg.OpDefinition:
    # No retry policy: with one, Terminate would start the op anew.
    @dg.op(
        name=names.named(f"{FEED_OP}_unchecked"),
        description=_DESCRIPTION,
        pool=names.named(POOL),
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
        with our_errors_as_failures():
            settings, universe = config.resolve(names, ibkr, redis)
            configure_logging(settings.ibkr_log_level)
            observer = SessionObserver(context.log_event, names.feed_key, settings, universe)
            duration = config.seconds_to_record(exchange, utc_now(), by_default=settings.ibkr_stop_at_close)
            wanted = Wanted(lambda: still_wanted(context.instance, context.run_id))
            outcome = run_ingest(
                settings, universe, duration, run_id=context.run_id, watcher=observer.watcher, wanted=wanted
            )
        observer.conclude(outcome.summary)
        return _concluded(context, names.feed_key, outcome, session_metadata(outcome, settings))

    @dg.configured(record, name=names.named(FEED_OP))
    def checked(config: IngestConfig) -> dict[str, Any]:
        config.check()
        return config.model_dump()

    return checked


def _concluded(
    context: dg.OpExecutionContext, feed: dg.AssetKey, outcome: IngestOutcome, metadata: Metadata
) -> dg.Output[None]:
    """The materialization is recorded however the session ended; only a full one ends the run as a success."""
    if outcome.interrupted_by is None and outcome.summary.drained:
        return dg.Output(None, metadata=metadata)
    context.log_event(dg.AssetMaterialization(feed, metadata=metadata))
    if outcome.interrupted_by is not None:
        raise dg.DagsterExecutionInterruptedError(f"{outcome.interrupted_by}: subscriptions cancelled, buffer flushed")
    raise dg.Failure("Redis did not take everything in time; the last snapshots are lost", allow_retries=False)


def build_ingest_job(lineage: Lineage) -> Any:
    """The job that records that gateway's universe."""
    return dg.define_asset_job(
        lineage.names.named(INGEST_JOB),
        selection=dg.AssetSelection.assets(lineage.names.feed_key).without_checks(),
        description="Record market depth. One click on Launch, with no config, records the whole universe until the "
        "session's close.",
        executor_def=dg.in_process_executor,  # a step process of its own would outlive a killed worker
    )


def ingest_work(lineage: Lineage) -> Work:
    """What records, however it was launched."""
    names = lineage.names
    return Work(names.named(INGEST_JOB), frozenset({names.feed_key}), names.named(FEED_OP), kept_up=True)


def scheduled_run_config(names: Names) -> Mapping[str, Any]:
    """Of a run that nobody launches by hand: it ends at the session's close."""
    return {"ops": {names.named(FEED_OP): {"config": {"stop_at_close": True}}}}
