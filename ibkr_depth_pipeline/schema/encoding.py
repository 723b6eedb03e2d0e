"""Snapshots -> what Redis stores. Pure.

A stream id is `<ts>-<seq>`: it grows with each snapshot of a symbol, so a write whose answer was lost can be repeated
and Redis itself refuses what it already holds; and a reader can ask for a range by time.

A snapshot is packed once, as the XADD that Redis reads, and waits as those bytes: one object for each, which the
garbage collector need not visit, and nothing is left to do when it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from ibkr_depth_pipeline.model import EMPTY_LEVEL, SNAPSHOT_LEVELS, Instrument, Level, Levels, Unresolved
from ibkr_depth_pipeline.schema.keys import StreamId

# ---- texts


def bulk(text: bytes) -> bytes:
    """`text` as Redis reads it: its length, then itself."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


def json_text(value: Any) -> bytes:
    """JSON. Copied, since orjson's own bytes keep the 4 KiB that it wrote into: fifteen times what is stored."""
    return bytes(memoryview(orjson.dumps(value)))


_EMPTY_ROW = json_text(EMPTY_LEVEL)
_FILL = [b",".join([b""] * (held > 0) + [_EMPTY_ROW] * (SNAPSHOT_LEVELS - held)) for held in range(SNAPSHOT_LEVELS)]
_FILL.append(b"")
"""What follows so many rows: empty ones up to ten, behind a comma if there is a row before them."""


def encode_side(rows: Sequence[bytes], levels_shown: int) -> bytes:
    """A side, whose rows are JSON texts, best first, as JSON of exactly ten rows, and that as Redis reads it.

    levels_shown is how many rows are stored at most; the rest of the ten are empty rows.
    """
    shown = rows[:levels_shown]
    text, fill = b",".join(shown), _FILL[len(shown)]
    return b"$%d\r\n[%b%b]\r\n" % (len(text) + len(fill) + 2, text, fill)


def level_text(level: Level) -> bytes:
    """The JSON text of one row."""
    return json_text(level)


def read_levels(rows: Sequence[bytes]) -> Levels:
    """The rows that these texts are."""
    return tuple((price, size, venue) for price, size, venue in orjson.loads(b"[%b]" % b",".join(rows)))


EMPTY_SIDE = encode_side((), SNAPSHOT_LEVELS)
"""A side without a row, as `encode_side` gives it."""

_EMPTY_JSON = EMPTY_SIDE.split(b"\r\n")[1]


# ---- stream entries


class EntryPacker:
    """Packs the XADDs of one stream, whose approximate length is to be `maxlen`. fields: how many an entry has."""

    __slots__ = ("_digits", "_head", "_prefix", "_seq", "_time", "_ts", "key")

    def __init__(self, key: str, maxlen: int, fields: int = 5) -> None:
        words = (b"XADD", key.encode(), b"MAXLEN", b"~", b"%d" % maxlen)
        self.key = key
        self._prefix = b"*%d\r\n" % (len(words) + 1 + 2 * fields) + b"".join(map(bulk, words)) + b"$"
        self._ts = self._digits = -1
        self._head = self._time = self._seq = b""

    def pack(self, ts: int, seq: int, venue: bytes, bids: bytes, asks: bytes) -> bytes:
        """One entry: ts is unix ms; venue, bids and asks are texts as Redis reads them (`bulk`, `encode_side`)."""
        number = b"%d" % seq
        if ts != self._ts or len(number) != self._digits:
            self._renew(ts, len(number))
        return b"".join(
            (self._head, number, self._time, bids, b"$4\r\nasks\r\n", asks, self._seq, number, b"\r\n", venue)
        )

    def head(self, ts: int, number: bytes) -> bytes:
        """What stands before the number in the id of an entry of unix ms ts."""
        if ts != self._ts or len(number) != self._digits:
            self._renew(ts, len(number))
        return self._head

    def _renew(self, ts: int, digits: int) -> None:
        """What is the same for all entries of one millisecond, as long as their numbers are as long."""
        text = b"%d" % ts
        self._ts, self._digits = ts, digits
        self._head = b"%b%d\r\n%b-" % (self._prefix, len(text) + 1 + digits, text)
        self._time = b"\r\n%b%b%b" % (bulk(b"ts"), bulk(text), bulk(b"bids"))
        self._seq = b"%b$%d\r\n" % (bulk(b"seq"), digits)

    def position(self, entry: bytes) -> StreamId:
        """The id of a packed entry of this stream."""
        start = entry.index(b"\r\n", len(self._prefix)) + 2
        return StreamId.of(entry[start : entry.index(b"\r\n", start)])


