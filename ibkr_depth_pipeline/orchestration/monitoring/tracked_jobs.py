"""The runs that are monitored, read from Dagster's instance: the only module that asks it for runs.

This module is the only user of what is not documented: `DagsterInstance.report_run_failed` and `from_ref`, and the
`instance_ref` of a context.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg

from ibkr_depth_pipeline.monitoring.run_failures import FailedRun
from ibkr_depth_pipeline.monitoring.supervision import Phase, TrackedRun
from ibkr_depth_pipeline.orchestration.gateway_assets import (
    FEED_OP,
    INGEST_JOB,
    PROBE_JOB,
    PROBE_OP,
    STANDBY_JOB,
    STANDBY_OP,
    GatewayAssets,
)

NEWEST = 20
_MATERIALIZE_RUNS_READ = 200
"""The instance can't filter the runs that Materialize launched by their assets, so so many are read."""

_MATERIALIZE = "__ASSET_JOB"
"""Dagster's own name for what Materialize on an asset's page launches."""

_OVERLAP = timedelta(minutes=5)
_PHASES = {
    dg.DagsterRunStatus.STARTED: Phase.STARTED,
    dg.DagsterRunStatus.CANCELING: Phase.ENDING,
    dg.DagsterRunStatus.SUCCESS: Phase.SUCCEEDED,
    dg.DagsterRunStatus.FAILURE: Phase.FAILED,
}
_BAD_ENDS = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_STEP_EVENTS = {
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
}


@dataclass(frozen=True, slots=True)
class TrackedJob:
    """A job whose runs are monitored, launched as the job or by Materialize on the page of one of its `assets`.

    `step` is the op's name: its events show when the job is at work in a run that materializes other assets, too.
    `kept_up`: the watchdog starts another run if one is gone.
    """

    job: str
    assets: frozenset[dg.AssetKey] = frozenset()
    step: str = ""
    kept_up: bool = False

    def run_name(self, run: dg.DagsterRun) -> str:
        """The name of that run in an alert."""
        if run.job_name != _MATERIALIZE:
            return run.job_name
        first, *more = sorted(key.to_user_string() for key in self.assets if _selects(run, key))
        return f"Materialize of {first}" + (f" and {len(more)} more" if more else "")

    def includes(self, run: dg.DagsterRun) -> bool:
        """Whether that run carries it out, perhaps beside other tracked."""
        return run.job_name == self.job or (
            run.job_name == _MATERIALIZE and any(_selects(run, key) for key in self.assets)
        )

    def is_only_work_of(self, run: dg.DagsterRun) -> bool:
        """Whether that run carries out nothing else."""
        return run.job_name == self.job or (run.asset_selection is not None and run.asset_selection <= self.assets)


def _selects(run: dg.DagsterRun, key: dg.AssetKey) -> bool:
    if run.asset_selection is None:
        return run.asset_check_selection is None  # neither: everything there is
    return key in run.asset_selection


def tracked_ingest(assets: GatewayAssets) -> TrackedJob:
    """The recording of that gateway, however it was launched."""
    names = assets.names
    return TrackedJob(names.named(INGEST_JOB), frozenset({names.feed_key}), names.named(FEED_OP), kept_up=True)


def tracked_standby(assets: GatewayAssets) -> TrackedJob:
    """The hot standby of that gateway, which may be the one that records."""
    names = assets.names
    return TrackedJob(names.named(STANDBY_JOB), step=names.named(STANDBY_OP), kept_up=True)


def tracked_probe(assets: GatewayAssets) -> TrackedJob:
    """The probe of that gateway, however it was launched, also for some symbols only."""
    names = assets.names
    keys = frozenset({names.probe_key, *assets.symbol_keys.values()})
    return TrackedJob(names.named(PROBE_JOB), keys, names.named(PROBE_OP))


_opening = threading.Lock()
_opened: list[tuple[object, dg.DagsterInstance]] = []


def instance_of(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    """The instance of this tick, opened once in a process and never closed.

    `context.instance` is opened at each tick, with a reading of all migrations of its databases: half of a tick's time.
    """
    ref = context.instance_ref
    if ref is None:  # the context of a test, with an instance of its own
        return context.instance
    with _opening:
        if not _opened or _opened[0][0] != ref:
            _opened[:] = [(ref, dg.DagsterInstance.from_ref(ref))]
        return _opened[0][1]


def newest_runs(instance: dg.DagsterInstance, tracked: TrackedJob) -> tuple[TrackedRun, ...]:
    """The newest runs and all that are not over, newest first."""
    records = {record.dagster_run.run_id: record for record in _records(instance, tracked, NEWEST)}
    records |= {record.dagster_run.run_id: record for record in _records(instance, tracked, None, statuses=_ACTIVE)}
    newest_first = sorted(records.values(), key=lambda record: record.create_timestamp, reverse=True)
    return tuple(_run(instance, record, tracked) for record in newest_first)


def active_runs(instance: dg.DagsterInstance, tracked: TrackedJob) -> tuple[TrackedRun, ...]:
    """The runs that are not over."""
    return tuple(_run(instance, record, tracked) for record in _records(instance, tracked, None, statuses=_ACTIVE))


def unfinished_runs(instance: dg.DagsterInstance) -> list[str]:
    """The ids of all runs that are not over, tracked or not."""
    return [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=_ACTIVE))]


