"""Snapshots that are missing between two others, as the reader hands them on and the archive records them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ibkr_depth_pipeline.schema.keys import StreamId


class GapCause(str, Enum):
    """Why snapshots are missing.

    TRIMMED: the stream no longer holds them (MAXLEN, or Redis came back without its data).
    NEVER_STORED: the recorder could not store them: Redis was away for longer than its buffer could bridge.
    RENUMBERED: `seq` fell, because Redis lost what it had acknowledged and the recorder went on from an older number.
    BEFORE_ARCHIVE: they were gone when the archive first saw the symbol.
    UNREADABLE: their entries are not of docs/redis-schema.md.
    """

    TRIMMED = "trimmed"
    NEVER_STORED = "never_stored"
    RENUMBERED = "renumbered"
    BEFORE_ARCHIVE = "before_archive"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Gap:
    """The snapshots of `symbol` that are missing between the numbers after_seq and next_seq.

    after_seq is 0 if none was expected before the gap, None if the reader began at a time that the stream no longer
    reaches back to. next_seq and next_ts (unix ms) are those of the snapshot that follows. `after` is the id of the
    newest snapshot that the archive has before the gap, zeros from a reader; its number is not after_seq if the
    numbering fell.
    """

    symbol: str
    after_seq: int | None
    next_seq: int
    next_ts: int
    cause: GapCause
    after: StreamId = field(default=StreamId(), compare=False)

    @property
    def first_seq(self) -> int:
        """The lowest number that may be missing; above last_seq if the numbering fell."""
        return 1 + (self.after_seq or 0)

    @property
    def last_seq(self) -> int:
        """The highest number that is missing."""
        return self.next_seq - 1

    @property
    def missing(self) -> int | None:
        """How many; None if that can't be known, and then perhaps none."""
        if self.after_seq is None or self.next_seq <= self.after_seq:
            return None
        return self.next_seq - self.after_seq - 1

    @property
    def size(self) -> int:
        """How many are known to be missing."""
        return self.missing or 0
