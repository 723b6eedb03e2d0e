"""The watchdog: fails an ingest run whose process is dead, and launches one if a session has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import dagster as dg

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.monitoring.process_fencing import end_process
from ibkr_depth_pipeline.monitoring.supervision import Phase
from ibkr_depth_pipeline.monitoring.ticks import (
    HELD,
    WatchdogTick,
    recording_window,
    standby_tick,
    watchdog_tick,
)
from ibkr_depth_pipeline.orchestration.monitoring.sensors import MonitoredGateway
from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import (
    TrackedJob,
    fail_run,
    instance_of,
    last_end,
    newest_runs,
)
from ibkr_depth_pipeline.orchestration.scheduling import SESSION_TAG, read_settings
from ibkr_depth_pipeline.settings import Settings

INTERVAL_SECS = 10
PROBE_AGE_MS = 12 * 3_600_000
"""A probe counts for the session that opens at most so long after it, and during that session."""


def watchdog_sensor(gateway: MonitoredGateway, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Fails a dead run, so that the instance's run_retries replace it; if they don't, it launches a new one."""

    @dg.sensor(
        name=gateway.named("ibkr_depth_watchdog"),
        job_name=gateway.ingest.job,
        minimum_interval_seconds=INTERVAL_SECS,
        default_status=status,
        description="Replaces an ingest run whose process is dead, and starts one if a session has none.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _tick(context, gateway, gateway.ingest.job, gateway.run_config, _judge)

    return tick


def standby_sensor(
    gateway: MonitoredGateway, standby: TrackedJob, status: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    """The same for the standby's runs, and an alert if no standby is ready."""

    def judge(
        instance: dg.DagsterInstance, gateway: MonitoredGateway, settings: Settings, cursor: str | None
    ) -> WatchdogTick:
        recorders = {run.run_id for run in newest_runs(instance, gateway.ingest)}
        window = recording_window(settings, unix_ms())
        return standby_tick(settings, newest_runs(instance, standby), window, cursor, recorders)

    @dg.sensor(
        name=gateway.named("ibkr_depth_standby_watchdog"),
        job_name=standby.job,
        minimum_interval_seconds=INTERVAL_SECS,
        default_status=status,
        description="Keeps a standby up during a session, and alerts if none is ready to take over.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _tick(context, gateway, standby.job, gateway.standby_run_config, judge)

    return tick


_Judge = Callable[[dg.DagsterInstance, MonitoredGateway, Settings, str | None], WatchdogTick]


def _tick(
    context: dg.SensorEvaluationContext,
    gateway: MonitoredGateway,
    job: str,
    run_config: Mapping[str, Any],
    judge: _Judge,
) -> dg.SensorResult:
    readable = gateway.read_settings()
    if readable.blind:
        return dg.SensorResult(skip_reason=f"No run can be judged: {readable.problem}", cursor=context.cursor)
    done = judge(instance_of(context), gateway, readable.settings, context.cursor)
    _fail(instance_of(context), done)
    launch, window = done.launch, done.window
    if isinstance(launch, str) or window is None:
        return dg.SensorResult(skip_reason=str(launch), cursor=done.state)
    key, tags = f"{job} watchdog {launch.key}", {SESSION_TAG: window.day}
    request = dg.RunRequest(run_key=key, run_config=run_config, tags=tags)
    return dg.SensorResult(run_requests=[request], cursor=done.state)


def _judge(
    instance: dg.DagsterInstance, gateway: MonitoredGateway, settings: Settings, cursor: str | None
) -> WatchdogTick:
    window = recording_window(settings, unix_ms())
    probe = last_end(instance, gateway.probe.job, window.start_ts - PROBE_AGE_MS) if window else None
    others = {run.run_id for run in newest_runs(instance, gateway.standby)} if gateway.standby else ()
    return watchdog_tick(settings, newest_runs(instance, gateway.ingest), probe, window, cursor, others)


def _fail(instance: dg.DagsterInstance, done: WatchdogTick) -> None:
    for run_id, why in done.dead.items():
        if fail_run(instance, run_id, why) and done.newest is not None and done.newest.run_id == run_id:
            end_process(done.newest)


def held_by_probe(settings: Callable[..., Settings], probe_job: str) -> Callable[[dg.DagsterInstance, datetime], str]:
    """For the ingest's schedule: why the session that opens then gets no run; an empty text if it gets one.

    The alert is the watchdog's, which can try again to deliver it.
    """

    def hold(instance: dg.DagsterInstance, opens: datetime) -> str:
        if read_settings(settings).settings.ibkr_probe_failed != "hold":
            return ""
        ended = last_end(instance, probe_job, int(opens.timestamp() * 1000) - PROBE_AGE_MS)
        return f"The ingest is {HELD}." if ended is Phase.FAILED else ""

    return hold


def still_wanted(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the instance still counts on that run: false once it is failed or canceled there."""
    run = instance.get_run_by_id(run_id)
    return run is not None and not run.is_finished
