"""An alert, how it is stored, an entry in the stream of its ingest, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum

from ibkr_depth_pipeline.errors import SchemaMismatch


class AlertKind(str, Enum):
    """TROUBLE needs attention; RECOVERY ends a trouble; NOTICE reports an action."""

    TROUBLE = "trouble"
    RECOVERY = "recovery"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Alert:
    """One message to the operator. `ts` is unix ms, `cause` one word for machines; title and text hold no secret."""

    ts: int
    kind: AlertKind
    cause: str
    title: str
    text: str

    @property
    def headline(self) -> str:
        """The title without the name of the program and of its gateway."""
        name, _, headline = self.title.partition(": ")
        return headline if headline and name.startswith("IBKR depth") else self.title

    @property
    def lasts(self) -> bool:
        """Whether it is of a trouble that lasts until its all-clear; what only happened, as a failed run, has none."""
        return self.kind is AlertKind.TROUBLE and not self.cause.startswith("run_") and self.cause not in _HAPPENED


_HAPPENED = frozenset({"probe_failed", "bad_settings", "unit_failed"})
_STANDBY = "standby_missing"

ALERT_FIELDS = tuple(field.name for field in fields(Alert))
"""The fields in the order in which they are stored."""


def encode_alert(alert: Alert) -> dict[str, str]:
    """The fields as they are stored."""
    return {
        "ts": str(alert.ts),
        "kind": alert.kind.value,
        "cause": alert.cause,
        "title": alert.title,
        "text": alert.text,
    }


def decode_alert(stored: Mapping[bytes, bytes]) -> Alert:
    """Reads the fields of an entry; unknown ones are passed over. Raises SchemaMismatch if it is no alert."""
    try:
        found = {name: stored[name.encode()].decode() for name in ALERT_FIELDS}
        return Alert(int(found["ts"]), AlertKind(found["kind"]), found["cause"], found["title"], found["text"])
    except (KeyError, ValueError):
        raise SchemaMismatch("an alert is not as docs/redis-schema.md says") from None


# ---- what became of it


FORGOTTEN_MS = 86_400_000
"""A trouble without an all-clear for so long is over: outside of sessions nothing is watched, and none comes."""


@dataclass(frozen=True, slots=True)
class TrackedAlert:
    """An alert, and the unix ms of its all-clear, None if none has come."""

    alert: Alert
    cleared: int | None = None

    @property
    def until(self) -> int | None:
        """Up to when (unix ms) its trouble lasted, as far as is known; None if it has no such time."""
        if not self.alert.lasts:
            return None
        return self.alert.ts + FORGOTTEN_MS if self.cleared is None else self.cleared

    def is_open(self, ts: int) -> bool:
        """Whether its trouble lasted at unix ms `ts`."""
        return self.until is not None and self.alert.ts <= ts < self.until


def tracked_alerts(alerts: Iterable[Alert]) -> list[TrackedAlert]:
    """The alerts in order of their time, each with its all-clear.

    An ingest has one incident at a time, whose cause may change: its all-clear ends all that was alerted of it. A
    missing standby is apart from that.
    """
    found = [TrackedAlert(alert) for alert in sorted(alerts, key=lambda each: each.ts)]
    standing: list[int] = []
    for at, alert in enumerate([each.alert for each in found]):
        if alert.lasts:
            standing.append(at)
        elif alert.kind is AlertKind.RECOVERY:
            ended = [each for each in standing if _is_of(found[each].alert, alert)]
            standing = [each for each in standing if each not in ended]
            for each in ended:
                found[each] = TrackedAlert(found[each].alert, alert.ts)
    return found


def _is_of(trouble: Alert, recovery: Alert) -> bool:
    return (trouble.cause == _STANDBY) == (recovery.cause == _STANDBY)


def alerts_at(alerts: Iterable[TrackedAlert], ts: int) -> list[TrackedAlert]:
    """Those that were raised by unix ms `ts`, newest first."""
    return [each for each in alerts if each.alert.ts <= ts][::-1]
