"""Runs of ingest, probe and archive that fail or are canceled, and settings that can't be read, as alerts.

An ordinary sensor rather than Dagster's own for a run's status: those keep their cursor to themselves, so that an alert
which can't be delivered would be lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from ibkr_depth_pipeline.alerts.rounds import news_round, news_since
from ibkr_depth_pipeline.orchestration.automation import read_settings
from ibkr_depth_pipeline.orchestration.run_records import Work, bad_endings
from ibkr_depth_pipeline.orchestration.watched import Watched
from ibkr_depth_pipeline.settings import Settings, load_settings

EVERY_SECS = 15


def run_alert_sensor(watched: Watched, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """One alert for each such run of a gateway, and one for bad settings, at any time of the day."""

    @dg.sensor(
        name=watched.named("ibkr_depth_run_alerts"),
        minimum_interval_seconds=EVERY_SECS,
        default_status=status,
        description="Alerts each run of the ingest and of the probe that fails or is canceled, and bad settings.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        reading = watched.reading()
        return _look(context, (watched.ingest, watched.probe), reading.settings, reading.problem)

    return tick


def archive_alert_sensor(status: dg.DefaultSensorStatus, *works: Work) -> dg.SensorDefinition:
    """The same for the archive, of which there is one for all gateways; whose sensors tell of bad settings."""

    @dg.sensor(
        name="ibkr_depth_archive_run_alerts",
        minimum_interval_seconds=EVERY_SECS,
        default_status=status,
        description="Alerts each run of the archive that fails or is canceled.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _look(context, works, read_settings(load_settings).settings)

    return tick


def _look(
    context: dg.SensorEvaluationContext, works: Sequence[Work], settings: Settings, problem: str = ""
) -> dg.SensorResult:
    endings = bad_endings(context.instance, works, news_since(context.cursor))
    done = news_round(settings, endings, context.cursor, problem)
    return dg.SensorResult(skip_reason=f"{len(done.alerts)} alerts raised.", cursor=done.memory)
