"""Snapshots -> what Redis stores. Pure.

A stream id is `<ts>-<seq>`: it grows with each snapshot of a symbol, so a write whose answer was lost can be said again
and Redis itself refuses what it already holds; and a reader can ask for a range by time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from ibkr_depth_pipeline.model import (
    EMPTY_LEVEL,
    SNAPSHOT_LEVELS,
    BookSnapshot,
    Instrument,
    Levels,
    Unresolved,
)

_NO_LEVELS = (EMPTY_LEVEL,) * SNAPSHOT_LEVELS
_ENTRY_OVERHEAD = 300  # bytes of the tuple, its numbers and the headers of its texts, by sys.getsizeof


class Entry(NamedTuple):
    """One snapshot, encoded. `live` says that the book holds a row; `cost` is its weight in the buffer, in bytes."""

    seq: int
    ts: int
    venue: str
    bids: bytes
    asks: bytes
    bid0: float
    ask0: float

    @property
    def stream_id(self) -> str:
        """The id of this snapshot in its stream."""
        return f"{self.ts}-{self.seq}"

    @property
    def live(self) -> bool:
        """Whether the book held a row."""
        return self.bids != _EMPTY_SIDE or self.asks != _EMPTY_SIDE

    @property
    def cost(self) -> int:
        """Bytes that this entry may take in memory."""
        return _ENTRY_OVERHEAD + len(self.bids) + len(self.asks)

    def last_fields(self) -> dict[Any, Any]:
        """The fields of the last-value hash."""
        return {
            "ts": self.ts,
            "bid0": self.bid0,
            "ask0": self.ask0,
            "bids_json": self.bids,
            "asks_json": self.asks,
            "venue": self.venue,
            "seq": self.seq,
        }


@dataclass(frozen=True, slots=True, order=True)
class StreamPosition:
    """The newest snapshot that is stored of a symbol: its time in unix ms and its number; zeros where there is none."""

    ts: int = 0
    seq: int = 0

    @classmethod
    def of_stream_id(cls, stream_id: bytes) -> StreamPosition:
        """Read a stream id of this schema."""
        ts, _, seq = stream_id.decode().partition("-")
        return cls(int(ts), int(seq or 0))


def encode_levels(levels: Levels) -> bytes:
    """JSON of exactly SNAPSHOT_LEVELS rows `[price, size, venue]`, best first, empty rows at the end."""
    # Copied, since orjson's own bytes keep the 4 KiB that it wrote into: fifteen times what is stored.
    return bytes(memoryview(orjson.dumps((levels + _NO_LEVELS)[:SNAPSHOT_LEVELS])))


_EMPTY_SIDE = encode_levels(())


class SnapshotEncoder:
    """Encodes the snapshots of one symbol, and a side anew only when it has changed.

    levels_shown is how many rows a side are stored at most; the rest of the ten are empty rows.
    """

    __slots__ = ("_asks", "_asks_json", "_bids", "_bids_json", "_levels_shown")

    def __init__(self, levels_shown: int = SNAPSHOT_LEVELS) -> None:
        self._levels_shown = levels_shown
        self._bids: Levels = ()
        self._asks: Levels = ()
        self._bids_json = self._asks_json = _EMPTY_SIDE

    def encode(self, snapshot: BookSnapshot) -> Entry:
        """`snapshot` as it is stored."""
        _, seq, ts, venue, bids, asks = snapshot
        if bids is not self._bids:  # sides are immutable: the same object has the same rows
            self._bids, self._bids_json = bids, encode_levels(bids[: self._levels_shown])
        if asks is not self._asks:
            self._asks, self._asks_json = asks, encode_levels(asks[: self._levels_shown])
        bid0 = bids[0][0] if bids else 0.0
        ask0 = asks[0][0] if asks else 0.0
        return Entry(seq, ts, venue, self._bids_json, self._asks_json, bid0, ask0)


def venue_fields(resolution: Instrument | Unresolved, checked_ts: int, reason: str = "") -> dict[Any, Any]:
    """The fields of the venue hash. An Instrument with a `reason` is one that the gateway refused depth for."""
    if isinstance(resolution, Unresolved):
        reason = resolution.reason or "unknown"
    return {
        "con_id": resolution.con_id,
        "exchange": resolution.exchange,
        "primary_exchange": resolution.primary_exchange,
        "valid_exchanges": ",".join(resolution.valid_exchanges),
        "depth_supported": 0 if reason else 1,
        "reason": reason,
        "checked_ts": checked_ts,
    }
