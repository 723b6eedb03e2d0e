"""The events of a gateway, one type each, and TWS's error code -> event, as a table. Pure.

Numeric codes of TWS decide nothing outside this package. Codes are matched, never texts: the texts differ between
versions of TWS. docs/ibkr-market-depth.md, "Error codes", has the meaning and the source of each. A code that is not in
the table refuses the request that it names (`DepthRefused`): dozens of codes do, and no list is complete. The caller
knows whether the request has had rows, so that the error is advice and the subscription goes on.

A `request` is the id of one of our own depth requests; ids are never used twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ibkr_depth_pipeline.model import DepthOperation, DepthRow, RowFault
from ibkr_depth_pipeline.model import RequestIdRejected as RequestIdRejected
from ibkr_depth_pipeline.model import SlotRefused as SlotRefused


@dataclass(frozen=True, slots=True)
class RowReceived:
    """A row of market depth of a request."""

    request: int
    row: DepthRow


@dataclass(frozen=True, slots=True)
class RowUnreadable:
    """A depth message without a valid row: missing fields, no numbers, an unknown side or operation.

    operation is that of the row; None if it can't be read.
    """

    request: int
    fault: RowFault
    fields: tuple[str, ...]
    operation: DepthOperation | None = None


@dataclass(frozen=True, slots=True)
class MessageUnreadable:
    """A message other than market depth that can't be decoded; its first fields."""

    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BookReset:
    """The gateway has discarded its book: empty ours, keep the subscription (317)."""

    request: int


@dataclass(frozen=True, slots=True)
class DepthHalted:
    """The subscription is dead: subscribe again (316)."""

    request: int


REFUSALS = frozenset({200, 321, 354, 10089, 10090, 10091, 10092, 10168, 10186})
"""Codes that are documented to refuse a request; others are treated alike."""

OF_ORDERS_AND_HISTORY = frozenset({165, 202, 399, 404, 434, 492, 10148})
"""Codes of orders and historical data. What they mean where they name a depth request, only its rows tell."""

_ADVISORY = frozenset({10089, 10090, 10091}) | OF_ORDERS_AND_HISTORY
"""Codes that refuse a request, or come as advice about a subscription that goes on."""

_BAD_REQUEST = frozenset({320, 321})
"""Codes of an invalid request, which is invalid at every venue."""

_CONTRACT_GONE = frozenset({200, 478, 10092})


@dataclass(frozen=True, slots=True)
class DepthRefused:
    """The gateway denies depth of this contract: 200, 354, 10089, 10092 and any code with no other meaning.

    For a request that has had rows it is advice: the subscription may go on.
    """

    request: int
    code: int
    text: str

    @property
    def is_advisory(self) -> bool:
        """Whether rows may still come, so that they are worth waiting for."""
        return self.code in _ADVISORY

    @property
    def is_listed(self) -> bool:
        """Whether the code is documented to refuse requests."""
        return self.code in REFUSALS

    @property
    def concerns_venue(self) -> bool:
        """Whether another venue of the contract may grant what this one refuses."""
        return self.code not in _BAD_REQUEST

    @property
    def concerns_contract(self) -> bool:
        """Whether the contract may have expired, or its venue may have another name by now."""
        return self.code in _CONTRACT_GONE

    @property
    def reason(self) -> str:
        """`code: text`, for an operator."""
        return f"{self.code}: {self.text}"


@dataclass(frozen=True, slots=True)
class CancelRejected:
    """There is no such subscription to cancel, so it holds no slot (310)."""

    request: int
    code: int = 310


@dataclass(frozen=True, slots=True)
class ConnectivityLost:
    """The gateway lost IBKR's servers; the socket is fine (1100)."""

    text: str


@dataclass(frozen=True, slots=True)
class ConnectivityRestored:
    """The gateway is connected to IBKR's servers again; data_lost: subscriptions are gone (1101, else 1102)."""

    data_lost: bool
    text: str


@dataclass(frozen=True, slots=True)
class SocketPortReset:
    """The gateway has changed its port: reconnect (1300)."""

    text: str