def fail_run(instance: dg.DagsterInstance, run_id: str, why: str) -> bool:
    """Report that run as failed. Returns False if it is over or gone already.

    Never Terminate: against a stuck process that blocks the caller, and leaves a run that is not retried.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return False
    instance.report_run_failed(run, why)
    return True


def _records(
    instance: dg.DagsterInstance, tracked: TrackedJob, limit: int | None, **filters: Any
) -> list[dg.RunRecord]:
    launched = instance.get_run_records(dg.RunsFilter(job_name=tracked.job, **filters), limit=limit)
    if not tracked.assets:
        return list(launched)
    most_read = None if limit is None else _MATERIALIZE_RUNS_READ
    by_page = instance.get_run_records(dg.RunsFilter(job_name=_MATERIALIZE, **filters), limit=most_read)
    return [*launched, *[record for record in by_page if tracked.includes(record.dagster_run)][:limit]]


def _run(instance: dg.DagsterInstance, record: dg.RunRecord, tracked: TrackedJob) -> TrackedRun:
    run = record.dagster_run
    created, started, ended = int(record.create_timestamp.timestamp() * 1000), _ms(record.start_time), record.end_time
    phase = _phase(instance, run)
    if phase is Phase.STARTED and not tracked.is_only_work_of(run):
        phase, started = _step_phase(instance, run.run_id, tracked.step)
    return TrackedRun(run.run_id, phase, created, started, _ms(ended), _redis_url(run))


def _redis_url(run: dg.DagsterRun) -> str:
    """The Redis URL of the run's config; the name of a variable that is not set here, which is no URL."""
    config: Any = run.run_config
    for name in ("resources", "redis", "config"):
        config = config.get(name) or {}
    url = config.get("url") or ""
    return url if isinstance(url, str) else dg.EnvVar(url["env"]).get_value() or str(url["env"])


def _step_phase(instance: dg.DagsterInstance, run_id: str, step: str) -> tuple[Phase, int]:
    """The phase of this step in a run with more work, and when (unix ms) the step began."""
    phase, began = Phase.WAITING, 0
    for entry in instance.all_logs(run_id, of_type=_STEP_EVENTS):
        if entry.step_key == step:
            starts = entry.get_dagster_event().event_type is dg.DagsterEventType.STEP_START
            phase, began = (Phase.STARTED, int(entry.timestamp * 1000)) if starts else (Phase.ENDING, began)
    return phase, began


def _phase(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Phase:
    if run.status is not dg.DagsterRunStatus.CANCELED:
        return _PHASES.get(run.status, Phase.WAITING)
    return Phase.TERMINATED if _was_asked_to_end(instance, run.run_id) else Phase.KILLED


def _was_asked_to_end(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether somebody clicked Terminate: a signal from outside leaves no such event."""
    return bool(instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_CANCELING))


def is_ending(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether somebody asked that run to end, or the instance has written it off."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.status is not dg.DagsterRunStatus.STARTED


def last_end(instance: dg.DagsterInstance, job_name: str, since_ts: int) -> Phase | None:
    """How the job's newest run created since then (unix ms) ended; None if it is not over, or there is none."""
    since = datetime.fromtimestamp(since_ts / 1000, timezone.utc)
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name, created_after=since), limit=1)
    if not records:
        return None
    phase = _phase(instance, records[0].dagster_run)
    return phase if phase.is_over else None


def bad_endings(instance: dg.DagsterInstance, tracked_jobs: Sequence[TrackedJob], since_ts: int) -> list[FailedRun]:
    """The runs of these jobs that failed or were canceled since then (unix ms), and some before.

    A run that carries out several of them counts for the first.
    """
    after = datetime.fromtimestamp(since_ts / 1000, timezone.utc) - _OVERLAP
    found = {
        record.dagster_run.run_id: (tracked, record)
        for tracked in reversed(tracked_jobs)
        for record in _records(instance, tracked, NEWEST, statuses=_BAD_ENDS, updated_after=after)
    }
    return [_ending(instance, tracked, record) for tracked, record in found.values()]


def _ending(instance: dg.DagsterInstance, tracked: TrackedJob, record: dg.RunRecord) -> FailedRun:
    run, called = record.dagster_run, tracked.run_name(record.dagster_run)
    times = (_ms(record.start_time), _ms(record.end_time))
    if run.status is dg.DagsterRunStatus.FAILURE:
        retried = run.tags.get("dagster/will_retry") == "true"
        follow_up = "Dagster starts another run." if retried else ""
        return FailedRun(run.run_id, called, "failed", _reason(instance, run.run_id), *times, follow_up)
    asked = _was_asked_to_end(instance, run.run_id)
    why = "Somebody terminated it." if asked else "A signal from outside ended it."
    stays_away = "No other is started until the next session, or until somebody launches one."
    follow_up = stays_away if asked and tracked.kept_up else ""
    return FailedRun(run.run_id, called, "canceled", why, *times, follow_up)


def _reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """What failed first, in one text: the step's error if there is one, else the run's own message."""
    for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
        for entry in instance.all_logs(run_id, of_type=kind):
            event = entry.get_dagster_event()
            if kind is dg.DagsterEventType.STEP_FAILURE and event.step_failure_data.error is not None:
                return _innermost(event.step_failure_data.error)
            if event.message:
                return event.message
    return "The reason is not known."


def _innermost(error: object) -> str:
    while getattr(error, "cause", None) is not None:
        error = error.cause  # type: ignore[attr-defined]
    return str(getattr(error, "message", error)).strip()


def _ms(seconds: float | None) -> int:
    return int(seconds * 1000) if seconds else 0
