"""The types that every part of the pipeline shares. Frozen, without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

SNAPSHOT_LEVELS = 10
"""Rows a side in every stored snapshot, for any number of rows requested from the gateway."""


class Side(Enum):
    """Side of the book a row belongs to."""

    ASK = "ask"
    BID = "bid"


class DepthOperation(Enum):
    """What a row does to its side: shift down, replace, shift up."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


class RowFault(Enum):
    """Why a row of market depth was dropped instead of applied."""

    UNREADABLE = "unreadable"
    UNKNOWN_OPERATION = "unknown_operation"
    UNKNOWN_SIDE = "unknown_side"
    NEGATIVE_POSITION = "negative_position"
    NOT_FINITE = "not_finite"
    PAST_REQUESTED = "past_requested"
    PAST_END = "past_end"
    RETIRED_REQUEST = "retired_request"


class DepthRow(NamedTuple):
    """One row of market depth as the gateway sent it; a tuple, since one is made for every row received.

    position counts from 0 (best). price is in the instrument's currency, size in the unit the gateway is set to
    (lots or shares). venue is the market maker or venue of the row, "" if the gateway names none.
    """

    operation: DepthOperation
    side: Side
    position: int
    price: float
    size: float
    venue: str


Level = tuple[float, float, str]
"""One row of a book: price, size, and the market maker or venue that shows it. A plain tuple: it is JSON as it is."""

EMPTY_LEVEL: Level = (0.0, 0.0, "")
"""A row of a stored snapshot that the book does not have."""

Levels = tuple[Level, ...]
"""One side of a book, best first."""


@dataclass(frozen=True, slots=True)
class ContractHours:
    """The hours of a contract as the gateway writes them, see hours/instruments.py; empty if it lists none."""

    trading: str = ""
    liquid: str = ""
    time_zone: str = ""


@dataclass(frozen=True, slots=True)
class Instrument:
    """A symbol resolved to one concrete venue that the gateway sends market depth for (never SMART).

    valid_exchanges are the gateway's names in its own order; `exchange` is the one to request. alternatives are the
    other venues with market depth, best first; none if the operator named the venue. `symbol` is the name that the
    universe records it under. expiry is the last trade date, YYYYMMDD, or empty. At rolls_at, unix seconds, another
    contract takes its place. passed_over names other contracts that matched, for the log. min_size and size_increment
    are of its sizes, None if not known.
    """

    symbol: str
    con_id: int
    sec_type: str
    currency: str
    exchange: str
    primary_exchange: str
    valid_exchanges: tuple[str, ...] = ()
    local_symbol: str = ""
    trading_class: str = ""
    expiry: str = ""
    alternatives: tuple[str, ...] = field(default=(), compare=False)
    rolls_at: float | None = field(default=None, compare=False)
    passed_over: str = field(default="", compare=False)
    hours: ContractHours = field(default=ContractHours(), compare=False)
    min_size: float | None = field(default=None, compare=False)
    size_increment: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A symbol that can't be recorded now, and why, in words for an operator."""

    symbol: str
    reason: str
    con_id: int = 0
    exchange: str = ""
    primary_exchange: str = ""
    valid_exchanges: tuple[str, ...] = ()


# ---- errors of a depth request that the gateway reports and the rotation handles


@dataclass(frozen=True, slots=True)
class SlotRefused:
    """No slot is free: the request holds none and must not be cancelled (309, 101)."""

    request: int
    text: str = ""
    code: int = 309


@dataclass(frozen=True, slots=True)
class RequestIdRejected:
    """The gateway takes the request id for one in use: subscribe again under a new one (322)."""

    request: int
