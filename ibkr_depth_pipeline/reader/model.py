"""What a reader asks with and what it gets beside what is stored: starts and gaps. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TypeAlias

from ibkr_depth_pipeline.schema.decoding import DepthSnapshot


class GapCause(Enum):
    """Why snapshots are missing.

    TRIMMED: the stream no longer holds them (MAXLEN, or Redis came back without its data).
    NEVER_STORED: the recorder could not store them: Redis was away for longer than its buffer could bridge.
    RENUMBERED: `seq` fell, because Redis lost what it had acknowledged and the recorder went on from an older number.
    """

    TRIMMED = "trimmed"
    NEVER_STORED = "never_stored"
    RENUMBERED = "renumbered"


@dataclass(frozen=True, slots=True)
class Gap:
    """Snapshots that the reader did not and will not get, in the place where they would have come.

    after_seq is the last one before the gap, None if the reader began at a time that the stream no longer reaches
    back to; next_seq and next_ts (unix ms) are those of the snapshot that follows.
    """

    symbol: str
    after_seq: int | None
    next_seq: int
    next_ts: int
    cause: GapCause

    @property
    def missing(self) -> int | None:
        """How many; None if that can't be known, and then perhaps none."""
        if self.after_seq is None or self.next_seq <= self.after_seq:
            return None
        return self.next_seq - self.after_seq - 1


Item: TypeAlias = DepthSnapshot | Gap
"""What following gives."""

Moment: TypeAlias = int | datetime
"""Unix ms, or an aware datetime."""


@dataclass(frozen=True, slots=True)
class Now:
    """Begin with the first snapshot that is stored after the first read."""


@dataclass(frozen=True, slots=True)
class At:
    """Begin with the first snapshot whose ts is not below this moment."""

    moment: Moment


@dataclass(frozen=True, slots=True)
class After:
    """Begin with the snapshot after this seq. It is searched for: see `DepthReader.follow` for the cost."""

    seq: int


@dataclass(frozen=True, slots=True)
class AfterId:
    """Begin after the snapshot with this stream id, `<ts>-<seq>`. Exact and free: the best way to resume."""

    stream_id: str


NOW = Now()

Start: TypeAlias = Now | At | After | AfterId
Starts: TypeAlias = Start | Mapping[str, Start]
"""One start for all symbols, or one for each."""


def unix_ms(moment: Moment) -> int:
    """`moment` as unix ms. Raises ValueError for a datetime without a time zone."""
    if isinstance(moment, int):
        return moment
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} says no time zone: give an aware datetime or unix ms")
    return round(moment.timestamp() * 1000)