class StampedPacker(EntryPacker):
    """Packs snapshots with a sixth field, `stamp.field`: when the socket was read that brought the row."""

    __slots__ = ("_stamp",)

    def __init__(self, key: str, maxlen: int, stamp: ReceiveStamp) -> None:
        super().__init__(key, maxlen, fields=6)
        self._stamp = stamp

    def pack(self, ts: int, seq: int, venue: bytes, bids: bytes, asks: bytes) -> bytes:
        return super().pack(ts, seq, venue + self._stamp.field, bids, asks)


class ReceiveStamp:
    """The moment of the newest read of the gateway's socket, shared by all that it brought."""

    __slots__ = ("field",)

    def __init__(self) -> None:
        self.field = recv_field(0)

    def read(self, unix_ns: int) -> None:
        """The socket is read, now."""
        self.field = recv_field(unix_ns)


def recv_field(unix_ns: int) -> bytes:
    """The field `recv_ns`, unix nanoseconds, as Redis reads it."""
    return bulk(b"recv_ns") + bulk(b"%d" % unix_ns)


def venue_field(venue: str) -> bytes:
    """The last field of an entry, as Redis reads it."""
    return bulk(b"venue") + bulk(venue.encode())


class LastValue(NamedTuple):
    """What the last-value hash holds of a stream entry. `live`: the book holds a row."""

    ts: int
    seq: int
    live: bool
    fields: tuple[bytes, ...]

    @classmethod
    def of_entry(cls, entry: bytes) -> LastValue:
        """Read a packed entry: by lines, since neither a key nor JSON holds a line break."""
        _, _, _, _, _, _, _, ts, _, bids, _, asks, _, seq, _, venue, *_ = entry.split(b"\r\n")[2::2]
        fields = (
            *(b"ts", ts, b"bid0", _best_price(bids), b"ask0", _best_price(asks)),
            *(b"bids_json", bids, b"asks_json", asks, b"venue", venue, b"seq", seq),
        )
        return cls(int(ts), int(seq), not bids == asks == _EMPTY_JSON, fields)


def _best_price(side: bytes) -> bytes:
    return side[2 : side.index(b",")]  # [[150.25,300.0,"NSDQ"],...


def venue_fields(
    resolution: Instrument | Unresolved, checked_ts: int, reason: str = "", refused_venues: str | None = None
) -> dict[Any, Any]:
    """The fields of the venue hash. An Instrument with a `reason` is one that the gateway refused depth for.

    refused_venues: better venues of the contract that refused, in words; None leaves that field as it is.
    """
    if isinstance(resolution, Unresolved):
        reason = resolution.reason or "unknown"
    fields: dict[Any, Any] = {
        "con_id": resolution.con_id,
        "exchange": resolution.exchange,
        "primary_exchange": resolution.primary_exchange,
        "valid_exchanges": ",".join(resolution.valid_exchanges),
        "depth_supported": 0 if reason else 1,
        "reason": reason,
        "checked_ts": checked_ts,
    }
    if isinstance(resolution, Instrument) and resolution.local_symbol:
        fields |= {"local_symbol": resolution.local_symbol, "expiry": resolution.expiry}
    return fields if refused_venues is None else fields | {"refused_venues": refused_venues}
