"""TWS error code -> event, as a table. Codes are matched, never texts: the texts differ between versions of TWS.

docs/ibkr-market-depth.md, "Error codes", has the meaning and the source of each. A code that is not in the table
refuses the request that it names (`DepthRefused`): dozens of codes do, and no list is complete. The caller knows
whether the request has had rows, so that the error is advice and the subscription goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from ibkr_depth_pipeline.gateway.events import (
    OF_ORDERS_AND_HISTORY,
    BookReset,
    CancelRejected,
    ConnectionLost,
    ConnectivityLost,
    ConnectivityRestored,
    DepthHalted,
    DepthRefused,
    FarmStatus,
    GatewayEvent,
    Notice,
    PacingViolation,
    RequestIdRejected,
    SlotRefused,
    SocketPortReset,
)

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
