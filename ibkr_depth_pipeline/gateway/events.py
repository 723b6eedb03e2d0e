"""What a gateway can tell us, one type per happening. Numbers of TWS do not get past this package.

A `request` is the id of one of our own depth requests; ids are never used twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibkr_depth_pipeline.model import DepthRow, RowFault


@dataclass(frozen=True, slots=True)
class RowReceived:
    """A row of market depth of a request."""

    request: int
    row: DepthRow


@dataclass(frozen=True, slots=True)
class RowUnreadable:
    """A depth message that holds no row: fields missing, no numbers, an unknown side or operation."""

    request: int
    fault: RowFault
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MessageUnreadable:
    """A message that is not of market depth and that nobody can read; its first fields."""

    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BookReset:
    """The gateway throws its book away: empty ours, keep the subscription (317)."""

    request: int


@dataclass(frozen=True, slots=True)
class DepthHalted:
    """The subscription is dead: subscribe again (316)."""

    request: int


@dataclass(frozen=True, slots=True)
class SlotRefused:
    """No slot is free; the request holds none and must not be cancelled (309)."""

    request: int
    text: str


@dataclass(frozen=True, slots=True)
class DepthRefused:
    """The gateway can't or won't send depth for this contract (200, 354, 10089, 10090, 10092, 321)."""

    request: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class RequestIdRejected:
    """The gateway thinks the request id is in use: ask again under a new one (322)."""

    request: int


@dataclass(frozen=True, slots=True)
class CancelRejected:
    """There is no such subscription to cancel: it holds no slot (310)."""

    request: int


@dataclass(frozen=True, slots=True)
class ConnectivityLost:
    """The gateway lost IBKR's servers; the socket is fine (1100)."""

    text: str


@dataclass(frozen=True, slots=True)
class ConnectivityRestored:
    """The gateway reached IBKR's servers again; data_lost says that subscriptions are gone (1101, else 1102)."""

    data_lost: bool
    text: str


@dataclass(frozen=True, slots=True)
class SocketPortReset:
    """The gateway moves its socket: reconnect (1300)."""

    text: str


@dataclass(frozen=True, slots=True)
class FeedHealth:
    """A data farm is broken, inactive or well; or a competing session silences the lines (21xx, 10197)."""

    healthy: bool
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class PacingViolation:
    """Too many messages a second were sent, by whichever client of the account (100), and some of ours may be lost.

    slowed_to is the rate in messages a second that is in force from now on, where this one lowered it.
    """

    text: str
    slowed_to: float | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Anything else the gateway says. request is None where it speaks of no request."""

    request: int | None
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The socket is gone."""

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
    | FeedHealth
    | PacingViolation
    | Notice
    | ConnectionLost
)
