"""What Dagster loads; assembly only."""

import dagster as dg

from ibkr_depth_pipeline.orchestration.feed import build_feed, ingest_job, ingest_schedule
from ibkr_depth_pipeline.orchestration.lineage import Lineage, load_lineage
from ibkr_depth_pipeline.orchestration.probe import build_probe, build_probe_job, probe_schedule
from ibkr_depth_pipeline.orchestration.resources import IbkrGateway, RedisStore, ibkr_resource, redis_resource
from ibkr_depth_pipeline.orchestration.trading_day import ExchangeHours


def build_definitions(lineage: Lineage) -> dg.Definitions:
    """The code location for this universe."""
    return dg.Definitions(
        assets=[build_probe(lineage), build_feed(lineage)],
        jobs=[build_probe_job(lineage), ingest_job],
        schedules=[probe_schedule, ingest_schedule],
        resources={
            "ibkr": ibkr_resource(IbkrGateway()),
            "redis": redis_resource(RedisStore()),
            "exchange": ExchangeHours(),
        },
        executor=dg.in_process_executor,  # for the Materialize button, whose job has nothing of ours but this
    )


defs = build_definitions(load_lineage())
