"""Alerts on their way: always into the log, and through apprise to every URL of ALERT_URLS.

Nothing that apprise, or a library below it, says about a URL is passed on: any part of one may be a secret. A target is
told by its place and its scheme.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import apprise

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.monitoring.alert import Alert, Kind
from ibkr_depth_pipeline.monitoring.outbox import Outbox, Pending
from ibkr_depth_pipeline.settings import MASK

ROUND_SECS = 10.0
"""How long one round waits for answers. What is later counts as undelivered, and comes again."""

READ_SECS = 8.0
"""How long a target that took an alert may take to answer, where its URL says nothing else (`?rto=`).

Apprise's own 4 s are short for a busy target: it would have the alert, and get it again at every try.
"""

_KINDS = {
    Kind.TROUBLE: apprise.NotifyType.FAILURE,
    Kind.RECOVERY: apprise.NotifyType.SUCCESS,
    Kind.NOTICE: apprise.NotifyType.WARNING,
}


def tell(outbox: Outbox, alerts: Sequence[Alert], urls: Sequence[str], now: int) -> Outbox:
    """Log these alerts, try whatever is due, and return what is still to be delivered.

    It takes ROUND_SECS at most, whatever the targets do, and raises nothing on their account.
    """
    for alert in alerts:
        fields = {"kind": alert.kind.value, "cause": alert.cause, "title": alert.title, "text": alert.text}
        get_log().warning("alert", **fields)
    full = outbox.with_alerts(alerts)
    return full.after(_deliver(full.due(now), urls), now)


def _deliver(due: Sequence[Pending], urls: Sequence[str]) -> dict[Pending, list[int]]:
    """Which targets each still lacks. All are tried side by side, each in a thread that may be left behind."""
    attempts = [
        _Attempt(pending, place, urls[place])
        for pending in due
        for place in (range(len(urls)) if pending.targets is None else pending.targets)
        if place < len(urls)  # the operator may have removed it
    ]
    deadline = monotonic() + ROUND_SECS
    for attempt in attempts:
        attempt.start()
    for attempt in attempts:
        attempt.join(max(0.0, deadline - monotonic()))
    left: dict[Pending, list[int]] = {pending: [] for pending in due}
    for attempt in attempts:
        if attempt.failed:
            attempt.report()
            left[attempt.pending].append(attempt.place)
    return left


class _Attempt(threading.Thread):
    def __init__(self, pending: Pending, place: int, url: str) -> None:
        super().__init__(name="alert", daemon=True)
        self.pending = pending
        self.place = place
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
            self.report()

    def report(self) -> None:
        target = f"ALERT_URLS[{self.place}] {self._url.partition('://')[0].lower()}://{MASK}"
        told = {"target": target, "reason": self._outcome, "attempts": self.pending.attempts + 1}
        get_log().warning("alert_not_delivered", title=self.pending.alert.title, **told)


_UNUSABLE = "apprise does not know this kind of URL"


def _notify(url: str, alert: Alert) -> str:
    """Why it was not delivered; empty where it was."""
    target = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if target is None:
        return _UNUSABLE
    if target.socket_read_timeout == type(target).socket_read_timeout:
        target.socket_read_timeout = READ_SECS
    service = apprise.Apprise()
    service.add(target)
    delivered = service.notify(body=alert.text, title=alert.title, notify_type=_KINDS[alert.kind])
    return "" if delivered else "refused, or nobody there"


logging.getLogger("apprise").disabled = True  # its lines hold hosts and tokens
