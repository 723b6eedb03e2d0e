"""One message to the operator."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    """TROUBLE needs a look; RECOVERY ends one; NOTICE is something that was done."""

    TROUBLE = "trouble"
    RECOVERY = "recovery"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Alert:
    """`ts` is unix ms. `cause` is one word for machines; title and text are for people and hold no secret."""

    ts: int
    kind: Kind
    cause: str
    title: str
    text: str


def span(ms: int) -> str:
    """For people: `42 s`, `3 min 5 s`, `2 h 7 min`."""
    seconds = max(0, round(ms / 1000))
    minutes, hours = seconds // 60, seconds // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
