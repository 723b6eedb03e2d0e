"""TWS code -> event, one table. Codes are matched, never texts: the texts differ between versions of TWS."""

from __future__ import annotations

from collections.abc import Callable

from ibkr_depth_pipeline.gateway.events import (
    BookReset,
    CancelRejected,
    ConnectivityLost,
    ConnectivityRestored,
    DepthHalted,
    DepthRefused,
    FeedHealth,
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

_OF_THE_MOMENT = frozenset({322, 502, 503, 504, 1100, 10197})

_Maker = Callable[[int, int, str], GatewayEvent]


def _refused(request: int, code: int, text: str) -> GatewayEvent:
    return DepthRefused(request, code, text)


def _healthy(request: int, code: int, text: str) -> GatewayEvent:
    return FeedHealth(True, code, text)


def _degraded(request: int, code: int, text: str) -> GatewayEvent:
    return FeedHealth(False, code, text)


_OF_A_REQUEST: dict[int, _Maker] = {
    200: _refused,
    309: lambda request, code, text: SlotRefused(request, text),
    310: lambda request, code, text: CancelRejected(request),
    316: lambda request, code, text: DepthHalted(request),
    317: lambda request, code, text: BookReset(request),
    321: _refused,
    322: lambda request, code, text: RequestIdRejected(request),
    354: _refused,
    10089: _refused,
    10090: _refused,
    10092: _refused,
}

_OF_THE_SESSION: dict[int, _Maker] = {
    100: lambda request, code, text: PacingViolation(text),
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


def event_of(request: int, code: int, text: str) -> GatewayEvent:
    """The event that error message `code` stands for. `request` is NO_REQUEST where it speaks of none."""
    maker = _OF_THE_SESSION.get(code)
    if maker is None and request != NO_REQUEST:
        maker = _OF_A_REQUEST.get(code)
    if maker is None:
        return Notice(None if request == NO_REQUEST else request, code, text)
    return maker(request, code, text)


def says_nothing_of_a_contract(code: int) -> bool:
    """Whether an error that answers a question for contract details tells of the gateway's state alone: ask again."""
    return code in _OF_THE_MOMENT
