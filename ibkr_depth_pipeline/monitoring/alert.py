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
