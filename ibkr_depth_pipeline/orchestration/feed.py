"""The depth feed as an asset: one op that records for as long as its run lives."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import dagster as dg

from ibkr_depth_pipeline.errors import DepthPipelineError
from ibkr_depth_pipeline.ingest.run import IngestOutcome, run_ingest
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.orchestration.resources import IbkrGateway, RedisStore
from ibkr_depth_pipeline.orchestration.run_config import IngestConfig
from ibkr_depth_pipeline.orchestration.session_metadata import session_metadata
from ibkr_depth_pipeline.orchestration.trading_day import ExchangeHours, opening_schedule, utc_now

FEED_KEY = dg.AssetKey(["raw", "ibkr", "depth", "feed"])
FEED_OP = "ibkr_depth_feed"
INGEST_JOB = "ibkr_depth_ingest_job"
POOL = "ibkr_depth"
"""One slot: whoever records holds it. On the op, so that Materialize is bound by it as well as the job."""

Metadata = Mapping[str, dg.MetadataValue]


@dg.op(name=f"{FEED_OP}_unchecked", pool=POOL, out=dg.Out(dg.Nothing))
def _record(
    context: dg.OpExecutionContext, config: IngestConfig, ibkr: IbkrGateway, redis: RedisStore, exchange: ExchangeHours
) -> dg.Output[None]:
    """Records market depth into Redis, until its duration is over or somebody clicks Terminate.

    Books are in `raw:ibkr:depth:stream:{SYMBOL}` and `raw:ibkr:depth:last:{SYMBOL}`; the log is in the run's stderr.
    """
    with _our_errors_as_failures():
        settings, universe = config.resolve(ibkr, redis)
        configure_logging(settings.ibkr_log_level)
        outcome = run_ingest(settings, universe, config.seconds_to_record(exchange, utc_now()))
    return _concluded(context, outcome, session_metadata(outcome, settings))


# No retry policy: with one, Terminate would start the op anew.
@dg.configured(_record, name=FEED_OP)
def depth_feed_op(config: IngestConfig) -> dict[str, Any]:
    config.check()
    return config.model_dump()


def _concluded(context: dg.OpExecutionContext, outcome: IngestOutcome, metadata: Metadata) -> dg.Output[None]:
    """The materialization is recorded however the session ended; only a full one ends the run as a success."""
    if outcome.interrupted_by is None and outcome.summary.drained:
        return dg.Output(None, metadata=metadata)
    context.log_event(dg.AssetMaterialization(FEED_KEY, metadata=metadata))
    if outcome.interrupted_by is not None:
        raise dg.DagsterExecutionInterruptedError(f"{outcome.interrupted_by}: subscriptions cancelled, buffer flushed")
    raise dg.Failure("Redis did not take everything in time; the last snapshots are lost", allow_retries=False)


@contextmanager
def _our_errors_as_failures() -> Iterator[None]:
    """What this project raises on purpose explains itself: its text becomes the run's failure."""
    try:
        yield
    except DepthPipelineError as error:
        raise dg.Failure(str(error), metadata={"kind": type(error).__name__}, allow_retries=False) from error


depth_feed = dg.AssetsDefinition.from_op(
    depth_feed_op,
    keys_by_output_name={"result": FEED_KEY},
    group_name="ibkr_depth",
    descriptions_by_output_name={"result": _record.description or ""},
)

ingest_job = dg.define_asset_job(
    INGEST_JOB,
    selection=[depth_feed],
    description="Record market depth. One click on Launch, with no config, records the whole universe.",
    executor_def=dg.in_process_executor,  # a step process of its own would outlive a killed worker
)

ingest_schedule = opening_schedule(
    "ibkr_depth_ingest_before_open",
    INGEST_JOB,
    lead=timedelta(minutes=5),
    after_open=True,
    run_config={"ops": {FEED_OP: {"config": {"stop_at_close": True}}}},
)
