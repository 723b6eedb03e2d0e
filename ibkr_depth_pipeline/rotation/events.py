"""The interface of the rotation: its plan, the events that it handles, the commands that it answers with. Frozen.

A `request` is the id of one depth subscription and is never used twice. `SlotRefused` and `RequestIdRejected` are the
gateway's own events (model.py). What the parts of the rotation answer with stands with them: `BatchResized` and
`SlotReleasedLate` in slot_allocator.py, `Reconnect` in slots.py. `Cancel`, `Recheck` and `Reconnect` are carried out as
they are, by the ingest and by the probe.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibkr_depth_pipeline.model import RequestIdRejected, SlotRefused
from ibkr_depth_pipeline.rotation.slot_allocator import BatchResized, SlotReleasedLate
from ibkr_depth_pipeline.rotation.slots import ADVISED_LINE_SECS, LATE_ROWS_SECS, Reconnect


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """The operator's numbers, and two of the program's own that tests shorten. Times are in seconds."""

    max_batch: int
    dwell: float
    first_row_cap: float
    cooldown: float
    recovery_turns: int
    unsupported_retry: float
    outage: float = 120.0
    late_rows: float = LATE_ROWS_SECS
    advised_line: float = ADVISED_LINE_SECS


# ---- events


@dataclass(frozen=True, slots=True)
class Connected:
    """The gateway answers and knows no subscription of ours. suspended: it has reported the loss of IBKR already.

    slots, release_pause: what is known of the account's slots beforehand, on the first connection; None: nothing.
    """

    suspended: bool = False
    slots: int | None = None
    release_pause: float | None = None


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone, and every subscription with it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The first row or reset of a request came, or the first one since the request was put in doubt."""

    request: int


@dataclass(frozen=True, slots=True)
class LateRows:
    """Rows of a cancelled request came."""

    request: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An error other than a slot refusal came before the first row. elsewhere: the symbol has another venue to try."""

    request: int
    reason: str
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Advised:
    """An error came that may be advice about a line which goes on. `AdviceConfirmed` follows if no row does."""

    request: int


@dataclass(frozen=True, slots=True)
class FarmsReported:
    """A data farm was reported well, or not; troubled: whether any trouble stands now."""

    well: bool
    troubled: bool


@dataclass(frozen=True, slots=True)
class Halted:
    """The subscription is dead and is to be requested again: 316, or it is silent, or its book is out of step."""

    request: int


@dataclass(frozen=True, slots=True)
class Suspended:
    """The gateway lost its servers (1100): no request can be answered."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The servers are back; data_lost: the subscriptions are gone (1101, else 1102).

    reported: the gateway or a row shows it; otherwise it is assumed, and rows must follow.
    """

    data_lost: bool
    reported: bool = True


@dataclass(frozen=True, slots=True)
class Doubted:
    """Every subscription may be dead: one that does not answer within `secs` is to be requested again."""

    secs: float


@dataclass(frozen=True, slots=True)
class Rechecked:
    """The result of `Recheck`: whether the symbol can be subscribed to now, and if not, why."""

    symbol: str
    supported: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The symbol is to have this many turns for each one of a symbol of weight 1; pinned: it keeps a slot.

    A new symbol joins once `Rechecked` says that it can be subscribed to.
    """

    symbol: str
    weight: int = 1
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Focused:
    """These, and only these, are pinned for a while, before all others."""

    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """The symbol's market is closed: it has no turns until `Opened`. A line that has answered ends now."""

    symbol: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The symbol's market is open again. resolved: its contract is known, so it joins at the back."""

    symbol: str
    resolved: bool = True


@dataclass(frozen=True, slots=True)
class Removed:
    """The symbol is not to be recorded any more: it leaves after its turn, and nothing of it is remembered."""

    symbol: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time that `next_deadline()` named has come."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The run ends: every subscription is to be cancelled."""


RotationEvent = (
    Connected
    | Disconnected
    | Answered
    | LateRows
    | SlotRefused
    | Refused
    | Advised
    | FarmsReported
    | Halted
    | RequestIdRejected
    | Suspended
    | Resumed
    | Doubted
    | Rechecked
    | Wanted
    | Focused
    | Closed
    | Opened
    | Removed
    | Deadline
    | Stop
)

# ---- commands, to carry out in order


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Request depth of `symbol` under the new id `request`."""

    request: int
    symbol: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel `request` at the gateway."""

    request: int
    symbol: str


@dataclass(frozen=True, slots=True)
class Recheck:
    """Resolve the contract of `symbol` again; `Rechecked` is the answer."""

    symbol: str


@dataclass(frozen=True, slots=True)
class OutageEndAssumed:
    """For the log: the outage is taken for over without a report of its end; every line is requested again."""


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """For the log: a turn begins with these symbols, at most batch_size of them."""

    turn: int
    symbols: tuple[str, ...]
    batch_size: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """For the log: the turn is over, `secs` after it began; refused: the batch shrank in it."""

    turn: int
    symbols: tuple[str, ...]
    secs: float
    refused: bool


@dataclass(frozen=True, slots=True)
class AdviceConfirmed:
    """No row came after the error of `Advised`: it was a refusal. `Refused` is the answer."""

    request: int


@dataclass(frozen=True, slots=True)
class SymbolSkipped:
    """For the log: the symbol leaves the rotation and is retried after retry_secs."""

    symbol: str
    reason: str
    retry_secs: float


RotationCommand = (
    Subscribe
    | Cancel
    | Recheck
    | Reconnect
    | OutageEndAssumed
    | TurnStarted
    | TurnEnded
    | BatchResized
    | SlotReleasedLate
    | AdviceConfirmed
    | SymbolSkipped
)
