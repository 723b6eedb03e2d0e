"""Faults: what can go wrong with a simulated gateway, and with which arguments. Pure descriptions.

Every fault is a method of SimulatedGateway of the same name and parameters; a scenario states when they happen.
A fault that takes `seconds` ends by itself after them; without them it lasts until the opposite fault.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ibkr_depth_pipeline.simulation.distortions import (
    BAD_FRAMES,
    MALFORMED_ROWS,
    OPERATIONS,
    ROW_KINDS,
    SIDES,
    UNREADABLE_ROWS,
)
from ibkr_depth_pipeline.simulation.options import Pacing, Unready, check_refusal


class Fault(BaseModel):
    """What goes wrong: the gateway's method of the same name in snake case, and its arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def name(self) -> str:
        """As scenarios and the gateway spell it: `drop_connections`."""
        return _snake(type(self).__name__)

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("Fault")).lower()


def one_of(names: Iterable[object]) -> AfterValidator:
    """A check that a value is one of the names, with all of them in the message."""
    allowed = tuple(names)

    def check(value: object) -> object:
        if value not in allowed:
            raise ValueError(f"{value!r}; allowed: {', '.join(map(str, allowed))}")
        return value

    return AfterValidator(check)


def _hexadecimal(text: str) -> str:
    try:
        bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{text!r}; allowed: bytes as pairs of 0-9 a-f, such as 00000002 3900") from None
    return text


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class DropConnections(Fault):
    reset: bool = True
    client_id: int | None = None


class RefuseConnections(Fault):
    seconds: Seconds | None = None


class MuteNewConnections(Fault):
    seconds: Seconds | None = None


class Stall(Fault):
    seconds: Seconds | None = None


class Silence(Fault):
    symbol: str | None = None


class PauseRows(Fault):
    symbol: str | None = None
    seconds: Seconds | None = None


class CutMessage(Fault):
    reset: bool = False


class SendError(Fault):
    code: int
    symbol: str | None = None


class RepeatError(Fault):
    code: int
    times: Count
    symbol: str | None = None


class NotifyPermissions(Fault):
    pass


class ConnectivityLostFault(Fault):
    dead_lines: bool = False
    requests_help: bool = True


class ConnectivityRestoredFault(Fault):
    data_lost: bool = False
    rows_follow: bool = True


class ResetBook(Fault):
    symbol: str


class Halt(Fault):
    symbol: str


class SetSlots(Fault):
    slots: Count


class SetSlotFreeDelay(Fault):
    seconds: Seconds


class OccupySlots(Fault):
    slots: Count
    seconds: Seconds | None = None


class HoldClientId(Fault):
    client_id: int
    seconds: Seconds


class HangClientId(Fault):
    client_id: int
    seconds: Seconds | None = None


class SetGreetingDelay(Fault):
    seconds: Seconds


class BecomeReady(Fault):
    pass


class BecomeUnready(Fault):
    how: Unready = Unready.NO_EXCHANGES


class Refuse(Fault):
    symbol: str
    code: Annotated[int, AfterValidator(check_refusal)]
    venue: str | None = None


class Allow(Fault):
    symbol: str
    venue: str | None = None


class Advise(Fault):
    symbol: str
    code: Annotated[int, AfterValidator(check_refusal)]


class SetRowsAfterCancel(Fault):
    seconds: Seconds


class SetRate(Fault):
    rows_per_second: Seconds
    symbol: str | None = None


class MalformedRows(Fault):
    kinds: tuple[Annotated[str, one_of(ROW_KINDS)], ...] = tuple(MALFORMED_ROWS)
    symbol: str | None = None


class BadFrame(Fault):
    kind: Annotated[str, one_of(BAD_FRAMES)]
    symbol: str | None = None


class SendRaw(Fault):
    hex: Annotated[str, AfterValidator(_hexadecimal)]


class Dribble(Fault):
    seconds: Seconds | None = None


class Burst(Fault):
    symbol: str
    rows: Count


class LimitMessages(Fault):
    messages_per_second: Annotated[int, Field(ge=1)] | None
    pacing: Pacing = Pacing.DROP


class OccupyMessages(Fault):
    messages_per_second: Count
    seconds: Seconds | None = None


class IgnoreDetails(Fault):
    symbol: str
    times: Count


class SetDetailsDelay(Fault):
    seconds: Seconds


class RenameVenue(Fault):
    exchange: str
    to: str


class Expire(Fault):
    symbol: str


class SetClockOffset(Fault):
    seconds: Annotated[float, Field(allow_inf_nan=False)]


Times = Annotated[int, Field(ge=1)]
Side = Annotated[str, one_of(SIDES)]


class Die(Fault):
    symbol: str
    times: Times = 1


class DieOnSubscribe(Fault):
    symbol: str
    times: Times = 1


class DoubleSide(Fault):
    symbol: str
    side: Side = "bid"
    times: Times = 1


class ExtraDelete(Fault):
    symbol: str
    side: Side = "bid"
    times: Times = 1


class LoseRow(Fault):
    symbol: str
    times: Times = 1


class Cross(Fault):
    symbol: str
    seconds: Seconds | None = None
    times: Times = 1


class Unsort(Fault):
    symbol: str
    times: Times = 1


class FreezeBook(Fault):
    symbol: str
    times: Times = 1


class UpdatesPastEnd(Fault):
    symbol: str
    count: Times = 1
    side: Side = "bid"
    times: Times = 1


class UnreadableRow(Fault):
    symbol: str
    operation: Annotated[str, one_of(OPERATIONS)] = "insert"
    how: Annotated[str, one_of(UNREADABLE_ROWS)] = "bad_size"
    times: Times = 1


FAULTS: Mapping[str, type[Fault]] = {_snake(fault.__name__): fault for fault in Fault.__subclasses__()}
