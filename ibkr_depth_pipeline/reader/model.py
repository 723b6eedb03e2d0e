"""What a reader gets and what it asks with: frozen, typed, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import NamedTuple, TypeAlias

import orjson


class Level(NamedTuple):
    """One row of a book. An empty one is `Level(0.0, 0.0, "")`.

    size is in the unit that the gateway was set to, lots or shares; venue is the market maker or venue that shows it.
    """

    price: float
    size: float
    venue: str


EMPTY_LEVEL = Level(0.0, 0.0, "")


@dataclass(frozen=True, slots=True)
class DepthSnapshot:
    """One symbol's book after one row of depth.

    ts is unix ms by the recorder's clock and never falls within a symbol; seq grows by exactly 1 for each snapshot of a
    symbol; venue is the one subscribed to. `bids` and `asks` are decoded when they are first asked for.
    """

    symbol: str
    ts: int
    seq: int
    venue: str
    bids_json: bytes = field(repr=False)
    asks_json: bytes = field(repr=False)
    _bids: tuple[Level, ...] | None = field(default=None, init=False, repr=False, compare=False)
    _asks: tuple[Level, ...] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def bids(self) -> tuple[Level, ...]:
        """Ten rows, best first, empty ones at the end."""
        if self._bids is None:
            object.__setattr__(self, "_bids", decode_side(self.bids_json))
        return self._bids or ()

    @property
    def asks(self) -> tuple[Level, ...]:
        """Ten rows, best first, empty ones at the end."""
        if self._asks is None:
            object.__setattr__(self, "_asks", decode_side(self.asks_json))
        return self._asks or ()

    @property
    def best_bid(self) -> Level | None:
        """None where the side is empty."""
        best = self.bids[0]
        return None if best == EMPTY_LEVEL else best

    @property
    def best_ask(self) -> Level | None:
        """None where the side is empty."""
        best = self.asks[0]
        return None if best == EMPTY_LEVEL else best

    @property
    def stream_id(self) -> str:
        """Its id in the stream, and the position to go on from: `AfterId(snapshot.stream_id)`."""
        return f"{self.ts}-{self.seq}"

    @property
    def time(self) -> datetime:
        """`ts` as an aware datetime in UTC."""
        return datetime.fromtimestamp(self.ts / 1000, timezone.utc)


def decode_side(text: bytes) -> tuple[Level, ...]:
    """The rows of one side's JSON."""
    return tuple(map(Level._make, orjson.loads(text)))


class GapCause(Enum):
    """Why snapshots are missing.

    TRIMMED: the stream no longer holds them (MAXLEN, or Redis came back without its data).
    NEVER_STORED: the recorder could not store them: Redis was away for longer than its buffer could bridge.
    RENUMBERED: `seq` fell, because Redis lost what it had acknowledged and the recorder started anew.
    """

    TRIMMED = "trimmed"
    NEVER_STORED = "never_stored"
    RENUMBERED = "renumbered"


@dataclass(frozen=True, slots=True)
class Gap:
    """Snapshots that the reader did not and will not get, in the place where they would have come.

    after_seq is the last one before the gap, None where the reader began at a time that the stream no longer reaches
    back to; next_seq and next_ts (unix ms) are those of the snapshot that follows.
    """

    symbol: str
    after_seq: int | None
    next_seq: int
    next_ts: int
    cause: GapCause

    @property
    def missing(self) -> int | None:
        """How many; None where that can't be known, and then perhaps none."""
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


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A book that can be trusted: the unix ms of its last row, and the seconds that this is still good for."""

    last_row_ts: int
    ttl_secs: float


@dataclass(frozen=True, slots=True)
class VenueInfo:
    """Which venue is recorded, or why none is. `exchange` is empty where there is none, checked_ts unix ms."""

    symbol: str
    con_id: int
    exchange: str
    primary_exchange: str
    valid_exchanges: tuple[str, ...]
    depth_supported: bool
    reason: str
    checked_ts: int


def unix_ms(moment: Moment) -> int:
    """`moment` as unix ms. Raises ValueError for a datetime that does not say its time zone."""
    if isinstance(moment, int):
        return moment
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} says no time zone: give an aware datetime or unix ms")
    return round(moment.timestamp() * 1000)
