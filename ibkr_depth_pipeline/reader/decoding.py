"""Redis' raw replies -> the reader's types. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from ibkr_depth_pipeline.errors import SchemaMismatch
from ibkr_depth_pipeline.reader.model import DepthSnapshot, Heartbeat, VenueInfo

LAST_FIELDS = ("ts", "seq", "venue", "bids_json", "asks_json")
VENUE_FIELDS = (
    "con_id",
    "exchange",
    "primary_exchange",
    "valid_exchanges",
    "depth_supported",
    "reason",
    "checked_ts",
)

_STREAM_FIELDS = [b"ts", b"bids", b"asks", b"seq", b"venue"]  # in the order in which the recorder writes them

RawEntry = Sequence[Any]
"""`[id, [name, value, name, value, ...]]`, as Redis sends it."""


def snapshot_of_entry(symbol: str, entry: RawEntry) -> DepthSnapshot:
    """A stream's entry. Raises SchemaMismatch where it is none of this schema."""
    stream_id, fields = entry
    try:
        if fields[::2] == _STREAM_FIELDS:
            ts, bids, asks, seq, venue = fields[1::2]
        else:
            named = dict(zip(fields[::2], fields[1::2], strict=True))
            ts, bids, asks, seq, venue = (named[name] for name in _STREAM_FIELDS)
        return DepthSnapshot(symbol, int(ts), int(seq), venue.decode(), bids, asks)
    except (KeyError, ValueError, TypeError):
        _refuse(f"entry {_shown(stream_id)} of the stream of {symbol}")


def snapshot_of_hash(symbol: str, values: Sequence[Any]) -> DepthSnapshot | None:
    """The last-value hash, its LAST_FIELDS in that order; None where there is none."""
    if values[0] is None:
        return None
    ts, seq, venue, bids, asks = values
    try:
        return DepthSnapshot(symbol, int(ts), int(seq), venue.decode(), bids, asks)
    except (ValueError, TypeError, AttributeError):
        _refuse(f"the last-value hash of {symbol}")


def venue_of_hash(symbol: str, values: Sequence[Any]) -> VenueInfo | None:
    """The venue hash, its VENUE_FIELDS in that order; None where there is none."""
    if values[0] is None:
        return None
    try:
        con_id, exchange, primary, valid, supported, reason, checked = (value.decode() for value in values)
        exchanges = tuple(name for name in valid.split(",") if name)
        return VenueInfo(symbol, int(con_id), exchange, primary, exchanges, supported == "1", reason, int(checked))
    except (ValueError, AttributeError):
        _refuse(f"the venue hash of {symbol}")


def heartbeat_of(symbol: str, last_row_ts: bytes, ttl_ms: int) -> Heartbeat:
    """A heartbeat that stands. Raises SchemaMismatch where it holds no time."""
    try:
        return Heartbeat(int(last_row_ts), ttl_ms / 1000)
    except ValueError:
        _refuse(f"the heartbeat of {symbol}")


def parts_of_id(stream_id: str) -> tuple[int, int]:
    """The ts and the seq of `<ts>-<seq>`. Raises ValueError where it is no such id."""
    ts, dash, seq = stream_id.partition("-")
    if not (dash and ts.isdecimal() and seq.isdecimal()):
        raise ValueError(f"{stream_id!r} is no stream id: it has the form <ts>-<seq>, such as 1700000000000-42")
    return int(ts), int(seq)


def _refuse(what: str) -> NoReturn:
    raise SchemaMismatch(f"{what} is not as docs/redis-schema.md says: somebody else writes it, or another version")


def _shown(stream_id: Any) -> str:
    return stream_id.decode(errors="replace") if isinstance(stream_id, bytes) else repr(stream_id)
