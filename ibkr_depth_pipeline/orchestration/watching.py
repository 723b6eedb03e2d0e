"""The sensors and heartbeat checks of a gateway, and the sensor of the archive."""

from __future__ import annotations

import dagster as dg

from ibkr_depth_pipeline.orchestration.archive import ARCHIVE_JOB, ARCHIVE_KEY, DAY_JOB, DAY_KEY
from ibkr_depth_pipeline.orchestration.automation import sensor_status, settings_at_load
from ibkr_depth_pipeline.orchestration.feed import ingest_work, scheduled_run_config
from ibkr_depth_pipeline.orchestration.heartbeats import heartbeat_checks, heartbeat_sensor
from ibkr_depth_pipeline.orchestration.lineage import Lineage
from ibkr_depth_pipeline.orchestration.probe import probe_work
from ibkr_depth_pipeline.orchestration.report import REPORT_KEY
from ibkr_depth_pipeline.orchestration.run_alerts import archive_alert_sensor, run_alert_sensor
from ibkr_depth_pipeline.orchestration.run_records import Work
from ibkr_depth_pipeline.orchestration.watchdog import watchdog_sensor
from ibkr_depth_pipeline.orchestration.watched import Watched


def build_sensors(lineage: Lineage) -> list[dg.SensorDefinition]:
    """Heartbeats, watchdog, run alerts: running by themselves where IBKR_AUTOMATION says so."""
    watched, status = watched_by(lineage), sensor_status(settings_at_load())
    return [build(watched, status) for build in (heartbeat_sensor, watchdog_sensor, run_alert_sensor)]


def build_archive_alerts() -> dg.SensorDefinition:
    """For the archiver and for the days."""
    days = Work(DAY_JOB, frozenset({DAY_KEY, REPORT_KEY}))
    return archive_alert_sensor(sensor_status(settings_at_load()), Work(ARCHIVE_JOB, frozenset({ARCHIVE_KEY})), days)


def build_heartbeat_checks(lineage: Lineage) -> dg.AssetChecksDefinition:
    """One check for the feed and one for each symbol."""
    return heartbeat_checks(watched_by(lineage))


def watched_by(lineage: Lineage) -> Watched:
    """What that gateway's sensors watch over."""
    names = lineage.names
    return Watched(
        named=names.named,
        ingest=ingest_work(lineage),
        probe=probe_work(lineage),
        feed_key=names.feed_key,
        keys={symbol: spec.key for symbol, spec in zip(lineage.universe.symbols, lineage.specs, strict=True)},
        run_config=scheduled_run_config(names),
        settings=lineage.gateway.settings,
    )
