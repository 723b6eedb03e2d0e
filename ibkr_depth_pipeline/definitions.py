"""What Dagster loads; assembly only."""

import dagster as dg

from ibkr_depth_pipeline.orchestration.archive import archive_job, build_archive
from ibkr_depth_pipeline.orchestration.feed import build_feed, build_ingest_job
from ibkr_depth_pipeline.orchestration.lineage import Lineage, load_lineages
from ibkr_depth_pipeline.orchestration.probe import build_probe, build_probe_job
from ibkr_depth_pipeline.orchestration.report import build_day_schedule, day_job, ibkr_depth_archive_report
from ibkr_depth_pipeline.orchestration.resources import IbkrGateway, RedisStore, ibkr_resource, redis_resource
from ibkr_depth_pipeline.orchestration.schedules import build_ingest_schedule, build_probe_schedule
from ibkr_depth_pipeline.orchestration.trading_day import ExchangeHours
from ibkr_depth_pipeline.orchestration.watching import build_archive_alerts, build_heartbeat_checks, build_sensors


def build_definitions(*lineages: Lineage) -> dg.Definitions:
    """The code location for these universes, each of one gateway."""
    feeds = [build(lineage) for lineage in lineages for build in (build_probe, build_feed)]
    jobs = [build(lineage) for lineage in lineages for build in (build_probe_job, build_ingest_job)]
    schedules = [build(lineage) for lineage in lineages for build in (build_probe_schedule, build_ingest_schedule)]
    return dg.Definitions(
        assets=[*feeds, *build_archive(*lineages), ibkr_depth_archive_report],
        asset_checks=[build_heartbeat_checks(lineage) for lineage in lineages],
        jobs=[*jobs, archive_job, day_job],
        schedules=[*schedules, build_day_schedule()],
        sensors=[*(sensor for lineage in lineages for sensor in build_sensors(lineage)), build_archive_alerts()],
        resources={
            "ibkr": ibkr_resource(IbkrGateway()),
            "redis": redis_resource(RedisStore()),
            "exchange": ExchangeHours(),
        },
        executor=dg.in_process_executor,  # for the Materialize button, whose job has nothing of ours but this
    )


defs = build_definitions(*load_lineages())
