"""What the rotation is told, and what it answers. A request is the id of one depth subscription, never used twice."""

from __future__ import annotations

from dataclasses import dataclass

# ---- told


@dataclass(frozen=True, slots=True)
class Connected:
    """The gateway answers and knows no subscription of ours. suspended: it has said already that it lost IBKR."""

    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone, and every subscription with it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The first row or reset of a request, or the first after the rotation asked to hear of it again."""

    request: int


@dataclass(frozen=True, slots=True)
class WentOn:
    """Rows came of a request that was cancelled."""

    request: int


@dataclass(frozen=True, slots=True)
class Full:
    """The request was refused for want of a slot (309)."""

    request: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An error other than for want of a slot, before the first row. elsewhere: the symbol has another venue to try."""

    request: int
    reason: str
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Advised:
    """An error that may be advice about a line which goes on. `AdviceConfirmed` follows if no row comes in time."""

    request: int


@dataclass(frozen=True, slots=True)
class FarmsReported:
    """News of the data farms: one is well, or one is not; troubled says whether any trouble stands now."""

    well: bool
    troubled: bool


@dataclass(frozen=True, slots=True)
class Halted:
    """The subscription is dead and is to be asked for again: 316, or it is silent, or its book is out of step."""

    request: int


@dataclass(frozen=True, slots=True)
class IdRejected:
    """The gateway holds the request id for used (322): the subscription never was."""

    request: int


@dataclass(frozen=True, slots=True)
class Suspended:
    """The gateway lost its servers: nothing is to be had by asking (1100)."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The servers are back; data_lost says that the subscriptions are gone (1101, else 1102).

    said: whether the gateway or a row has said so; else it is a guess, and rows must come of it.
    """

    data_lost: bool
    said: bool = True


@dataclass(frozen=True, slots=True)
class Doubted:
    """Every subscription may be dead: one that has not answered again within secs is to be asked for anew."""

    secs: float


@dataclass(frozen=True, slots=True)
class Rechecked:
    """The answer to Recheck: whether the symbol can be subscribed to now, and if not, why."""

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
    """The symbol's market is open again, and its contract is known: it joins at the back."""

    symbol: str


@dataclass(frozen=True, slots=True)
class Removed:
    """The symbol is not to be recorded any more: it leaves after its turn, and nothing of it is remembered."""

    symbol: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time that next_deadline() named has come."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Give everything back."""


RotationEvent = (
    Connected
    | Disconnected
    | Answered
    | WentOn
    | Full
    | Refused
    | Advised
    | FarmsReported
    | Halted
    | IdRejected
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

# ---- answered: commands to carry out, in order


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Ask for depth of `symbol` under the new id `request`."""

    request: int
    symbol: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel `request`."""

    request: int
    symbol: str


@dataclass(frozen=True, slots=True)
class Recheck:
    """Resolve `symbol` anew and say Rechecked."""

    symbol: str


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Connect anew: cancelled requests of these symbols seem to hold slots, and nothing else frees them."""

    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResumeUnsaid:
    """The outage is taken for over, though nothing has said so: the lines that are asked for again will show it."""


@dataclass(frozen=True, slots=True)
class EndOutage:
    """Connect anew: the gateway said that it lost its servers, and lines that were asked for again bring nothing."""


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """For the log: a turn begins with these symbols, at most batch_size of them."""

    turn: int
    symbols: tuple[str, ...]
    batch_size: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """For the log: the turn is over, secs after it began; refused says whether a 309 fell into it."""

    turn: int
    symbols: tuple[str, ...]
    secs: float
    refused: bool


@dataclass(frozen=True, slots=True)
class BatchResized:
    """For the log, and for heartbeats: from now on at most `size` subscriptions at once."""

    size: int
    previous: int
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseRaced:
    """For the log: a 309 right after slots were given back, by us or with the connection; asked again in pause_secs."""

    symbol: str
    pause_secs: float


@dataclass(frozen=True, slots=True)
class AdviceConfirmed:
    """No row came after the error that `Advised` named: it was a refusal. Say Refused."""

    request: int


@dataclass(frozen=True, slots=True)
class MarkedUnsupported:
    """For the log: the symbol leaves the rotation and is retried after retry_secs."""

    symbol: str
    reason: str
    retry_secs: float


Command = (
    Subscribe
    | Cancel
    | Recheck
    | Reconnect
    | ResumeUnsaid
    | EndOutage
    | TurnStarted
    | TurnEnded
    | BatchResized
    | ReleaseRaced
    | AdviceConfirmed
    | MarkedUnsupported
)
