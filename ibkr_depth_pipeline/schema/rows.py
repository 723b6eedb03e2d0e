"""Rows of depth as Redis stores them, if rows are kept: one entry for each row that was applied. Pure.

An entry's id is that of the snapshot that the row led to. A book that the gateway emptied (317) is an entry as well, of
operation `reset`, so that each snapshot has its entry, and a book can be rebuilt from nothing else (book/rebuild.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

import orjson

from ibkr_depth_pipeline.errors import SchemaMismatch
from ibkr_depth_pipeline.schema.encoding import EntryPacker, bulk

ROW_FIELDS = ("recv_ns", "subscription", "seq", "operation", "side", "position", "price", "size", "mm")
"""The fields of an entry, in the order in which the recorder writes them."""

_NAMES = [name.encode() for name in ROW_FIELDS]


class RowOperation(str, Enum):
    """What a row did to its side of the book; a reset emptied both."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    RESET = "reset"


class StoredRow(NamedTuple):
    """One row of depth. ts and seq are those of the snapshot that it led to; recv_ns is unix ns of its socket read.

    side is "bid" or "ask", empty for a reset; position counts from 0 (best). A delete's price, size and mm are those
    that the gateway sent with it, often zeros. mm is the market maker, or the venue subscribed to if none was named.
    """

    symbol: str
    ts: int
    seq: int
    recv_ns: int
    subscription: int
    operation: RowOperation
    side: str
    position: int
    price: float
    size: float
    mm: str


def row_of_entry(symbol: str, entry: Sequence[Any]) -> StoredRow:
    """Reads an entry, `[id, [name, value, ...]]`. Raises SchemaMismatch if it is none of this schema."""
    stream_id, words = entry
    try:
        named = dict(zip(words[::2], words[1::2], strict=True))
        values = [named[name].decode() for name in _NAMES]
        recv_ns, subscription, seq, operation, side, position, price, size, mm = values
        ts = int(stream_id.partition(b"-")[0])
        return StoredRow(
            *(symbol, ts, int(seq), int(recv_ns), int(subscription), RowOperation(operation)),
            *(side, int(position), float(price), float(size), mm),
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        text = f"a row of {symbol} is not as docs/redis-schema.md says: somebody else writes it, or another version"
        raise SchemaMismatch(text) from None


def _field(name: str, value: bytes) -> bytes:
    return bulk(name.encode()) + bulk(value)


_OPERATIONS = {operation: _field("operation", operation.value.encode()) for operation in RowOperation}
_SIDES = {
    (is_bid, position): _field("side", b"bid" if is_bid else b"ask") + _field("position", b"%d" % position)
    for is_bid in (False, True)
    for position in range(100)
}
_NOTHING = b"".join(
    (_field("side", b""), _field("position", b"0"), _field("price", b"0.0"), _field("size", b"0.0"), _field("mm", b""))
)
_PRICE, _SIZE, _MM, _SEQ = (bulk(name) for name in (b"price", b"size", b"mm", b"seq"))


class RowPacker(EntryPacker):
    """Packs the XADDs of one symbol's stream of rows."""

    __slots__ = ()

    def __init__(self, key: str, maxlen: int) -> None:
        super().__init__(key, maxlen, fields=len(ROW_FIELDS))

    def pack_row(
        self, ts: int, seq: int, origin: bytes, operation: RowOperation, place: tuple[bool, int], text: bytes
    ) -> bytes:
        """One entry. origin: `origin_fields`; place: whether it is a bid, and its position; text: its level's JSON."""
        price, size, mm = text[1:-1].split(b",", 2)
        name = mm[1:-1] if b"\\" not in mm else orjson.loads(mm).encode()
        numbers = b"".join((_PRICE, bulk(price), _SIZE, bulk(size), _MM, bulk(name)))
        return self._packed(ts, seq, origin, _OPERATIONS[operation] + _SIDES[place] + numbers)

    def pack_reset(self, ts: int, seq: int, origin: bytes) -> bytes:
        """The entry of a book that was emptied."""
        return self._packed(ts, seq, origin, _OPERATIONS[RowOperation.RESET] + _NOTHING)

    def _packed(self, ts: int, seq: int, origin: bytes, rest: bytes) -> bytes:
        number = b"%d" % seq
        return b"".join((self.head(ts, number), number, b"\r\n", origin, _SEQ, bulk(number), rest))


def origin_fields(received: bytes, subscription: int) -> bytes:
    """The first two fields as Redis reads them; received: the field `recv_ns`, as in ReceiveStamp."""
    return received + _field("subscription", b"%d" % subscription)
