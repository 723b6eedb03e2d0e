"""What Dagster loads; assembly only."""

from collections.abc import Sequence

import dagster as dg

from ibkr_depth_pipeline.orchestration.archive.archiver import archive_job, build_archive
from ibkr_depth_pipeline.orchestration.archive.report import (
    build_archive_alerts,
    build_day_schedule,
    day_job,
    ibkr_depth_archive_report,
)
from ibkr_depth_pipeline.orchestration.gateway_assets import GatewayAssets, load_all_gateway_assets
from ibkr_depth_pipeline.orchestration.ingest.asset import (
    build_feed,
    build_ingest_job,
    build_ingest_schedule,
    build_standby_job,
)
from ibkr_depth_pipeline.orchestration.monitoring.sensors import (
    MonitoredGateway,
    heartbeat_checks,
    heartbeat_sensor,
    run_alert_sensor,
)
from ibkr_depth_pipeline.orchestration.monitoring.watchdog import standby_sensor, watchdog_sensor
from ibkr_depth_pipeline.orchestration.probe import build_probe, build_probe_job, build_probe_schedule
from ibkr_depth_pipeline.orchestration.purging import build_purge_schedule, purge_job
from ibkr_depth_pipeline.orchestration.resources import (
    ExchangeHours,
    IbkrGateway,
    RedisStore,
    ibkr_resource,
    redis_resource,
)
from ibkr_depth_pipeline.orchestration.scheduling import has_standby, sensor_status, settings_at_load

_ASSETS = (build_probe, build_feed)
_JOBS = (build_probe_job, build_ingest_job)
_SCHEDULES = (build_probe_schedule, build_ingest_schedule)


def build_definitions(*gateways: GatewayAssets) -> dg.Definitions:
    """The code location for the universes of these gateways: all of it, or the half that IBKR_CODE_LOCATION names."""
    settings = settings_at_load()
    status = sensor_status(settings)
    shared = dg.Definitions(
        resources={
            "ibkr": ibkr_resource(IbkrGateway()),
            "redis": redis_resource(RedisStore()),
            "exchange": ExchangeHours(),
        },
        executor=dg.in_process_executor,  # for Materialize, whose job has none of ours
    )
    match settings.ibkr_code_location:
        case "all":
            halves = [_recording(gateways, status), _monitoring(gateways, status)]
        case "recording":
            halves = [_recording(gateways, status)]
        case "monitoring":
            halves = [_monitoring(gateways, status)]
    return dg.Definitions.merge(shared, *halves)


def _recording(gateways: Sequence[GatewayAssets], status: dg.DefaultSensorStatus) -> dg.Definitions:
    """What launches runs. It stands on the host of its gateways: a run is a process of its code server's."""
    monitored = [MonitoredGateway.of(assets) for assets in gateways]
    standing_by = [assets for assets in gateways if has_standby(assets)]
    standbys = [standby_sensor(each, each.standby, status) for each in monitored if each.standby is not None]
    return dg.Definitions(
        assets=[build(assets) for assets in gateways for build in _ASSETS],
        jobs=[*[build(assets) for assets in gateways for build in _JOBS], *map(build_standby_job, standing_by)],
        schedules=[build(assets) for assets in gateways for build in _SCHEDULES],
        sensors=[*[watchdog_sensor(each, status) for each in monitored], *standbys],
    )


def _monitoring(gateways: Sequence[GatewayAssets], status: dg.DefaultSensorStatus) -> dg.Definitions:
    """What notices that a gateway's host is lost, so that it must not stand there; and the archive, which all share."""
    monitored = [MonitoredGateway.of(assets) for assets in gateways]
    sensors = [build(gateway, status) for gateway in monitored for build in (heartbeat_sensor, run_alert_sensor)]
    return dg.Definitions(
        assets=[*build_archive(*gateways), ibkr_depth_archive_report],
        asset_checks=[heartbeat_checks(gateway) for gateway in monitored],
        jobs=[archive_job, day_job, purge_job],
        schedules=[build_day_schedule(), build_purge_schedule()],
        sensors=[*sensors, build_archive_alerts()],
    )


defs = build_definitions(*load_all_gateway_assets())
