"""The alerts about an ingest as a query, and what repeated calls of it have given. Pure, as selection.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ibkr_depth_pipeline.errors import SchemaMismatch
from ibkr_depth_pipeline.reader.selection import BEGINNING, Query
from ibkr_depth_pipeline.schema.alerts import Alert, TrackedAlert, decode_alert, tracked_alerts
from ibkr_depth_pipeline.schema.keys import StreamId, alerts_stream, id_after

PAGE_ALERTS = 1_000
KEPT = 1_000
_LATEST_MS = 253_402_300_800_000
"""The year 10000: what is later is no time."""


class NewAlerts(NamedTuple):
    """What was stored since the last call, the id of the oldest that is kept, and the cursor for the next call.

    oldest: None if none is kept. unreadable: how many entries were no alerts, and are passed over.
    """

    alerts: list[tuple[StreamId, Alert]]
    oldest: StreamId | None
    cursor: str
    unreadable: int = 0


def alerts_since(name: str, cursor: str = BEGINNING, most: int = PAGE_ALERTS) -> Query[NewAlerts]:
    """The alerts about the ingest `name` (IBKR_GATEWAY_NAME), and their all-clears, in the order of their storing.

    A cursor is that of the last call. At most so many come at a time.
    """
    stream = alerts_stream(name)
    first, entries = yield [
        ("XRANGE", stream, "-", "+", "COUNT", 1),
        ("XRANGE", stream, cursor, "+", "COUNT", most),
    ]
    read = [_read(entry) for entry in entries]
    alerts = [each for each in read if each is not None]
    oldest = StreamId.of(first[0][0]) if first else None
    after = id_after(entries[-1][0].decode()) if entries else cursor
    return NewAlerts(alerts, oldest, after, len(read) - len(alerts))


def _read(entry: Sequence[Any]) -> tuple[StreamId, Alert] | None:
    names, values = entry[1][::2], entry[1][1::2]
    try:
        alert = decode_alert(dict(zip(names, values, strict=True)))
    except (SchemaMismatch, ValueError):
        return None
    return (StreamId.of(entry[0]), alert) if 0 <= alert.ts < _LATEST_MS else None


class AlertLog:
    """What `alerts_since` has given so far and Redis still holds."""

    def __init__(self) -> None:
        self.cursor = BEGINNING
        self.tracked: Sequence[TrackedAlert] = ()
        """The alerts in order of their time, each with its all-clear; another object if anything has changed."""
        self._held: list[tuple[StreamId, Alert]] = []

    def take(self, new: NewAlerts) -> None:
        """The reader's answer. What the stream has lost since is forgotten."""
        self.cursor = new.cursor if new.oldest is not None else BEGINNING
        kept = [each for each in self._held if new.oldest is not None and each[0] >= new.oldest]
        held = [*kept, *new.alerts][-KEPT:]
        if held != self._held:
            self._held = held
            self.tracked = tracked_alerts(alert for _, alert in held)
