"""Supervision of an ingest's runs: which run is dead, and whether a new one is due. Pure.

It starts what should run, but never against a person's decision: after somebody terminated a run, none is started until
the next session, or until somebody launches one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.formatting import duration
from ibkr_depth_pipeline.schema.alerts import AlertKind

START_MS = 60_000
"""From a run's start to its first heartbeat: lease, connection."""

DEAD_MS = 8_000
"""A run is dead if its heartbeat, which expires 15 s after it was last renewed, has been gone for this long."""

SCHEDULE_MS = 60_000
"""Time for the schedule to start the first run of a session."""

RESTARTS = Backoff(20_000, 300_000)
"""Milliseconds after a run's end: Dagster's own retry comes first, and a run that fails at once is not a busy loop.
After a success, which Dagster does not retry, the first pause counts from the run's start."""

EARLY_MS = 3_600_000
"""A run that was launched at most this long before the session's start is one of that session."""

LAST_CALL_MS = 60_000
"""Nothing is started this shortly before the close."""


class Phase(str, Enum):
    """WAITING: not started yet. TERMINATED: canceled because a person asked; KILLED: canceled from outside."""

    WAITING = "waiting"
    STARTED = "started"
    ENDING = "ending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TERMINATED = "terminated"
    KILLED = "killed"

    @property
    def is_over(self) -> bool:
        return self not in (Phase.WAITING, Phase.STARTED, Phase.ENDING)


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """One run as the instance knows it; times are unix ms, 0 for not yet.

    `redis_url` is the URL in the run's own config, "" if that has none; it may hold a password.
    """

    run_id: str
    phase: Phase
    created_ts: int
    started_ts: int = 0
    ended_ts: int = 0
    redis_url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RunHeartbeat:
    """The heartbeat of a started run: when it last stood, and since when it is gone (unix ms); 0 for never."""

    run_id: str
    alive_ts: int = 0
    silent_ts: int = 0


@dataclass(frozen=True, slots=True)
class RecordingWindow:
    """When a session is to be recorded: from its open less the lead until its close, unix ms."""

    day: str
    start_ts: int
    close_ts: int


def observe_heartbeats(
    before: Sequence[RunHeartbeat],
    runs: Sequence[TrackedRun],
    alive: str | None,
    now: int,
    standing_by: Collection[str] = (),
) -> tuple[RunHeartbeat, ...]:
    """The heartbeats of the started runs after Redis was read. alive: the run whose heartbeat stands, "" for none.

    alive None: Redis is unreachable, which proves no silence. standing_by: the runs that wait to take over.
    """
    known = {each.run_id: each for each in before}
    started = [run.run_id for run in runs if run.phase is Phase.STARTED]
    return tuple(_observed(known.get(run_id, RunHeartbeat(run_id)), alive, now, standing_by) for run_id in started)


def _observed(before: RunHeartbeat, alive: str | None, now: int, standing_by: Collection[str]) -> RunHeartbeat:
    if alive is None:
        return RunHeartbeat(before.run_id, before.alive_ts, 0)
    if alive == before.run_id or before.run_id in standing_by:
        return RunHeartbeat(before.run_id, now, 0)
    return RunHeartbeat(before.run_id, before.alive_ts, before.silent_ts or now)


def dead_runs(
    runs: Sequence[TrackedRun], heartbeats: Sequence[RunHeartbeat], now: int, *, lease_wait_ms: int
) -> dict[str, str]:
    """Run id -> why it is to be failed. A run that was never alive may be a standby that waits for the lease."""
    started = {run.run_id: run.started_ts or run.created_ts for run in runs}
    found = {}
    for each in heartbeats:
        silent = bool(each.silent_ts) and now - each.silent_ts >= DEAD_MS
        if silent and (each.alive_ts or now - started[each.run_id] >= START_MS + lease_wait_ms):
            last = f"it was last seen {duration(now - each.alive_ts)} ago" if each.alive_ts else "it was never seen"
            found[each.run_id] = f"The ingest's own heartbeat is gone, {last}: its process is dead or stuck."
    return found


