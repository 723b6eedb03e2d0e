"""When a symbol was observed: the record that each subscription leaves in Redis. Pure.

An ended interval is an entry of the stream of turns, whose id is `<unix ms of its end>-<subscription>`; the open one is
a hash with the same fields but `end`. docs/redis-schema.md is the contract of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ibkr_depth_pipeline.errors import SchemaMismatch


class EndReason(str, Enum):
    """Why an interval ended."""

    TURN_OVER = "turn_over"
    SLOT_REFUSED = "slot_refused"  # 309
    REFUSED = "refused"  # any other error before the first row
    ID_REJECTED = "id_rejected"  # 322
    HALTED = "halted"  # 316
    RESET = "reset"  # 317: the gateway emptied the book; the subscription goes on as the next interval
    CONNECTION_LOST = "connection_lost"  # the connection to the gateway
    IN_DOUBT = "in_doubt"  # after a report of trouble (1100, a farm), or silent while other lines were not
    OUT_OF_STEP = "out_of_step"  # the book contradicted itself, or rows did not fit it
    CONTRACT_CHANGED = "contract_changed"  # the symbol is another contract by now, or another venue's
    MARKET_CLOSED = "market_closed"
    STOPPED = "stopped"  # the run ended
    PROCESS_LOST = "process_lost"  # the run died; its successor closed the interval at the last stored row
    UNKNOWN = "unknown"  # a reason that this version does not know

    @classmethod
    def _missing_(cls, value: object) -> EndReason:
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class SubscriptionInterval:
    """One stretch in which a symbol's book was requested and, from `first_row` to `until`, observed.

    subscription grows by one per symbol, also across restarts. Moments are unix ms by the recorder's clock, None if
    there was none: `requested`; `first_row`, the `ts` of the first snapshot; `complete`, from when on the book held all
    that the gateway gives; `until`, the last moment at which the book was known to be live. first_seq and last_seq are
    the numbers of its snapshots, None without one; rows counts those that were applied. `end` is None while it is open.

    size_unit, size_fractional (1: yes), min_size, size_increment and server_version are those of SizeUnit, as known
    when it began. rows_requested is how many rows a side the gateway was asked for, rows_stored how many of them a
    snapshot shows.
    """

    symbol: str
    subscription: int
    venue: str
    con_id: int = 0
    local_symbol: str = ""
    requested: int = 0
    first_row: int | None = None
    complete: int | None = None
    until: int | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    rows: int = 0
    end: EndReason | None = None
    size_unit: str = ""
    size_fractional: int = 0
    min_size: float | None = None
    size_increment: float | None = None
    server_version: int = 0
    rows_requested: int = 0
    rows_stored: int = 0

    @property
    def open(self) -> bool:
        """Whether it goes on, as far as is known."""
        return self.end is None

    def observes(self, ts: int) -> bool:
        """Whether the book was observed at `ts`, from the first row on."""
        return self.first_row is not None and self.until is not None and self.first_row <= ts <= self.until

    def is_complete_at(self, ts: int) -> bool:
        """Whether the book was observed at `ts`, and held all that the gateway gives."""
        return self.complete is not None and ts >= self.complete and self.observes(ts)


_TEXTS = ("venue", "local_symbol", "size_unit")
_COUNTS = (
    "subscription",
    "con_id",
    "requested",
    "rows",
    "size_fractional",
    "server_version",
    "rows_requested",
    "rows_stored",
)
_MOMENTS = ("first_row", "complete", "until", "first_seq", "last_seq")
_SIZES = ("min_size", "size_increment")

INTERVAL_FIELDS = (
    *("subscription", "venue", "con_id", "local_symbol", "requested", "first_row", "complete", "until"),
    *(
        "first_seq",
        "last_seq",
        "rows",
        "end",
        "size_unit",
        "size_fractional",
        "min_size",
        "size_increment",
        "server_version",
    ),
    *("rows_requested", "rows_stored"),
)
"""The fields in the order in which the recorder writes them. Those that are None are left out."""


def encode_interval(interval: SubscriptionInterval) -> dict[str, str]:
    """The fields as they are stored, without those that are None."""
    values = ((name, getattr(interval, name)) for name in INTERVAL_FIELDS)
    return {name: _text(value) for name, value in values if value is not None}


def decode_interval(symbol: str, fields: Mapping[bytes, bytes] | Sequence[bytes]) -> SubscriptionInterval:
    """Reads the fields of an entry or of the hash: a mapping, or names and values in turn, as Redis sends them.

    Unknown fields are passed over. Raises SchemaMismatch if these are not the fields of an interval.
    """
    try:
        named = fields if isinstance(fields, Mapping) else dict(zip(fields[::2], fields[1::2], strict=True))
        found = {name: named[name.encode()].decode() for name in INTERVAL_FIELDS if name.encode() in named}
        values: dict[str, Any] = {name: found[name] for name in _TEXTS if name in found}
        values |= {name: int(found[name]) for name in (*_COUNTS, *_MOMENTS) if name in found}
        values |= {name: float(found[name]) for name in _SIZES if name in found}
        if "end" in found:
            values["end"] = EndReason(found["end"])
        return SubscriptionInterval(symbol, **values)
    except (TypeError, ValueError, AttributeError):
        text = f"a turn of {symbol} is not as docs/redis-schema.md says: somebody else writes it, or another version"
        raise SchemaMismatch(text) from None


def interval_of_entry(symbol: str, entry: Sequence[Any]) -> SubscriptionInterval:
    """Reads an entry of the stream of turns, `[id, [name, value, ...]]`. Raises SchemaMismatch if it is none."""
    return decode_interval(symbol, entry[1])


def _text(value: Any) -> str:
    return value.value if isinstance(value, EndReason) else str(value)
