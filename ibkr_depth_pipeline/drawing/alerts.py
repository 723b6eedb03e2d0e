"""Alerts as the web page and the report draw them: a lane of spans and marks, as lanes.js has it, and rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ibkr_depth_pipeline.schema.alerts import AlertKind, TrackedAlert

SEVERITIES = {AlertKind.TROUBLE: "bad", AlertKind.RECOVERY: "good", AlertKind.NOTICE: "warn"}
OPEN_SHARE = 0.2
"""How strong the time is drawn in which a trouble lasted."""


class Span(NamedTuple):
    """A time in unix ms. kind: `wait` (a thin line), `held`, `good`, `warn` or `bad`; text is shown at the pointer."""

    start: int
    end: int
    kind: str
    text: str = ""
    share: float = 1.0


class Mark(NamedTuple):
    """A moment in unix ms. severity: `good`, `warn` or `bad`; text is shown at the pointer."""

    at: int
    severity: str
    text: str


def alert_spans(alerts: Iterable[TrackedAlert]) -> list[Span]:
    """From each trouble to its all-clear."""
    return [
        Span(each.alert.ts, each.until, "bad", f"lasts: {each.alert.headline}", OPEN_SHARE)
        for each in alerts
        if each.until is not None
    ]


def alert_marks(alerts: Iterable[TrackedAlert]) -> list[Mark]:
    """Each alert and each all-clear."""
    return [Mark(each.alert.ts, SEVERITIES[each.alert.kind], each.alert.title) for each in alerts]


def alert_rows(alerts: Iterable[TrackedAlert]) -> list[Sequence[Any]]:
    """Of each its time, severity, headline, text, when its all-clear came, and up to when its trouble lasted at most.

    Times are unix ms, None for what has not been; the last one also for what has no all-clear by its nature.
    """
    return [
        (each.alert.ts, SEVERITIES[each.alert.kind], each.alert.headline, each.alert.text, each.cleared, each.until)
        for each in alerts
    ]
