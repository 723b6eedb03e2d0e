"""What Dagster loads; assembly only."""

import dagster as dg

from ibkr_depth_pipeline.orchestration.archive.archiver import archive_job, build_archive
from ibkr_depth_pipeline.orchestration.archive.report import (
    build_archive_alerts,
    build_day_schedule,
    day_job,
    ibkr_depth_archive_report,
)
from ibkr_depth_pipeline.orchestration.gateway_assets import GatewayAssets, load_all_gateway_assets
from ibkr_depth_pipeline.orchestration.ingest.asset import build_feed, build_ingest_job, build_ingest_schedule
from ibkr_depth_pipeline.orchestration.monitoring.sensors import (
    MonitoredGateway,
    heartbeat_checks,
    heartbeat_sensor,
    run_alert_sensor,
)
from ibkr_depth_pipeline.orchestration.monitoring.watchdog import watchdog_sensor
from ibkr_depth_pipeline.orchestration.probe import build_probe, build_probe_job, build_probe_schedule
from ibkr_depth_pipeline.orchestration.resources import (
    ExchangeHours,
    IbkrGateway,
    RedisStore,
    ibkr_resource,
    redis_resource,
)
from ibkr_depth_pipeline.orchestration.scheduling import sensor_status, settings_at_load

_ASSETS = (build_probe, build_feed)
_JOBS = (build_probe_job, build_ingest_job)
_SCHEDULES = (build_probe_schedule, build_ingest_schedule)
_SENSORS = (heartbeat_sensor, watchdog_sensor, run_alert_sensor)


def build_definitions(*gateways: GatewayAssets) -> dg.Definitions:
    """The code location for the universes of these gateways."""
    monitored = [MonitoredGateway.of(assets) for assets in gateways]
    status = sensor_status(settings_at_load())
    return dg.Definitions(
        assets=[
            *(build(assets) for assets in gateways for build in _ASSETS),
            *build_archive(*gateways),
            ibkr_depth_archive_report,
        ],
        asset_checks=[heartbeat_checks(gateway) for gateway in monitored],
        jobs=[*(build(assets) for assets in gateways for build in _JOBS), archive_job, day_job],
        schedules=[*(build(assets) for assets in gateways for build in _SCHEDULES), build_day_schedule()],
        sensors=[*(build(gateway, status) for gateway in monitored for build in _SENSORS), build_archive_alerts()],
        resources={
            "ibkr": ibkr_resource(IbkrGateway()),
            "redis": redis_resource(RedisStore()),
            "exchange": ExchangeHours(),
        },
        executor=dg.in_process_executor,  # for Materialize, whose job has none of ours
    )


defs = build_definitions(*load_all_gateway_assets())
