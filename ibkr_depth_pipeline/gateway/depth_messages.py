"""The two depth messages of the protocol, 12 (updateMktDepth) and 13 (updateMktDepthL2), from their bytes. Pure.

They are nearly all of what a gateway sends, so they don't go through ib_insync's decoder; and a row that is no row must
be counted here instead of raised and lost there.
"""

from __future__ import annotations

import sys

from ibkr_depth_pipeline.gateway.events import RowUnreadable
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, RowFault, Side

ROW = b"12\0"
ROW_OF_MARKET_MAKER = b"13\0"
"""How the two messages begin."""

UNSET = sys.float_info.max
"""1.7976931348623157E308: how the protocol writes a number that there is none of."""

NO_VALUE = frozenset({UNSET, float(2**127 - 1), float(2**63 - 1), float(-(2**63))})
"""That, and the same of decimals and of long integers, whatever their spelling (ibapi, common.py and decoder.py). The
unset int, 2147483647, is not among them: it may be a size."""

_OPERATIONS = {"0": DepthOperation.INSERT, "1": DepthOperation.UPDATE, "2": DepthOperation.DELETE}
_SIDES = {"0": Side.ASK, "1": Side.BID}

# 12: id, version, request, position, operation, side, price, size
# 13: id, version, request, position, market maker, operation, side, price, size, and from some version on: smart
_FIELDS_OF_ROW = 8
_FIELDS_OF_MARKET_MAKERS_ROW = 9


def read_depth(message: bytes) -> tuple[int, DepthRow] | RowUnreadable:
    """The request and the row of a whole message, or what is wrong with it. Never raises.

    A name need not be UTF-8: what can't be decoded in it is replaced, as the row is the book's all the same.

    The row's numbers are read, not judged: nan, a negative position and the like are the book's to refuse. A delete has
    neither price nor size, whatever stands there: a level that is gone must not stay for want of a number.
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
    except ValueError:  # too few fields, or no number
        return _unreadable(fields, RowFault.UNREADABLE)


def _unreadable(fields: list[str], fault: RowFault) -> RowUnreadable:
    return RowUnreadable(_request_of(fields), fault, tuple(fields), _operation_of(fields))


def _operation_of(fields: list[str]) -> DepthOperation | None:
    at = 5 if fields[0] == "13" else 4
    return _OPERATIONS.get(fields[at]) if len(fields) > at else None


def _plain(number: str) -> str:
    """The same. Raises ValueError for what Python may read as a number, and is none on the wire: 1_0."""
    if "_" in number or not number.isascii():
        raise ValueError(number)
    return number


def _request_of(fields: list[str]) -> int:
    """The request that a broken message speaks of; 0 where that can't be told."""
    request = fields[2] if len(fields) > 2 else ""
    return int(request) if request.isascii() and request.isdigit() and len(request) < 10 else 0
