"""Delivery of alerts: always into the log, through apprise to every URL of ALERT_URLS, and on record.

Nothing that apprise, or a library below it, reports about a URL is passed on, since any part of it may be a secret. A
target is named by its index and its scheme.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.monitoring.state import AlertOutbox, PendingAlert
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind
from ibkr_depth_pipeline.settings import MASK, Settings
from ibkr_depth_pipeline.sink.status import store_alerts

PATIENCE_SECS = 10.0
"""How long one call waits for answers. A later answer counts as undelivered, and the alert is sent again."""

READ_SECS = 8.0
"""How long a target that took an alert may take to answer, unless its URL sets another limit (`?rto=`).

Apprise's own 4 s are short for a busy target: it would take the alert again at every attempt.
"""

RECORD_SECS = 3.0
"""How long one call waits for the record: beside the targets, so that no alert is later for a record that is away."""

Record = Callable[[Sequence[Alert]], None]
"""Puts alerts on record for good, each once however often it is called. It blocks, and raises if it can't."""


def deliver(
    outbox: AlertOutbox,
    alerts: Sequence[Alert],
    urls: Sequence[str],
    now: int,
    *,
    patience: float = PATIENCE_SECS,
    record: Record | None = None,
) -> AlertOutbox:
    """Log these alerts, attempt to deliver every alert that is due, and return what is still to be delivered.

    What can't be put on record is tried again by the next call. `record` None: there is none.

    Takes at most `patience` seconds, or RECORD_SECS, and raises nothing on the targets' account or the record's.
    """
    for alert in alerts:
        fields = {"kind": alert.kind.value, "cause": alert.cause, "title": alert.title, "text": alert.text}
        get_log().warning("alert", **fields)
    full = outbox.with_alerts(alerts)
    recording = None if record is None else _Recording(full.unrecorded, record, is_new=bool(alerts))
    left = full.after(_attempt(full.due(now), urls, patience), now)
    return replace(left, unrecorded=() if recording is None else recording.missing())


# ---- the record


def redis_record(settings: Settings) -> Record:
    """The stream of alerts of the ingest that `settings` names."""
    return lambda alerts: asyncio.run(store_alerts(settings.redis_target, settings.ibkr_gateway_name, alerts))


class _Recording:
    """One try to put alerts on record, in a thread that may be left behind."""

    def __init__(self, alerts: tuple[Alert, ...], record: Record, *, is_new: bool) -> None:
        self._alerts, self._record, self._is_new = alerts, record, is_new
        self._deadline = monotonic() + RECORD_SECS
        self._outcome = "no answer in time" if alerts else ""
        self._thread = threading.Thread(target=self._run, name="alert-record", daemon=True)
        if alerts:
            self._thread.start()

    def missing(self) -> tuple[Alert, ...]:
        """The alerts that are not on record, as far as is known when the time is up; a new failure is logged."""
        if not self._alerts:
            return ()
        self._thread.join(max(0.0, self._deadline - monotonic()))
        outcome = self._outcome
        if outcome and self._is_new:
            get_log().warning("alert_not_recorded", title=self._alerts[-1].title, reason=outcome)
        return self._alerts if outcome else ()

    def _run(self) -> None:
        try:
            self._record(self._alerts)
            self._outcome = ""
        except Exception as error:  # whatever it is, the alert itself is on its way
            self._outcome = str(error) or type(error).__name__


# ---- the targets


def _attempt(due: Sequence[PendingAlert], urls: Sequence[str], patience: float) -> dict[PendingAlert, list[int]]:
    """The targets that each alert still lacks. All are tried at once, each in a thread that may be left behind."""
    if due:
        import apprise  # noqa: F401 - with the first alert, and before the patience begins: 4 MB a process

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
    import apprise

    kinds = apprise.NotifyType
    kind = {AlertKind.TROUBLE: kinds.FAILURE, AlertKind.RECOVERY: kinds.SUCCESS, AlertKind.NOTICE: kinds.WARNING}
    target = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if target is None:
        return _UNUSABLE
    if target.socket_read_timeout == type(target).socket_read_timeout:
        target.socket_read_timeout = READ_SECS
    service = apprise.Apprise()
    service.add(target)
    delivered = service.notify(body=alert.text, title=alert.title, notify_type=kind[alert.kind])
    return "" if delivered else "refused, or nobody there"


# Its lines hold hosts and tokens. A filter, as `disabled` is undone by whoever configures logging, as Dagster does.
logging.getLogger("apprise").addFilter(lambda record: False)
