"""Alerts of runs that failed or were canceled, and of settings that can't be read; repetitions are counted. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ibkr_depth_pipeline.formatting import duration
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind

REPEAT_MS = 1_800_000
"""The same failure of the same job within this time is counted, not alerted; the next alert has the count."""

FRESH_MS = 1_800_000
"""Runs that ended longer ago are not alerted, unless the sensor itself was away; they need not be fetched."""

MOST_SIGNATURES = 40
_LONGEST_REASON = 600


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that failed or was canceled. Times are unix ms; `follow_up` says what happens next, "" for nothing."""

    run_id: str
    job: str
    outcome: str
    reason: str
    started_ts: int
    ended_ts: int
    follow_up: str = ""


@dataclass(frozen=True, slots=True)
class LastAlert:
    """The newest alert of its signature: when it was raised, and how many failures like it came since."""

    ts: int
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class FailureHistory:
    """What was alerted. A run that ended before `since_ts`, or is in `known` (run id -> its end), is not alerted again.

    `last` is by signature (job, outcome, reason); `problem` is the alerted problem of the settings, "" for none.
    """

    since_ts: int = 0
    known: Mapping[str, int] = field(default_factory=dict)
    last: Mapping[str, LastAlert] = field(default_factory=dict)
    problem: str = ""


def alert_failed_runs(
    before: FailureHistory, failed: Sequence[FailedRun], now: int, gateway: str
) -> tuple[FailureHistory, tuple[Alert, ...]]:
    """The history and the alerts at `now`. `failed` may hold known runs, in any order."""
    fresh = [each for each in failed if each.run_id not in before.known and each.ended_ts >= before.since_ts]
    last, alerts = dict(before.last), []
    for run in sorted(fresh, key=lambda each: each.ended_ts):
        signature = _signature(run)
        previous = last.get(signature)
        if previous is not None and now - previous.ts < REPEAT_MS:
            last[signature] = replace(previous, repeats=previous.repeats + 1)
            continue
        alerts.append(_alert(run, previous, now, gateway))
        last[signature] = LastAlert(now)
    since = max(before.since_ts, now - FRESH_MS)
    ended = {**before.known, **{each.run_id: each.ended_ts for each in fresh}}
    known = {run_id: ts for run_id, ts in ended.items() if ts >= since}
    newest = sorted(last.items(), key=lambda each: each[1].ts)[-MOST_SIGNATURES:]
    return replace(before, since_ts=since, known=known, last=dict(newest)), tuple(alerts)


def alert_settings_problem(
    before: FailureHistory, problem: str, now: int, gateway: str
) -> tuple[FailureHistory, tuple[Alert, ...]]:
    """The history and the alerts after `problem`, which names each bad setting and why; "" for none. Alerts it once."""
    after = replace(before, problem=problem)
    if problem in ("", before.problem):
        return after, ()
    title = f"IBKR depth {gateway}: settings can't be read"
    return after, (Alert(now, AlertKind.TROUBLE, "bad_settings", title, f"{problem}\n{_MEANWHILE}"),)


_MEANWHILE = (
    "Until that is mended no run can start, and the sensors use the default in its place; if it names the Redis or the "
    "gateway to monitor, they monitor none."
)


def _signature(run: FailedRun) -> str:
    reason = re.sub(r"[0-9a-f]{8}-[0-9a-f-]+|[0-9]+", "#", run.reason)
    return f"{run.job} {run.outcome} {reason[:120]}"


def _alert(run: FailedRun, previous: LastAlert | None, now: int, gateway: str) -> Alert:
    lasted = f" after {duration(run.ended_ts - run.started_ts)}" if run.started_ts else ""
    lines = [f"Run {run.run_id} {run.outcome}{lasted}.", run.reason[:_LONGEST_REASON], run.follow_up]
    if previous is not None and previous.repeats:
        lines.append(f"Since the last alert {previous.repeats} more like that one were not told.")
    title = f"IBKR depth {gateway}: {run.job} {run.outcome}"
    return Alert(now, AlertKind.TROUBLE, f"run_{run.outcome}", title, "\n".join(line for line in lines if line))
