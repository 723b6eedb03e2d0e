"""The events of a gateway, one type each. Numeric codes of TWS decide nothing outside this package.

A `request` is the id of one of our own depth requests; ids are never used twice.
"""

from __future__ import annotations

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
"""Codes that are documented to refuse a request; error_codes.py treats others alike."""

OF_ORDERS_AND_HISTORY = frozenset({165, 202, 399, 404, 434, 492, 10148})
"""Codes of orders and historical data. What they mean where they name a depth request, only its rows tell."""

_ADVISORY = frozenset({10089, 10090, 10091}) | OF_ORDERS_AND_HISTORY
"""Codes that refuse a request, or come as advice about a subscription that goes on."""

_BAD_REQUEST = frozenset({320, 321})
_CONTRACT_GONE = frozenset({200, 478, 10092})
"""Codes of an invalid request, which is invalid at every venue."""


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
