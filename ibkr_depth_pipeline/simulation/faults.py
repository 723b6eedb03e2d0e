"""Faults: what can go wrong with a simulated gateway, and with which arguments. Pure descriptions.

Every fault is a method of SimulatedGateway of the same name and parameters; scenario.py says when they happen.
Where a fault takes `seconds` it ends by itself after them, and lasts until told otherwise without them.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ibkr_depth_pipeline.simulation.malformed import BAD_FRAMES, MALFORMED_ROWS
from ibkr_depth_pipeline.simulation.options import Unready, check_refusal


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
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


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


class ConnectivityLost(Fault):
    pass


class ConnectivityRestored(Fault):
    data_lost: bool = False
    rows_follow: bool = True


class ResetBook(Fault):
    symbol: str


class Halt(Fault):
    symbol: str


class SetSlots(Fault):
    slots: Count


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


class SetRate(Fault):
    rows_per_second: Seconds
    symbol: str | None = None


class MalformedRows(Fault):
    kinds: tuple[Annotated[str, one_of(MALFORMED_ROWS)], ...] = tuple(MALFORMED_ROWS)
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


FAULTS: Mapping[str, type[Fault]] = {_snake(fault.__name__): fault for fault in Fault.__subclasses__()}
