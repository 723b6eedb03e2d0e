"""Runs of ingest and probe that fail or are canceled, and settings that can't be read, as alerts.

An ordinary sensor rather than Dagster's own for a run's status: those keep their cursor to themselves, so that an alert
which can't be delivered would be lost.
"""

from __future__ import annotations

import dagster as dg

from ibkr_depth_pipeline.alerts.rounds import news_round, news_since
from ibkr_depth_pipeline.orchestration.run_records import bad_endings
from ibkr_depth_pipeline.orchestration.watched import Watched

EVERY_SECS = 15


def run_alert_sensor(watched: Watched, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """One alert for each such run, and one for bad settings, at any time of the day."""

    @dg.sensor(
        name=watched.named("ibkr_depth_run_alerts"),
        minimum_interval_seconds=EVERY_SECS,
        default_status=status,
        description="Alerts each run of the ingest and of the probe that fails or is canceled, and bad settings.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        endings = bad_endings(context.instance, (watched.ingest, watched.probe), news_since(context.cursor))
        reading = watched.reading()
        done = news_round(reading.settings, endings, context.cursor, reading.problem)
        return dg.SensorResult(skip_reason=f"{len(done.alerts)} alerts raised.", cursor=done.memory)

    return tick
