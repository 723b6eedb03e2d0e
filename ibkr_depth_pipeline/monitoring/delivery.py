"""Delivery of alerts: always into the log, and through apprise to every URL of ALERT_URLS.

Nothing that apprise, or a library below it, reports about a URL is passed on, since any part of it may be a secret. A
target is named by its index and its scheme.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import apprise

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.monitoring.incidents import Alert, AlertKind
from ibkr_depth_pipeline.monitoring.state import AlertOutbox, PendingAlert
from ibkr_depth_pipeline.settings import MASK

PATIENCE_SECS = 10.0
"""How long one call waits for answers. A later answer counts as undelivered, and the alert is sent again."""

READ_SECS = 8.0
"""How long a target that took an alert may take to answer, unless its URL sets another limit (`?rto=`).

Apprise's own 4 s are short for a busy target: it would take the alert again at every attempt.
"""

_NOTIFY_TYPES = {
    AlertKind.TROUBLE: apprise.NotifyType.FAILURE,
    AlertKind.RECOVERY: apprise.NotifyType.SUCCESS,
    AlertKind.NOTICE: apprise.NotifyType.WARNING,
}


def deliver(
    outbox: AlertOutbox, alerts: Sequence[Alert], urls: Sequence[str], now: int, *, patience: float = PATIENCE_SECS
) -> AlertOutbox:
    """Log these alerts, attempt to deliver every alert that is due, and return what is still to be delivered.

    Takes at most `patience` seconds, and raises nothing on the targets' account.
    """
    for alert in alerts:
        fields = {"kind": alert.kind.value, "cause": alert.cause, "title": alert.title, "text": alert.text}
        get_log().warning("alert", **fields)
    full = outbox.with_alerts(alerts)
    return full.after(_attempt(full.due(now), urls, patience), now)


def _attempt(due: Sequence[PendingAlert], urls: Sequence[str], patience: float) -> dict[PendingAlert, list[int]]:
    """The targets that each alert still lacks. All are tried at once, each in a thread that may be left behind."""
    attempts = [
        _Attempt(pending, index, urls[index])
        for pending in due
        for index in (range(len(urls)) if pending.targets is None else pending.targets)
        if index < len(urls)  # the operator may have removed it
    ]
    deadline = monotonic() + patience
    for attempt in attempts:
        attempt.start()
    for attempt in attempts:
        attempt.join(max(0.0, deadline - monotonic()))
    missing: dict[PendingAlert, list[int]] = {pending: [] for pending in due}
    for attempt in attempts:
        if attempt.failed:
            attempt.log_failure()
            missing[attempt.pending].append(attempt.index)
    return missing


class _Attempt(threading.Thread):
    def __init__(self, pending: PendingAlert, index: int, url: str) -> None:
        super().__init__(name="alert", daemon=True)
        self.pending = pending
        self.index = index
        self._url = url
        self._outcome = "no answer in time"

    @property
    def failed(self) -> bool:
        return bool(self._outcome) and self._outcome != _UNUSABLE

    def run(self) -> None:
        try:
            self._outcome = _notify(self._url, self.pending.alert)
        except Exception as error:  # a plugin's; its text may hold the URL
            self._outcome = type(error).__name__
        if self._outcome == _UNUSABLE:
            self.log_failure()

    def log_failure(self) -> None:
        target = f"ALERT_URLS[{self.index}] {self._url.partition('://')[0].lower()}://{MASK}"
        fields = {"target": target, "reason": self._outcome, "attempts": self.pending.attempts + 1}
        get_log().warning("alert_not_delivered", title=self.pending.alert.title, **fields)


_UNUSABLE = "apprise does not know this kind of URL"


def _notify(url: str, alert: Alert) -> str:
    """Why the alert was not delivered; empty if it was."""
    target = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if target is None:
        return _UNUSABLE
    if target.socket_read_timeout == type(target).socket_read_timeout:
        target.socket_read_timeout = READ_SECS
    service = apprise.Apprise()
    service.add(target)
    delivered = service.notify(body=alert.text, title=alert.title, notify_type=_NOTIFY_TYPES[alert.kind])
    return "" if delivered else "refused, or nobody there"


logging.getLogger("apprise").disabled = True  # its lines hold hosts and tokens
