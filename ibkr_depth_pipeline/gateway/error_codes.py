"""TWS code -> event, one table. Codes are matched, never texts: the texts differ between versions of TWS.

Each entry names its source: `reference` is docs/ibkr-market-depth.md, `IBKR` the message codes of the TWS API's
documentation, `ibapi` the errors of IBKR's own client. A code that stands nowhere here and names a request is a refusal
of that request (`DepthRefused`): dozens of codes mean one, and no list of them is complete. Whether the request has had
a row by then, so that the error is advice about a line that goes on, is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ibkr_depth_pipeline.gateway.events import (
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

_OF_THE_MOMENT = frozenset({322, 502, 503})
"""Codes that may answer a question for contract details and are no verdict on it, besides those of the session."""


_Maker = Callable[[int, int, str], GatewayEvent]


class Meaning(NamedTuple):
    """What a code stands for, and where that is documented or was seen."""

    event: _Maker
    source: str


def _refused(request: int, code: int, text: str) -> GatewayEvent:
    return DepthRefused(request, code, text)


def _no_slot(request: int, code: int, text: str) -> GatewayEvent:
    return SlotRefused(request, text, code)


def _no_such_line(request: int, code: int, text: str) -> GatewayEvent:
    return CancelRejected(request, code)


def _healthy(request: int, code: int, text: str) -> GatewayEvent:
    return FarmStatus(True, code, text)


def _degraded(request: int, code: int, text: str) -> GatewayEvent:
    return FarmStatus(False, code, text)


def _notice(request: int, code: int, text: str) -> GatewayEvent:
    return Notice(None if request == NO_REQUEST else request, code, text)


_OF_A_REQUEST: dict[int, Meaning] = {
    101: Meaning(_no_slot, "IBKR: max number of tickers has been reached; as 309 (reference, Learned since)"),
    200: Meaning(_refused, "reference: unknown contract or venue"),
    300: Meaning(_no_such_line, "IBKR: can't find EId with ticker id; the answer to a cancel"),
    309: Meaning(_no_slot, "reference"),
    310: Meaning(_no_such_line, "reference"),
    316: Meaning(lambda request, code, text: DepthHalted(request), "reference"),
    317: Meaning(lambda request, code, text: BookReset(request), "reference"),
    321: Meaning(_refused, "reference: the request is not valid"),
    322: Meaning(lambda request, code, text: RequestIdRejected(request), "reference"),
    354: Meaning(_refused, "reference: not subscribed"),
    10089: Meaning(_refused, "reference: needs a subscription; may be advice about a line that goes on"),
    10090: Meaning(_refused, "reference: not subscribed in part; may be advice about a line that goes on"),
    10091: Meaning(_refused, "reference, Learned since: not subscribed in part; may be advice as 10089"),
    10092: Meaning(_refused, "reference: no depth for this type and exchange"),
    10168: Meaning(_refused, "reference, Learned since: not subscribed, and delayed data is not enabled"),
    10186: Meaning(_refused, "reference, Learned since: not subscribed, and delayed data is not enabled"),
}

_OF_THE_SESSION: dict[int, Meaning] = {
    100: Meaning(lambda request, code, text: PacingViolation(text), "reference"),
    504: Meaning(lambda request, code, text: ConnectionLost(f"{code}: {text}"), "ibapi NOT_CONNECTED: the API is off"),
    1100: Meaning(lambda request, code, text: ConnectivityLost(text), "reference"),
    1101: Meaning(lambda request, code, text: ConnectivityRestored(True, text), "reference"),
    1102: Meaning(lambda request, code, text: ConnectivityRestored(False, text), "reference"),
    1300: Meaning(lambda request, code, text: SocketPortReset(text), "reference"),
    2103: Meaning(_degraded, "reference"),
    2104: Meaning(_healthy, "reference"),
    2105: Meaning(_degraded, "reference"),
    2106: Meaning(_healthy, "reference"),
    2108: Meaning(_degraded, "reference"),
    2110: Meaning(_degraded, "IBKR: connectivity between TWS and the server is broken"),
    2157: Meaning(_degraded, "IBKR: the security definition farm is broken"),
    2158: Meaning(_healthy, "reference"),
    10197: Meaning(_degraded, "reference"),
}

_WARNINGS = range(2100, 2170)
"""IBKR: warning message codes. Those that speak of a farm stand above; the rest, 2152 among them, refuse nothing."""

_NOTICES: dict[int, Meaning] = {
    165: Meaning(_notice, "IBKR: historical data service query message; ib_insync holds it for a warning"),
    202: Meaning(_notice, "IBKR: an order was cancelled; ib_insync holds it for a warning"),
    399: Meaning(_notice, "IBKR: order message; ib_insync holds it for a warning"),
    404: Meaning(_notice, "IBKR: order held, shares not available; ib_insync holds it for a warning"),
    434: Meaning(_notice, "IBKR: the size of an order; ib_insync holds it for a warning"),
    492: Meaning(_notice, "ib_insync holds it for a warning"),
    10148: Meaning(_notice, "IBKR: an order that can't be cancelled"),
    10167: Meaning(_notice, "reference, Learned since: delayed data is shown instead; the line goes on"),
}


def event_of(request: int, code: int, text: str) -> GatewayEvent:
    """The event that error message `code` stands for. `request` is NO_REQUEST where it speaks of none."""
    meaning = _OF_THE_SESSION.get(code) or _NOTICES.get(code)
    if meaning is None and request != NO_REQUEST and code not in _WARNINGS:
        meaning = _OF_A_REQUEST.get(code) or _UNLISTED
    return (meaning.event if meaning else _notice)(request, code, text)


def is_about_the_session(code: int) -> bool:
    """Whether the code tells of the gateway's state, whatever request it comes with."""
    return code in _OF_THE_SESSION


def is_notice(code: int) -> bool:
    """Whether the code refuses nothing."""
    return code not in _OF_THE_SESSION and (code in _NOTICES or code in _WARNINGS)


def is_transient(code: int) -> bool:
    """Whether an error that answers a question for contract details is no verdict on the contract: ask again."""
    return code in _OF_THE_MOMENT


_UNLISTED = Meaning(_refused, "any other code: whatever it says of a request without rows, it refuses it")