@dataclass(frozen=True, slots=True)
class Launch:
    """A run to start. `key` is unique: no second run is started with it."""

    key: str


def launch_decision(
    runs: Sequence[TrackedRun],
    window: RecordingWindow | None,
    now: int,
    *,
    alive: str | None,
    hold: str = "",
    others: Collection[str] = (),
) -> Launch | str:
    """A launch if the session lacks an ingest run, otherwise the reason against one. `runs` are newest first.

    `alive` as in `observe_heartbeats`; `hold` is a reason not to start the first run. others: runs of the job whose
    runs stand by for these, or for which these do: one of them that records is no reason against a launch.
    """
    if window is None:
        return "outside the session"
    if now >= window.close_ts - LAST_CALL_MS:
        return "the session is about to close"
    if any(not run.phase.is_over for run in runs):
        return "an ingest run is under way"
    if alive is None:
        return "Redis can't be asked"
    if alive and alive not in others:
        return f"an ingest records that this Dagster does not know: run {alive}"
    if reason := stopped_by_person(runs, window):
        return reason
    ended = [run for run in runs if run.ended_ts >= window.start_ts]
    if hold and not any(run.created_ts >= window.start_ts - EARLY_MS for run in ended):
        return hold
    due = _due_ts(ended) if ended else window.start_ts + SCHEDULE_MS
    if now < due:
        return f"a new run is due in {duration(due - now)}"
    return Launch(f"{window.day} after {runs[0].run_id if runs else 'none'}")


def stopped_by_person(runs: Sequence[TrackedRun], window: RecordingWindow) -> str:
    """That nothing records in this session because somebody wants it so, in words; "" otherwise. `runs`: newest first.

    A run that still drains counts, too.
    """
    active = [run for run in runs if not run.phase.is_over]
    if active:
        return f"run {active[0].run_id} ends" if all(run.phase is Phase.ENDING for run in active) else ""
    ended = [run for run in runs if run.ended_ts >= window.start_ts]
    if ended and ended[0].phase is Phase.TERMINATED:
        return f"run {ended[0].run_id} was terminated by a person; launch one to go on"
    return ""


def _due_ts(ended: Sequence[TrackedRun]) -> int:
    newest = ended[0]
    if newest.phase is Phase.SUCCEEDED:
        return (newest.started_ts or newest.ended_ts) + int(RESTARTS.first)
    return newest.ended_ts + _pause_ms(ended)


def _pause_ms(ended: Sequence[TrackedRun]) -> int:
    """Grows with each failure in a row; a run that recorded for a while ends the row."""
    failures = 0
    for run in ended:
        if run.phase is not Phase.FAILED or run.ended_ts - (run.started_ts or run.ended_ts) > RESTARTS.longest:
            break
        failures += 1
    return int(RESTARTS.pause(max(1, failures)))


# ---- the standby


ABSENT_MS = 120_000
"""How long a standby may be missing: after the session's start, and after a take-over, another is on its way."""


@dataclass(frozen=True, slots=True)
class StandbyAbsence:
    """Since when no standby is ready (unix ms, 0: one is, or none is expected), and whether that was alerted."""

    since_ts: int = 0
    alerted: bool = False


def track_standby(before: StandbyAbsence, ready: bool | None, now: int) -> tuple[StandbyAbsence, AlertKind | None]:
    """The absence after this check, and the alert to raise, if any. ready None: not known, or none is expected."""
    if ready is None:
        return before, None
    if ready:
        return StandbyAbsence(), AlertKind.RECOVERY if before.alerted else None
    since = before.since_ts or now
    due = not before.alerted and now - since >= ABSENT_MS
    return StandbyAbsence(since, before.alerted or due), AlertKind.TROUBLE if due else None
