"""An alert, and how it is stored: an entry in the stream of its ingest. Pure."""

from __future__ import annotations

from collections.abc import Mapping
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
