"""What Redis stores -> snapshots, heartbeats, venues. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple, NoReturn

import orjson

from ibkr_depth_pipeline.errors import SchemaMismatch
from ibkr_depth_pipeline.schema.keys import STREAM_FIELDS


class Level(NamedTuple):
    """One row of a book. An empty one is `Level(0.0, 0.0, "")`.

    size is in the unit that the gateway was set to, lots or shares; venue is the market maker or venue that shows it.
    """

    price: float
    size: float
    venue: str


EMPTY_LEVEL = Level(0.0, 0.0, "")


class PriceLevel(NamedTuple):
    """All rows of one price: their sizes added up, and how many they are."""

    price: float
    size: float
    count: int  # type: ignore[assignment]  # in the place of tuple.count


class PriceLevels(NamedTuple):
    """Both sides by price, best first; as long as there are prices."""

    bids: tuple[PriceLevel, ...]
    asks: tuple[PriceLevel, ...]


@dataclass(frozen=True, slots=True)
class DepthSnapshot:
    """One symbol's book after one row of depth.

    ts is unix ms by the recorder's clock and never falls within a symbol; seq grows by exactly 1 for each snapshot of a
    symbol; venue is the one subscribed to. `bids` and `asks` are decoded when they are first asked for.

    subscription is the number of the interval that it belongs to; observed is False outside of all intervals. settled:
    the book was complete, and this is the last snapshot that one read of the socket brought; False for partial books
    and half-done moves. recv_ns is when the row was received, in unix ns. Each is None if it is not known.
    """

    symbol: str
    ts: int
    seq: int
    venue: str
    bids_json: bytes = field(repr=False)
    asks_json: bytes = field(repr=False)
    subscription: int | None = field(default=None, compare=False)
    observed: bool | None = field(default=None, compare=False)
    settled: bool | None = field(default=None, compare=False)
    recv_ns: int | None = field(default=None, compare=False)
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
        """None if the side is empty."""
        best = self.bids[0]
        return None if best == EMPTY_LEVEL else best

    @property
    def best_ask(self) -> Level | None:
        """None if the side is empty."""
        best = self.asks[0]
        return None if best == EMPTY_LEVEL else best

    def levels(self) -> PriceLevels:
        """The book by price: rows of one price, such as those of two market makers, are added up and counted."""
        return PriceLevels(_by_price(self.bids, highest_first=True), _by_price(self.asks, highest_first=False))

    @property
    def stream_id(self) -> str:
        """Its id in the stream, and the position to go on from: `AfterId(snapshot.stream_id)`."""
        return f"{self.ts}-{self.seq}"

    @property
    def time(self) -> datetime:
        """`ts` as an aware datetime in UTC."""
        return datetime.fromtimestamp(self.ts / 1000, timezone.utc)


def _by_price(rows: Sequence[Level], highest_first: bool) -> tuple[PriceLevel, ...]:
    sizes: dict[float, list[float]] = {}
    for row in rows:
        if row != EMPTY_LEVEL:
            sizes.setdefault(row.price, []).append(row.size)
    prices = sorted(sizes, reverse=highest_first)  # rows are out of order amid a price move
    return tuple(PriceLevel(price, sum(sizes[price]), len(sizes[price])) for price in prices)


def decode_side(text: bytes) -> tuple[Level, ...]:
    """The rows of one side's JSON."""
    return tuple(map(Level._make, orjson.loads(text)))


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A book that can be trusted: the unix ms of its last row, and the seconds that this is still good for."""

    last_row_ts: int
    ttl_secs: float


@dataclass(frozen=True, slots=True)
class VenueInfo:
    """Which venue is recorded, or why none is. `exchange` is empty if there is none, checked_ts unix ms."""

    symbol: str
    con_id: int
    exchange: str
    primary_exchange: str
    valid_exchanges: tuple[str, ...]
    depth_supported: bool
    reason: str
    checked_ts: int


_STREAM_FIELDS = list(STREAM_FIELDS)

RawEntry = Sequence[Any]
"""`[id, [name, value, name, value, ...]]`, as Redis sends it."""


def snapshot_of_entry(symbol: str, entry: RawEntry) -> DepthSnapshot:
    """A stream's entry. Raises SchemaMismatch if it is none of this schema."""
    stream_id, fields = entry
    try:
        recv_ns = None
        if fields[::2] == _STREAM_FIELDS:
            ts, bids, asks, seq, venue = fields[1::2]
        else:
            named = dict(zip(fields[::2], fields[1::2], strict=True))
            ts, bids, asks, seq, venue = (named[name] for name in STREAM_FIELDS)
            recv_ns = int(named[b"recv_ns"]) if b"recv_ns" in named else None
        return DepthSnapshot(symbol, int(ts), int(seq), venue.decode(), bids, asks, recv_ns=recv_ns)
    except (KeyError, ValueError, TypeError):
        _refuse(f"entry {_shown(stream_id)} of the stream of {symbol}")


def snapshot_of_hash(symbol: str, values: Sequence[Any]) -> DepthSnapshot | None:
    """The last-value hash, its LAST_FIELDS in that order; None if there is none."""
    if values[0] is None:
        return None
    ts, seq, venue, bids, asks = values
    try:
        return DepthSnapshot(symbol, int(ts), int(seq), venue.decode(), bids, asks)
    except (ValueError, TypeError, AttributeError):
        _refuse(f"the last-value hash of {symbol}")


def venue_of_hash(symbol: str, values: Sequence[Any]) -> VenueInfo | None:
    """The venue hash, its VENUE_FIELDS in that order; None if there is none."""
    if values[0] is None:
        return None
    try:
        con_id, exchange, primary, valid, supported, reason, checked = (value.decode() for value in values)
        exchanges = tuple(name for name in valid.split(",") if name)
        return VenueInfo(symbol, int(con_id), exchange, primary, exchanges, supported == "1", reason, int(checked))
    except (ValueError, AttributeError):
        _refuse(f"the venue hash of {symbol}")


def heartbeat_of(symbol: str, last_row_ts: bytes, ttl_ms: int) -> Heartbeat:
    """A heartbeat that stands. Raises SchemaMismatch if it holds no time."""
    try:
        return Heartbeat(int(last_row_ts), ttl_ms / 1000)
    except ValueError:
        _refuse(f"the heartbeat of {symbol}")


def _refuse(what: str) -> NoReturn:
    raise SchemaMismatch(f"{what} is not as docs/redis-schema.md says: somebody else writes it, or another version")


def _shown(stream_id: Any) -> str:
    return stream_id.decode(errors="replace") if isinstance(stream_id, bytes) else repr(stream_id)
