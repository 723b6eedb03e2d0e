"""Dagster's runs in the words of the alerts: the only place that asks the instance for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import dagster as dg

from ibkr_depth_pipeline.alerts.run_news import Ending
from ibkr_depth_pipeline.alerts.supervision import Phase, Run

NEWEST = 20
_OVERLAP = timedelta(minutes=5)
_PHASES = {
    dg.DagsterRunStatus.STARTED: Phase.STARTED,
    dg.DagsterRunStatus.CANCELING: Phase.ENDING,
    dg.DagsterRunStatus.SUCCESS: Phase.SUCCEEDED,
    dg.DagsterRunStatus.FAILURE: Phase.FAILED,
}
_BAD_ENDS = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def newest_runs(instance: dg.DagsterInstance, job_name: str) -> tuple[Run, ...]:
    """The newest runs of a job, newest first."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name), limit=NEWEST)
    return tuple(_run(instance, record) for record in records)


def _run(instance: dg.DagsterInstance, record: dg.RunRecord) -> Run:
    run = record.dagster_run
    times = (int(record.create_timestamp.timestamp() * 1000), _ms(record.start_time), _ms(record.end_time))
    return Run(run.run_id, _phase(instance, run), *times)


def _phase(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Phase:
    if run.status is not dg.DagsterRunStatus.CANCELED:
        return _PHASES.get(run.status, Phase.WAITING)
    return Phase.TERMINATED if _was_asked_to_end(instance, run.run_id) else Phase.KILLED


def _was_asked_to_end(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether somebody clicked Terminate: a signal from outside leaves no such event."""
    return bool(instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_CANCELING))


def last_end(instance: dg.DagsterInstance, job_name: str, since_ts: int) -> Phase | None:
    """How the job's newest run that was created since then (unix ms) ended; None where it has not, or there is none."""
    since = datetime.fromtimestamp(since_ts / 1000, timezone.utc)
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name, created_after=since), limit=1)
    if not records:
        return None
    phase = _phase(instance, records[0].dagster_run)
    return phase if phase.is_over else None


def bad_endings(instance: dg.DagsterInstance, jobs: Sequence[str], since_ts: int) -> list[Ending]:
    """The runs of these jobs that failed or were canceled since then (unix ms), and some before."""
    after = datetime.fromtimestamp(since_ts / 1000, timezone.utc) - _OVERLAP
    found = [
        record
        for job in jobs
        for record in instance.get_run_records(
            dg.RunsFilter(job_name=job, statuses=_BAD_ENDS, updated_after=after), limit=NEWEST
        )
    ]
    return [_ending(instance, record) for record in found]


def _ending(instance: dg.DagsterInstance, record: dg.RunRecord) -> Ending:
    run = record.dagster_run
    times = (_ms(record.start_time), _ms(record.end_time))
    if run.status is dg.DagsterRunStatus.FAILURE:
        retried = run.tags.get("dagster/will_retry") == "true"
        follow_up = "Dagster starts another run." if retried else ""
        return Ending(run.run_id, run.job_name, "failed", _reason(instance, run.run_id), *times, follow_up)
    asked = _was_asked_to_end(instance, run.run_id)
    why = "Somebody terminated it." if asked else "A signal from outside ended it."
    follow_up = "No other is started until the next session, or until somebody launches one." if asked else ""
    return Ending(run.run_id, run.job_name, "canceled", why, *times, follow_up)


def _reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """What failed first, in one text: the step's error where there is one, else what was said of the run."""
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
