"""Rows and frames that no client should trip over, by name. Pure."""

import struct
from collections.abc import Callable, Mapping

from ibkr_depth_pipeline.simulation.codec import frame, message

RawRow = Mapping[str, str]
"""A depth row as texts: position, operation, side, price, size, market_maker."""

_SOUND: dict[str, str] = {
    "position": "0",
    "operation": "1",
    "side": "1",
    "price": "1.0",
    "size": "100",
    "market_maker": "BAD",
}


def raw_row(**fields: object) -> dict[str, str]:
    """A sound update of the best bid with some fields replaced. Raises TypeError for a field that no row has."""
    unknown = fields.keys() - _SOUND.keys()
    if unknown:
        raise TypeError(f"a depth row has no {', '.join(sorted(unknown))}; it has {', '.join(_SOUND)}")
    return {**_SOUND, **{name: str(value) for name, value in fields.items()}}


MALFORMED_ROWS: Mapping[str, RawRow] = {
    "insert_past_end": raw_row(position=500, operation=0),
    "update_past_end": raw_row(position=500),
    "delete_past_end": raw_row(position=500, operation=2, price=0, size=0),
    "negative_position": raw_row(position=-1),
    "negative_position_insert": raw_row(position=-1, operation=0),
    "negative_position_delete": raw_row(position=-1, operation=2),
    "huge_position": raw_row(position=2147483647),
    "position_not_a_number": raw_row(position="x"),
    "unknown_operation": raw_row(operation=3),
    "negative_operation": raw_row(operation=-1),
    "unknown_side": raw_row(side=2),
    "negative_side": raw_row(side=-1),
    "price_nan": raw_row(price="nan"),
    "price_infinite": raw_row(price="inf"),
    "price_minus_infinite": raw_row(price="-inf"),
    "price_overflow": raw_row(price="1e999"),
    "price_not_a_number": raw_row(price="abc"),
    "size_nan": raw_row(size="nan"),
    "size_infinite": raw_row(size="inf"),
    "size_not_a_number": raw_row(size="abc"),
}
"""None of these may change a book. A book of fewer than 500 rows a side is taken for granted."""

_NO_VALUE = {
    "decimal": "170141183460469231731687303715884105727",
    "long": "9223372036854775807",
    "lowest_long": "-9223372036854775808",
    "double": "1.7976931348623157E308",
}
"""The protocol's words for "no value"; 2147483647 may be a size."""

_NUMBERS = ("position", "operation", "side", "price", "size")

UNREADABLE_ROWS: Mapping[str, RawRow] = {
    "latin1_name": {"market_maker": "M\xdcLL"},
    "bad_size": {"size": "abc"},
    "bad_price": {"price": "abc"},
    "bad_position": {"position": "x"},
    "empty_size": {"size": ""},
    "empty_price": {"price": ""},
    **{f"unset_{name}_{kind}": {name: text} for name in _NUMBERS for kind, text in _NO_VALUE.items()},
    "unset_size": {"size": _NO_VALUE["decimal"]},
    "unset_price": {"price": _NO_VALUE["double"]},
    "unset_position": {"position": _NO_VALUE["decimal"]},
    "unset_operation": {"operation": _NO_VALUE["long"]},
    "unset_side": {"side": _NO_VALUE["long"]},
}
"""Fields that spoil a row of the book, by name. `latin1_name` is sent in Latin-1 and is to be read all the same."""

ROW_KINDS: Mapping[str, RawRow] = {
    **MALFORMED_ROWS,
    **{how: raw_row(**fields) for how, fields in UNREADABLE_ROWS.items() if how != "latin1_name"},
}

_BROKEN_TEXT = b"13\x001\0%d\x00400\0\xff\xfe\xfd\x001\x001\x001.0\x00100\x000\0"
_BROKEN_NUMBER = b"12\x001\0%d\x000\x001\x001\0\xc3\x28\x00100\0"
_UNTERMINATED = b"12\x001\0%d\x000\x001\x001\x001.0\x00100"

BAD_FRAMES: Mapping[str, Callable[[int], bytes]] = {
    "absurd_length": lambda request_id: struct.pack(">I", 0x7FFFFFFF),
    "broken_utf8": lambda request_id: frame(_BROKEN_TEXT % request_id),
    "broken_utf8_number": lambda request_id: frame(_BROKEN_NUMBER % request_id),
    "too_few_fields": lambda request_id: message(12, 1, request_id, 0),
    "no_fields": lambda request_id: frame(b""),
    "no_message_id": lambda request_id: message("", 1, request_id),
    "message_id_not_a_number": lambda request_id: message("depth", 1, request_id),
    "unknown_message_id": lambda request_id: message(9999, 1, request_id),
    "unterminated": lambda request_id: frame(_UNTERMINATED % request_id),
}
"""Frames by name, made for a live request id. `absurd_length` breaks the stream for good: it costs the connection."""
