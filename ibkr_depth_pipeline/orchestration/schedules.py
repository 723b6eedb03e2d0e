"""What happens by itself before a session opens: the probe, then the ingest. Times and calendar are settings."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from ibkr_depth_pipeline.orchestration.automation import schedule_status, settings_at_load
from ibkr_depth_pipeline.orchestration.feed import ingest_work, scheduled_run_config
from ibkr_depth_pipeline.orchestration.lineage import Lineage
from ibkr_depth_pipeline.orchestration.probe import PROBE_JOB, probe_work
from ibkr_depth_pipeline.orchestration.trading_day import opening_schedule
from ibkr_depth_pipeline.orchestration.watchdog import held_by_probe

LONGEST_PROBE = timedelta(hours=2)
"""A probe takes minutes, less than an hour in a large universe."""


def build_probe_schedule(lineage: Lineage) -> dg.ScheduleDefinition:
    """Starts the probe well before the open, when there is still time to act on what it finds."""
    settings, names = settings_at_load(), lineage.names
    return opening_schedule(
        names.named("ibkr_depth_probe_before_open"),
        probe_work(lineage),
        lead=timedelta(minutes=settings.ibkr_probe_lead_minutes),
        after_open=False,
        run_config={},
        longest=LONGEST_PROBE,
        calendar=settings.ibkr_calendar,
        status=schedule_status(settings),
    )


def build_ingest_schedule(lineage: Lineage) -> dg.ScheduleDefinition:
    """Starts the ingest a few minutes before the open; it ends by itself at the close."""
    settings, names = settings_at_load(), lineage.names
    return opening_schedule(
        names.named("ibkr_depth_ingest_before_open"),
        ingest_work(lineage),
        lead=timedelta(minutes=settings.ibkr_ingest_lead_minutes),
        after_open=True,
        run_config=scheduled_run_config(names),
        calendar=settings.ibkr_calendar,
        status=schedule_status(settings),
        hold=held_by_probe(lineage.gateway.settings, names.named(PROBE_JOB)),
    )
