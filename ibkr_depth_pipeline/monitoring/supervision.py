"""The watch over an ingest's runs: which one is dead, and whether a new one is due. Pure.

It stands in for a person: it starts what should run, but never against one. A run that somebody terminated stays away
until the next session, or until somebody launches one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.formatting import duration

START_MS = 60_000
"""From a run's start to its first heartbeat: lease, connection."""

DEAD_MS = 8_000
"""So long without a heartbeat that has run out already (15 s after it was last renewed), and the run is dead."""

SCHEDULE_MS = 60_000
"""The schedule's own time to start the first run of a session."""

RESTARTS = Backoff(20_000, 300_000)
"""After a run's end: Dagster's own retry comes first, and what fails at once must not fail all the time."""

EARLY_MS = 3_600_000
"""A run that was launched so long before the session, or later, is one of that session's."""

LAST_CALL_MS = 60_000
"""So shortly before the close nothing is started."""


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
class Run:
    """One run as the instance knows it; times are unix ms, 0 for not yet.

    `redis_url` is the one that its own config names, "" where that names none; it may hold a password.
    """

    run_id: str
    phase: Phase
    created_ts: int
    started_ts: int = 0
    ended_ts: int = 0
    redis_url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Sight:
    """A run that is started, as its heartbeat shows it: when it was last alive, since when it is not; 0 for never."""

    run_id: str
    alive_ts: int = 0
    silent_ts: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """A session to record: from when on (its open less the lead) and until when, unix ms."""

    day: str
    start_ts: int
    close_ts: int


def sights(before: Sequence[Sight], runs: Sequence[Run], alive: str | None, now: int) -> tuple[Sight, ...]:
    """After a look at Redis; `alive` is the id of the run whose heartbeat stands, "" where none does.

    None: Redis can't be asked, and what was seen before it says nothing of silence.
    """
    known = {sight.run_id: sight for sight in before}
    started = [run.run_id for run in runs if run.phase is Phase.STARTED]
    return tuple(_sight(known.get(run_id, Sight(run_id)), alive, now) for run_id in started)


def _sight(before: Sight, alive: str | None, now: int) -> Sight:
    if alive is None:
        return Sight(before.run_id, before.alive_ts, 0)
    if alive == before.run_id:
        return Sight(before.run_id, now, 0)
    return Sight(before.run_id, before.alive_ts, before.silent_ts or now)


def dead(runs: Sequence[Run], seen: Sequence[Sight], now: int, *, lease_wait_ms: int) -> dict[str, str]:
    """Run id -> why it is to be failed. One that was never alive may still be standing by for the lease."""
    started = {run.run_id: run.started_ts or run.created_ts for run in runs}
    found = {}
    for sight in seen:
        silent = bool(sight.silent_ts) and now - sight.silent_ts >= DEAD_MS
        if silent and (sight.alive_ts or now - started[sight.run_id] >= START_MS + lease_wait_ms):
            last = f"it was last seen {duration(now - sight.alive_ts)} ago" if sight.alive_ts else "it was never seen"
            found[sight.run_id] = f"The ingest's own heartbeat is gone, {last}: its process is dead or stuck."
    return found


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a run. No two with the same `key` are ever started."""

    key: str


def missing(runs: Sequence[Run], session: Span | None, now: int, *, alive: str | None, hold: str = "") -> Launch | str:
    """A launch, where a session has no ingest run, or why there is none to do. `runs` are the newest, newest first.

    `alive` as in `sights`; `hold` is a reason not to start the first one.
    """
    if session is None:
        return "outside the session"
    if now >= session.close_ts - LAST_CALL_MS:
        return "the session is about to close"
    if any(not run.phase.is_over for run in runs):
        return "an ingest run is under way"
    if alive is None:
        return "Redis can't be asked"
    if alive:
        return f"an ingest records that this Dagster does not know: run {alive}"
    ended = [run for run in runs if run.ended_ts >= session.start_ts]
    if ended and ended[0].phase is Phase.TERMINATED:
        return f"run {ended[0].run_id} was terminated by a person; launch one to go on"
    if hold and not any(run.created_ts >= session.start_ts - EARLY_MS for run in ended):
        return hold
    due = ended[0].ended_ts + _pause(ended) if ended else session.start_ts + SCHEDULE_MS
    if now < due:
        return f"a new run is due in {duration(due - now)}"
    return Launch(f"{session.day} after {runs[0].run_id if runs else 'none'}")


def _pause(ended: Sequence[Run]) -> int:
    """Longer after each failure in a row; one that recorded for a while breaks the row."""
    row = 0
    for run in ended:
        if run.phase is not Phase.FAILED or run.ended_ts - (run.started_ts or run.ended_ts) > RESTARTS.longest:
            break
        row += 1
    return int(RESTARTS.pause(max(1, row)))