@dataclass(frozen=True, slots=True)
class FarmStatus:
    """A data farm is connected, broken or inactive (21xx), or a competing session stops the data (10197)."""

    healthy: bool
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class PacingViolation:
    """The clients of the account sent too many messages a second (100), so that some of ours may be lost.

    slowed_to is the rate in force from now on, in messages a second; None if it was not lowered.
    """

    text: str
    slowed_to: float | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Any other message of the gateway. request is None if it names no request."""

    request: int | None
    code: int
    text: str

    @property
    def names_permissions(self) -> bool:
        """Whether it lists the market data permissions of the account (2152)."""
        return self.code == 2152


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The connection is closed or broken."""

    text: str


GatewayEvent = (
    RowReceived
    | RowUnreadable
    | MessageUnreadable
    | BookReset
    | DepthHalted
    | SlotRefused
    | DepthRefused
    | RequestIdRejected
    | CancelRejected
    | ConnectivityLost
    | ConnectivityRestored
    | SocketPortReset
    | FarmStatus
    | PacingViolation
    | Notice
    | ConnectionLost
)


# ---- error codes


CLIENT_ID_IN_USE = 326
DUPLICATE_REQUEST = 322
PACING = 100
READ_ONLY = 321
UNKNOWN_CONTRACT = 200
NO_REQUEST = -1

_TRANSIENT = frozenset({322, 502, 503})
"""Codes that may answer a query for contract details without concerning the contract, besides the session's."""

_EventOf = Callable[[int, int, str], GatewayEvent]
"""Request, code and text of an error message -> its event."""


def _no_slot(request: int, code: int, text: str) -> GatewayEvent:
    return SlotRefused(request, text, code)


def _no_such_subscription(request: int, code: int, text: str) -> GatewayEvent:
    return CancelRejected(request, code)


def _healthy(request: int, code: int, text: str) -> GatewayEvent:
    return FarmStatus(True, code, text)


def _degraded(request: int, code: int, text: str) -> GatewayEvent:
    return FarmStatus(False, code, text)


_OF_A_REQUEST: dict[int, _EventOf] = {
    101: _no_slot,
    300: _no_such_subscription,
    309: _no_slot,
    310: _no_such_subscription,
    316: lambda request, code, text: DepthHalted(request),
    317: lambda request, code, text: BookReset(request),
    322: lambda request, code, text: RequestIdRejected(request),
}

_OF_THE_SESSION: dict[int, _EventOf] = {
    100: lambda request, code, text: PacingViolation(text),
    504: lambda request, code, text: ConnectionLost(f"{code}: {text}"),
    1100: lambda request, code, text: ConnectivityLost(text),
    1101: lambda request, code, text: ConnectivityRestored(True, text),
    1102: lambda request, code, text: ConnectivityRestored(False, text),
    1300: lambda request, code, text: SocketPortReset(text),
    2103: _degraded,
    2104: _healthy,
    2105: _degraded,
    2106: _healthy,
    2108: _degraded,
    2110: _degraded,
    2157: _degraded,
    2158: _healthy,
    10197: _degraded,
}

_NOTICES = OF_ORDERS_AND_HISTORY | {10167}

_WARNINGS = range(2100, 2170)
"""IBKR's range of warnings. Those of the farms are in the table above; the rest, such as 2152, are notices."""


def event_of(request: int, code: int, text: str) -> GatewayEvent:
    """The event of error message `code`. `request` is NO_REQUEST if the message names none."""
    if code in _OF_THE_SESSION:
        return _OF_THE_SESSION[code](request, code, text)
    if request == NO_REQUEST or (is_notice(code) and code not in OF_ORDERS_AND_HISTORY):
        return Notice(None if request == NO_REQUEST else request, code, text)
    return _OF_A_REQUEST.get(code, DepthRefused)(request, code, text)


def is_about_the_session(code: int) -> bool:
    """Whether the code concerns the gateway's state, with or without a request id."""
    return code in _OF_THE_SESSION


def is_notice(code: int) -> bool:
    """Whether the code is a notice, which refuses nothing, unless it names a depth request that stays silent."""
    return code not in _OF_THE_SESSION and (code in _NOTICES or code in _WARNINGS)


def is_transient(code: int) -> bool:
    """Whether an error that answers a query for contract details does not concern the contract: ask again."""
    return code in _TRANSIENT
