"""Faults: what can go wrong with a simulated gateway, and the types of their arguments. Pure.

A method of the gateway that is marked with `fault` is one: scenarios state when it happens, by its name and parameters.
A fault that takes `seconds` ends by itself after them; without them it lasts until the opposite fault.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from ibkr_depth_pipeline.simulation.distortions import BAD_FRAMES, OPERATIONS, ROW_KINDS, SIDES, UNREADABLE_ROWS
from ibkr_depth_pipeline.simulation.options import check_refusal

_Method = TypeVar("_Method", bound=Callable[..., object])


class Fault(BaseModel):
    """What goes wrong: the gateway's method of that name, and its arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def name(self) -> str:
        """As scenarios and the gateway spell it: `drop_connections`."""
        return type(self).__name__

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


FAULTS: dict[str, type[Fault]] = {}
"""Every fault, by its name."""


def fault(method: _Method) -> _Method:
    """Declare a method of the gateway as a fault. Its annotations are how a scenario's arguments are checked."""
    _self, *parameters = inspect.signature(method).parameters.values()
    arguments: dict[str, Any] = {
        each.name: (each.annotation, ... if each.default is each.empty else each.default) for each in parameters
    }
    FAULTS[method.__name__] = create_model(method.__name__, __base__=Fault, **arguments)
    return method


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
PerSecond = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AnyNumber = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Times = Annotated[int, Field(ge=1)]
RefusalCode = Annotated[int, AfterValidator(check_refusal)]
Hexadecimal = Annotated[str, AfterValidator(_hexadecimal)]
Side = Annotated[str, one_of(SIDES)]
Operation = Annotated[str, one_of(OPERATIONS)]
RowKind = Annotated[str, one_of(ROW_KINDS)]
UnreadableRowKind = Annotated[str, one_of(UNREADABLE_ROWS)]
BadFrameKind = Annotated[str, one_of(BAD_FRAMES)]
