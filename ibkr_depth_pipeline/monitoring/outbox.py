"""Alerts that are still to be delivered, and when to try again. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.monitoring.alert import Alert

MOST = 30
"""Alerts kept; of more the oldest are dropped."""

MOST_AT_ONCE = 6
"""Alerts that one round may try."""

ATTEMPTS = Backoff(10_000, 600_000)
"""Milliseconds between two attempts."""

GIVE_UP_MS = 6 * 3_600_000
"""An alert that could not be delivered for so long is given up."""


@dataclass(frozen=True, slots=True)
class Pending:
    """`targets` are places in ALERT_URLS, counted from 0, that don't have it yet; None: all of them."""

    alert: Alert
    targets: tuple[int, ...] | None = None
    attempts: int = 0
    due_ts: int = 0


@dataclass(frozen=True, slots=True)
class Outbox:
    """Oldest first."""

    pending: tuple[Pending, ...] = ()

    def with_alerts(self, alerts: Sequence[Alert]) -> Outbox:
        """These as well, due at once; the newest MOST are kept."""
        return Outbox((*self.pending, *(Pending(alert) for alert in alerts))[-MOST:])

    def due(self, now: int) -> tuple[Pending, ...]:
        """What to try at `now` (unix ms)."""
        return tuple(each for each in self.pending if each.due_ts <= now)[:MOST_AT_ONCE]

    def after(self, left: Mapping[Pending, Sequence[int]], now: int) -> Outbox:
        """After a round at `now`: `left` names, for each that was tried, the targets that still don't have it."""
        kept = (each if each not in left else _again(each, tuple(left[each]), now) for each in self.pending)
        return Outbox(tuple(each for each in kept if each is not None))


def _again(tried: Pending, targets: tuple[int, ...], now: int) -> Pending | None:
    if not targets or now - tried.alert.ts >= GIVE_UP_MS:
        return None
    attempts = tried.attempts + 1
    return replace(tried, targets=targets, attempts=attempts, due_ts=now + int(ATTEMPTS.pause(attempts)))
