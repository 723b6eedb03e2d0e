"""What the sensors remember between ticks: alerts still to be delivered, and each sensor's state as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.monitoring.diagnosis import PublishedCheck
from ibkr_depth_pipeline.monitoring.incidents import IncidentState
from ibkr_depth_pipeline.monitoring.run_failures import FailureHistory
from ibkr_depth_pipeline.monitoring.supervision import RunHeartbeat, StandbyAbsence
from ibkr_depth_pipeline.schema.alerts import Alert

MOST = 30
"""Alerts kept; if there are more, the oldest are dropped."""

MOST_AT_ONCE = 6
"""Alerts that one tick attempts to deliver."""

ATTEMPTS = Backoff(10_000, 600_000)
"""Milliseconds between two attempts to deliver an alert."""

GIVE_UP_MS = 6 * 3_600_000
"""An alert that could not be delivered for this long is dropped."""


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """An alert on its way. `targets`: indices in ALERT_URLS that still lack it, from 0; None for all of them."""

    alert: Alert
    targets: tuple[int, ...] | None = None
    attempts: int = 0
    due_ts: int = 0


@dataclass(frozen=True, slots=True)
class AlertOutbox:
    """The alerts that are still to be delivered, and those that are still to be put on record; oldest first."""

    pending: tuple[PendingAlert, ...] = ()
    unrecorded: tuple[Alert, ...] = ()

    def with_alerts(self, alerts: Sequence[Alert]) -> AlertOutbox:
        """The outbox with these alerts added, due at once; it keeps the newest MOST of each."""
        pending = (*self.pending, *(PendingAlert(alert) for alert in alerts))
        return AlertOutbox(pending[-MOST:], (*self.unrecorded, *alerts)[-MOST:])

    def due(self, now: int) -> tuple[PendingAlert, ...]:
        """The alerts to attempt at `now` (unix ms)."""
        return tuple(each for each in self.pending if each.due_ts <= now)[:MOST_AT_ONCE]

    def after(self, missing: Mapping[PendingAlert, Sequence[int]], now: int) -> AlertOutbox:
        """The outbox after attempts at `now`; `missing` has, per attempted alert, the targets that still lack it."""
        kept = (_rescheduled(each, missing.get(each), now) for each in self.pending)
        return replace(self, pending=tuple(each for each in kept if each is not None))


def _rescheduled(pending: PendingAlert, missing: Sequence[int] | None, now: int) -> PendingAlert | None:
    if missing is None:
        return pending
    if not missing or now - pending.alert.ts >= GIVE_UP_MS:
        return None
    attempts = pending.attempts + 1
    return replace(pending, targets=tuple(missing), attempts=attempts, due_ts=now + int(ATTEMPTS.pause(attempts)))


# ---- the sensors' cursors


@dataclass(frozen=True, slots=True)
class DeadmanPing:
    """When the dead man's switch was last pinged (unix ms, 0 for never), and whether all was well then."""

    ts: int = 0
    well: bool = True


@dataclass(frozen=True, slots=True)
class HeartbeatState:
    """State of the heartbeat sensor. `published` is by symbol; `deadman` is the last ping of the dead man's switch."""

    incidents: IncidentState = field(default_factory=IncidentState)
    published: Mapping[str, PublishedCheck] = field(default_factory=dict)
    outbox: AlertOutbox = field(default_factory=AlertOutbox)
    deadman: DeadmanPing = field(default_factory=DeadmanPing)


@dataclass(frozen=True, slots=True)
class WatchdogState:
    """State of a watchdog. `alerted_probe`: the session whose failed probe was alerted; `absence`: of the standby."""

    heartbeats: tuple[RunHeartbeat, ...] = ()
    alerted_probe: str = ""
    outbox: AlertOutbox = field(default_factory=AlertOutbox)
    absence: StandbyAbsence = field(default_factory=StandbyAbsence)


@dataclass(frozen=True, slots=True)
class RunAlertState:
    """State of a sensor that alerts failed runs. since_ts 0: it has never run."""

    history: FailureHistory = field(default_factory=FailureHistory)
    outbox: AlertOutbox = field(default_factory=AlertOutbox)


State = TypeVar("State", HeartbeatState, WatchdogState, RunAlertState)
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}
"""Each made once, when it is needed: that takes longer than to read a state."""


def load_state(kind: type[State], text: str | None) -> State:
    """Parse what `dump_state` wrote; an empty state if there is none, or one of another version."""
    try:
        state: State = kind() if not text else _adapter(kind).validate_json(text)
    except ValidationError:
        return kind()
    return state


def dump_state(state: HeartbeatState | WatchdogState | RunAlertState) -> str:
    """The state as JSON, for a sensor's cursor."""
    return _adapter(type(state)).dump_json(state).decode()


def _adapter(kind: type) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
