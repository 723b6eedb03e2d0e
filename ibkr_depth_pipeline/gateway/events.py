"""What a gateway can tell us, one type per happening. Numbers of TWS do not get past this package.

A `request` is the id of one of our own depth requests; ids are never used twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibkr_depth_pipeline.model import DepthOperation, DepthRow, RowFault


@dataclass(frozen=True, slots=True)
class RowReceived:
    """A row of market depth of a request."""

    request: int
    row: DepthRow


@dataclass(frozen=True, slots=True)
class RowUnreadable:
    """A depth message that holds no row: fields missing, no numbers, an unknown side or operation.

    operation is what the row was to do; None where even that can't be read.
    """

    request: int
    fault: RowFault
    fields: tuple[str, ...]
    operation: DepthOperation | None = None


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
    """No slot is free; the request holds none and must not be cancelled (309, 101)."""

    request: int
    text: str
    code: int = 309


REFUSALS = frozenset({200, 321, 354, 10089, 10090, 10091, 10092, 10168, 10186})
"""Codes that are documented as refusals of a request; there are more (error_codes.py)."""

_ADVISORY = frozenset({10089, 10090, 10091})
"""Codes that come for refused requests and, as advice, for lines that go on."""

_BAD_REQUEST = frozenset({320, 321})
"""Codes that say the request itself is wrong: it is so at every venue."""


@dataclass(frozen=True, slots=True)
class DepthRefused:
    """The gateway can't or won't send depth for this contract: 200, 354, 10089, 10092 and any code not known otherwise.

    About a request that has had rows it is advice: the line may go on.
    """

    request: int
    code: int
    text: str

    @property
    def is_advisory(self) -> bool:
        """Whether rows may come all the same, so that they are worth waiting for."""
        return self.code in _ADVISORY

    @property
    def is_listed(self) -> bool:
        """Whether the code is known to refuse requests."""
        return self.code in REFUSALS

    @property
    def concerns_venue(self) -> bool:
        """Whether another venue of the same contract may grant what this one does not."""
        return self.code not in _BAD_REQUEST

    @property
    def reason(self) -> str:
        """Code and text, for an operator."""
        return f"{self.code}: {self.text}"


@dataclass(frozen=True, slots=True)
class RequestIdRejected:
    """The gateway thinks the request id is in use: ask again under a new one (322)."""

    request: int


@dataclass(frozen=True, slots=True)
class CancelRejected:
    """There is no such subscription to cancel: it holds no slot (310)."""

    request: int
    code: int = 310


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
class FarmStatus:
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

    @property
    def names_permissions(self) -> bool:
        """Whether it says which market data the account has, and which it lacks (2152)."""
        return self.code == 2152


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
    | FarmStatus
    | PacingViolation
    | Notice
    | ConnectionLost
)
