"""Bytes of the TWS socket -> whole messages, and the two depth messages -> rows. Pure.

docs/ibkr-market-depth.md, "Wire protocol": a message is a 4-byte big-endian length and that many bytes, its fields each
ended by NUL. Messages 12 (updateMktDepth) and 13 (updateMktDepthL2) are nearly all that a gateway sends, so they bypass
ib_insync's decoder; and a row that can't be read is counted here, whereas that decoder raises and drops it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ibkr_depth_pipeline.errors import GatewayProtocolError
from ibkr_depth_pipeline.gateway.events import RowUnreadable
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, RowFault, Side

PREFIX_BYTES = 4

LARGEST_MESSAGE_BYTES = 0xFFFFFF
"""The largest message that IBKR's own client takes (ibapi, common.py: MAX_MSG_LEN)."""

ROW = b"12\0"
ROW_OF_MARKET_MAKER = b"13\0"
"""How the two depth messages begin."""

UNSET = sys.float_info.max
"""1.7976931348623157E308: how the protocol writes "no value" for a float."""

NO_VALUE = frozenset({UNSET, float(2**127 - 1), float(2**63 - 1), float(-(2**63))})
"""UNSET and its counterparts for decimals and long integers, in any spelling (ibapi, common.py and decoder.py).
The unset int, 2147483647, is not among them: it may be a size."""

_OPERATIONS = {"0": DepthOperation.INSERT, "1": DepthOperation.UPDATE, "2": DepthOperation.DELETE}
_SIDES = {"0": Side.ASK, "1": Side.BID}

# 12: id, version, request, position, operation, side, price, size
# 13: id, version, request, position, market maker, operation, side, price, size, and from some version on: smart
_FIELDS_OF_ROW = 8
_FIELDS_OF_MARKET_MAKERS_ROW = 9


class FrameSplitter:
    """Splits the bytes of one connection into messages; holds at most one unfinished message.

    ib_insync's own splitting copies the rest of its buffer for every message, buffers any length that a broken frame
    announces, and fails on an empty frame. This one copies each byte at most twice and bounds the message's length.
    """

    def __init__(self, largest: int = LARGEST_MESSAGE_BYTES) -> None:
        self._largest = largest
        self._pending = bytearray()
        self._needed = PREFIX_BYTES  # pending bytes below which no message can be complete

    @property
    def pending(self) -> int:
        """Number of bytes received of the unfinished message."""
        return len(self._pending)

    def unfinished(self) -> bytes:
        """What was received of the unfinished message, its prefix included."""
        return bytes(self._pending)

    def whole(self, data: bytes) -> bytes | None:
        """The message that `data` is, if it is exactly one: a lone row. None: it is for `split`."""
        body = len(data) - PREFIX_BYTES
        if self._pending or not 0 <= body <= self._largest or int.from_bytes(data[:PREFIX_BYTES], "big") != body:
            return None
        return data[PREFIX_BYTES:]

    def split(self, data: bytes) -> Iterator[bytes]:
        """Yields the messages that `data` completes, in order, without prefixes. Exhaust it before the next call.

        Raises GatewayProtocolError, after the messages before it, for one that is longer than allowed: the stream can't
        be resynchronized, and the splitter must not be used again.
        """
        if self._pending:
            self._pending += data
            if len(self._pending) < self._needed:
                return
            data = bytes(self._pending)
            self._pending.clear()
        start, end = 0, len(data)
        self._needed = PREFIX_BYTES
        while end - start >= PREFIX_BYTES:
            body = start + PREFIX_BYTES
            stop = body + int.from_bytes(data[start:body], "big")
            if stop - body > self._largest:
                raise GatewayProtocolError(f"a message of {stop - body} bytes; at most {self._largest} are taken")
            if stop > end:
                self._needed = stop - start
                break
            yield data[body:stop]
            start = stop
        self._pending += data[start:]


def read_depth(message: bytes) -> tuple[int, DepthRow] | RowUnreadable:
    """The request id and the row of a whole depth message, or what is wrong with it. Never raises.

    Bytes of a market maker's name that are not UTF-8 are replaced: the row still belongs in the book. Numbers are read
    and not judged: nan, a negative position and the like are for the book to refuse. Price and size of a delete are
    ignored, so that a missing number can't keep a deleted level.
    """
    fields = message.decode(errors="replace").split("\0")
    if fields.pop():
        return _unreadable(fields, RowFault.UNREADABLE)
    return _read(fields)


def _read(fields: list[str]) -> tuple[int, DepthRow] | RowUnreadable:
    has_market_maker = fields[0] == "13"
    try:
        if has_market_maker:
            _, _, request, position, venue, operation, side, price, size = fields[:_FIELDS_OF_MARKET_MAKERS_ROW]
        else:
            _, _, request, position, operation, side, price, size = fields[:_FIELDS_OF_ROW]
            venue = ""
        change, of = _OPERATIONS[operation], _SIDES[side]
        is_delete = change is DepthOperation.DELETE
        numbers = (0.0, 0.0) if is_delete else (float(_plain(price)), float(_plain(size)))
        if not NO_VALUE.isdisjoint(numbers):
            return _unreadable(fields, RowFault.NOT_FINITE)
        return int(_plain(request)), DepthRow(change, of, int(_plain(position)), *numbers, venue)
    except KeyError:
        fault = RowFault.UNKNOWN_OPERATION if _operation_of(fields) is None else RowFault.UNKNOWN_SIDE
        return _unreadable(fields, fault)
    except ValueError:  # too few fields, or not a number
        return _unreadable(fields, RowFault.UNREADABLE)


def _unreadable(fields: list[str], fault: RowFault) -> RowUnreadable:
    return RowUnreadable(_request_of(fields), fault, tuple(fields), _operation_of(fields))


def _operation_of(fields: list[str]) -> DepthOperation | None:
    at = 5 if fields[0] == "13" else 4
    return _OPERATIONS.get(fields[at]) if len(fields) > at else None


def _plain(number: str) -> str:
    """`number`, unchanged. Raises ValueError for spellings that Python reads and TWS never writes, such as 1_0."""
    if "_" in number or not number.isascii():
        raise ValueError(number)
    return number


def _request_of(fields: list[str]) -> int:
    """The request id of a broken message; 0 if it can't be read."""
    request = fields[2] if len(fields) > 2 else ""
    return int(request) if request.isascii() and request.isdigit() and len(request) < 10 else 0
