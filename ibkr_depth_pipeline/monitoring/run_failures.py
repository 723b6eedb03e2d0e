"""Runs that failed or were canceled, and settings that can't be read, as alerts: one for each, less what only repeats.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ibkr_depth_pipeline.formatting import duration
from ibkr_depth_pipeline.monitoring.alert import Alert, Kind

REPEAT_MS = 1_800_000
"""The same failure of the same job within so long is counted, not alerted: the next alert tells how often."""

FRESH_MS = 1_800_000
"""Nothing that ended longer ago is news, unless the sensor itself was away: it need not be fetched any more."""

MOST_LIKENESSES = 40
_LONGEST_REASON = 600


@dataclass(frozen=True, slots=True)
class Ending:
    """A run that ended as it should not. Times are unix ms; `follow_up` says what happens now, "" for nothing."""

    run_id: str
    job: str
    outcome: str
    reason: str
    started_ts: int
    ended_ts: int
    follow_up: str = ""


@dataclass(frozen=True, slots=True)
class Last:
    """The newest alert of its likeness: when it was, and how many like it came since."""

    ts: int
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class News:
    """What is remembered: nothing that ended before `since_ts` is news, nor is a run in `known` (run id -> its end).

    `last` is by job and likeness; `problem` is what was told of the settings, "" while they are in order.
    """

    since_ts: int = 0
    known: Mapping[str, int] = field(default_factory=dict)
    last: Mapping[str, Last] = field(default_factory=dict)
    problem: str = ""


def tell_endings(before: News, endings: Sequence[Ending], now: int, gateway: str) -> tuple[News, tuple[Alert, ...]]:
    """What to remember and what to tell. `endings` may hold what is known, in any order."""
    fresh = [each for each in endings if each.run_id not in before.known and each.ended_ts >= before.since_ts]
    last, alerts = dict(before.last), []
    for ending in sorted(fresh, key=lambda each: each.ended_ts):
        likeness = _likeness(ending)
        previous = last.get(likeness)
        if previous is not None and now - previous.ts < REPEAT_MS:
            last[likeness] = replace(previous, repeats=previous.repeats + 1)
            continue
        alerts.append(_alert(ending, previous, now, gateway))
        last[likeness] = Last(now)
    since = max(before.since_ts, now - FRESH_MS)
    ended = {**before.known, **{each.run_id: each.ended_ts for each in fresh}}
    known = {run_id: ts for run_id, ts in ended.items() if ts >= since}
    newest = sorted(last.items(), key=lambda each: each[1].ts)[-MOST_LIKENESSES:]
    return replace(before, since_ts=since, known=known, last=dict(newest)), tuple(alerts)


def tell_problem(before: News, problem: str, now: int, gateway: str) -> tuple[News, tuple[Alert, ...]]:
    """The same for the settings: `problem` names each bad one and why, "" for none. It is told once."""
    after = replace(before, problem=problem)
    if problem in ("", before.problem):
        return after, ()
    title = f"IBKR depth {gateway}: settings can't be read"
    return after, (Alert(now, Kind.TROUBLE, "bad_settings", title, f"{problem}\n{_MEANWHILE}"),)


_MEANWHILE = (
    "Until that is mended no run can start, and the sensors take the default in its place; where it says which Redis "
    "or which gateway to look at, they look at none."
)


def _likeness(ending: Ending) -> str:
    reason = re.sub(r"[0-9a-f]{8}-[0-9a-f-]+|[0-9]+", "#", ending.reason)
    return f"{ending.job} {ending.outcome} {reason[:120]}"


def _alert(ending: Ending, previous: Last | None, now: int, gateway: str) -> Alert:
    lasted = f" after {duration(ending.ended_ts - ending.started_ts)}" if ending.started_ts else ""
    lines = [f"Run {ending.run_id} {ending.outcome}{lasted}.", ending.reason[:_LONGEST_REASON], ending.follow_up]
    if previous is not None and previous.repeats:
        lines.append(f"Since the last alert {previous.repeats} more like that one were not told.")
    title = f"IBKR depth {gateway}: {ending.job} {ending.outcome}"
    return Alert(now, Kind.TROUBLE, f"run_{ending.outcome}", title, "\n".join(line for line in lines if line))
