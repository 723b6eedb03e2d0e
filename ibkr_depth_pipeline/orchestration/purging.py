"""Purges what Dagster keeps of checks and observations beyond IBKR_DAGSTER_KEEP_DAYS: a job, once a day.

Dagster 1.13 has no retention for its event log: `delete_run` takes a whole run, and the checks and observations of
sensors belong to no run. So rows are deleted through the tables of its own storage, as its guide to database tuning
does. Runs, their materializations and all else stay. This module is the only user of these tables.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)

from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import unfinished_runs
from ibkr_depth_pipeline.orchestration.scheduling import schedule_status, settings_at_load
from ibkr_depth_pipeline.settings import load_settings

PURGE_JOB = "ibkr_depth_purge_job"
PURGE_SCHEDULE = "ibkr_depth_purge_after_midnight"
_ROWS_AT_ONCE = 500
"""Rows that one transaction deletes: sensors and runs write in between."""

_EVENTS, _CHECKS, _TAGS = SqlEventLogStorageTable.c, AssetCheckExecutionsTable.c, AssetEventTagsTable.c
_OBSERVATION = dg.DagsterEventType.ASSET_OBSERVATION.value
_PURGED = (
    _OBSERVATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION.value,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
)


class Purged(NamedTuple):
    """How many results of checks were deleted, and how many events: checks and observations."""

    checks: int
    events: int


def purge(instance: dg.DagsterInstance, before: datetime) -> Purged:
    """Deletes checks and observations from before that moment, which has a time zone.

    The newest of each check and of each asset's observations stays, and all that belongs to a run which is not over.
    """
    storage: Any = instance.event_log_storage
    cutoff = before.astimezone(timezone.utc).replace(tzinfo=None)  # as the storage has it
    running = unfinished_runs(instance)
    with storage.index_connection() as connection:
        checks = _ids(connection, _CHECKS.id, _old_checks(cutoff, running))
        runs = _ids(connection, _EVENTS.run_id, _old_events(cutoff, running))
    _delete(storage.index_connection, checks, _CHECKS.id)
    with storage.index_connection() as connection:
        events = _ids(connection, _EVENTS.id, _old_events(cutoff, running), _not_the_newest())
    _delete(storage.index_connection, events, _EVENTS.id, _TAGS.event_id)
    if storage.is_run_sharded:
        for run_id in runs:
            _purge_shard(storage, run_id, cutoff, running)
    return Purged(len(checks), len(events))


def _old_checks(cutoff: datetime, running: Collection[str]) -> Any:
    newest = sa.select(sa.func.max(_CHECKS.id)).group_by(_CHECKS.asset_key, _CHECKS.check_name, _CHECKS.partition)
    old = _CHECKS.evaluation_event_timestamp < cutoff
    return sa.and_(old, _CHECKS.id.not_in(newest), _CHECKS.run_id.not_in(running))


def _old_events(cutoff: datetime, running: Collection[str]) -> Any:
    of_kind = _EVENTS.dagster_event_type.in_(_PURGED)
    return sa.and_(of_kind, _EVENTS.timestamp < cutoff, _EVENTS.run_id.not_in(running))


def _not_the_newest() -> Any:
    """Neither an asset's newest observation nor the event of a check's result that stays."""
    observed = sa.select(sa.func.max(_EVENTS.id)).where(_EVENTS.dagster_event_type == _OBSERVATION)
    storage_id = _CHECKS.evaluation_event_storage_id
    return sa.and_(
        _EVENTS.id.not_in(observed.group_by(_EVENTS.asset_key, _EVENTS.partition)),
        _EVENTS.id.not_in(sa.select(storage_id).where(storage_id.is_not(None))),
    )


def _ids(connection: Any, column: Any, *conditions: Any) -> list[Any]:
    return list(connection.execute(sa.select(column).where(*conditions).distinct()).scalars())


def _delete(connect: Any, ids: Sequence[int], *columns: Any) -> None:
    for some in _portions(ids):
        with connect() as connection:
            for column in columns:
                connection.execute(sa.delete(column.table).where(column.in_(some)))


def _portions(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _ROWS_AT_ONCE] for start in range(0, len(ids), _ROWS_AT_ONCE))


def _purge_shard(storage: Any, run_id: str, cutoff: datetime, running: Collection[str]) -> None:
    """SQLite has a file of events for each run and one for those of no run, besides the index."""
    file = Path(storage.path_for_shard(run_id))
    if not file.exists():
        return
    with storage.run_connection(run_id) as connection:
        ids = _ids(connection, _EVENTS.id, _old_events(cutoff, running))
    _delete(lambda: storage.run_connection(run_id), ids, _EVENTS.id)
    if run_id:  # a run that is over writes no more, so nothing else would reuse its file's free pages
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("VACUUM")


# ---- the job


@dg.op(name="ibkr_depth_purge", description="Deletes checks and observations beyond IBKR_DAGSTER_KEEP_DAYS.")
def ibkr_depth_purge(context: dg.OpExecutionContext) -> None:
    days = load_settings().ibkr_dagster_keep_days
    if not days:
        context.log.info("IBKR_DAGSTER_KEEP_DAYS=0 keeps everything")
        return
    done = purge(context.instance, datetime.now(timezone.utc) - timedelta(days=days))
    context.log.info(f"{done.checks} results of checks and {done.events} events from before {days} days deleted")
    context.add_output_metadata({**done._asdict(), "kept_days": days})


@dg.job(
    name=PURGE_JOB,
    executor_def=dg.in_process_executor,
    tags={"dagster/max_retries": "0"},
    description="Delete what Dagster keeps of checks and observations beyond IBKR_DAGSTER_KEEP_DAYS. Runs stay.",
)
def purge_job() -> None:
    ibkr_depth_purge()


def build_purge_schedule() -> dg.ScheduleDefinition:
    """Every night, if IBKR_DAGSTER_KEEP_DAYS says so. On by IBKR_AUTOMATION, as all schedules are."""

    @dg.schedule(
        name=PURGE_SCHEDULE,
        job=purge_job,
        cron_schedule="45 0 * * *",
        execution_timezone="UTC",
        default_status=schedule_status(settings_at_load()),
        description="Purges checks and observations beyond IBKR_DAGSTER_KEEP_DAYS. Skipped if that is 0.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if not settings_at_load().ibkr_dagster_keep_days:
            return dg.SkipReason("IBKR_DAGSTER_KEEP_DAYS=0 keeps everything.")
        return dg.RunRequest(run_key=f"{PURGE_SCHEDULE} {context.scheduled_execution_time.date()}")

    return tick
