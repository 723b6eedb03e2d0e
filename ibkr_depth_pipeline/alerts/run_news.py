"""Runs that failed or were canceled, as alerts: one for each, less what only repeats. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ibkr_depth_pipeline.alerts.alert import Alert, Kind, span

REPEAT_MS = 1_800_000
"""The same failure of the same job within so long is counted, not alerted: the next alert tells how often."""

MOST_KNOWN = 60
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
    """The newest alert of a job: its likeness, when, and how many like it came since."""

    likeness: str
    ts: int
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class News:
    """What is remembered: nothing that ended before `since_ts` is news, nor is a run in `known`."""

    since_ts: int = 0
    known: tuple[str, ...] = ()
    last: Mapping[str, Last] = field(default_factory=dict)


def tell_endings(before: News, endings: Sequence[Ending], now: int, gateway: str) -> tuple[News, tuple[Alert, ...]]:
    """What to remember and what to tell. `endings` may hold what is known, in any order."""
    fresh = [each for each in endings if each.run_id not in before.known and each.ended_ts >= before.since_ts]
    last, alerts = dict(before.last), []
    for ending in sorted(fresh, key=lambda each: each.ended_ts):
        previous, likeness = last.get(ending.job), _likeness(ending)
        if previous is not None and previous.likeness == likeness and now - previous.ts < REPEAT_MS:
            last[ending.job] = Last(likeness, previous.ts, previous.repeats + 1)
            continue
        alerts.append(_alert(ending, previous, now, gateway))
        last[ending.job] = Last(likeness, now)
    known = (*before.known, *(each.run_id for each in fresh))[-MOST_KNOWN:]
    return News(before.since_ts, known, last), tuple(alerts)


def _likeness(ending: Ending) -> str:
    reason = re.sub(r"[0-9a-f]{8}-[0-9a-f-]+|[0-9]+", "#", ending.reason)
    return f"{ending.outcome} {reason[:120]}"


def _alert(ending: Ending, previous: Last | None, now: int, gateway: str) -> Alert:
    lasted = f" after {span(ending.ended_ts - ending.started_ts)}" if ending.started_ts else ""
    lines = [f"Run {ending.run_id} {ending.outcome}{lasted}.", ending.reason[:_LONGEST_REASON], ending.follow_up]
    if previous is not None and previous.repeats:
        lines.append(f"Since the last alert {previous.repeats} more like that one were not told.")
    title = f"IBKR depth {gateway}: {ending.job} {ending.outcome}"
    return Alert(now, Kind.TROUBLE, f"run_{ending.outcome}", title, "\n".join(line for line in lines if line))
