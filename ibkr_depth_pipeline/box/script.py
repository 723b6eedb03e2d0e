"""The script of a day: which faults a box plays and when, from a YAML file or the command line. Pure but for files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ibkr_depth_pipeline.box.faults import FAULTS, FaultName, PlannedFault
from ibkr_depth_pipeline.box.processes import BoxError

LONGEST_SECS = 86_400.0
NAMES = ", ".join(name.value for name in FaultName)


def _fault_name(value: object) -> object:
    if value not in {name.value for name in FaultName}:
        raise ValueError(f"{value!r} is not allowed; one of {NAMES}")
    return value


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"{value} is not allowed; a number of seconds")
    return value


Seconds = Annotated[float, BeforeValidator(_no_truth), Field(ge=0, le=LONGEST_SECS, allow_inf_nan=False)]


class ScriptStep(BaseModel):
    """One fault of a script."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    at: Seconds
    fault: Annotated[FaultName, BeforeValidator(_fault_name)]
    seconds: Annotated[float, BeforeValidator(_no_truth), Field(gt=0, le=3600, allow_inf_nan=False)] | None = None
    symbol: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> ScriptStep:
        if self.seconds is not None and FAULTS[self.fault].secs is None:
            raise ValueError(f"seconds: {self.fault.value} has no duration; leave it out")
        if self.symbol is not None and self.fault is not FaultName.SYMBOL_SILENT:
            raise ValueError(f"symbol: only {FaultName.SYMBOL_SILENT.value} concerns one; leave it out")
        return self

    def planned(self) -> PlannedFault:
        return PlannedFault(self.fault, self.at, self.seconds, self.symbol or "")


def read_script(path: Path) -> tuple[PlannedFault, ...]:
    """The faults of the YAML file, in the order of their times. BoxError names the file, the step and what is wrong."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BoxError(f"--script {path}: can't be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise BoxError(f"--script {path}: no YAML: {' '.join(str(error).split())}") from None
    try:
        return parse_script(document)
    except BoxError as error:
        raise BoxError(f"--script {path}: {error}") from None


def parse_script(document: Any) -> tuple[PlannedFault, ...]:
    """The faults of a loaded document, in the order of their times. BoxError lists every step that is wrong."""
    if not isinstance(document, list) or not document:
        raise BoxError("a script is a list of faults, such as: - {at: 20, fault: gateway_away}")
    steps, problems = [], []
    for number, item in enumerate(document, start=1):
        try:
            steps.append(ScriptStep.model_validate(item).planned())
        except ValidationError as refused:
            problems += [f"step {number}: {_problem(error)}" for error in refused.errors(include_url=False)]
    if problems:
        raise BoxError("; ".join(problems))
    return tuple(sorted(steps, key=lambda step: step.at))


def _problem(error: Any) -> str:
    place, said = ".".join(map(str, error["loc"])), error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{place}: there is no such key; allowed: {', '.join(ScriptStep.model_fields)}"
    if error["type"] in ("model_type", "model_attributes_type"):
        return "a step is a mapping, such as {at: 20, fault: gateway_away}"
    return f"{place}: {said}" if place else str(said)


def planned_faults(faults: Sequence[str], at: Sequence[float]) -> tuple[PlannedFault, ...]:
    """The faults of --fault and --at, which belong together in their order. BoxError if they don't."""
    if len(faults) != len(at):
        raise BoxError(f"--fault is given {len(faults)} times, --at {len(at)} times; each fault needs its time")
    return parse_script([{"at": when, "fault": name} for name, when in zip(faults, at, strict=True)]) if faults else ()


def check_symbols(faults: Sequence[PlannedFault], universe: Collection[str]) -> None:
    """Raises BoxError, which names the first symbol that is not in the universe."""
    for fault in faults:
        if fault.symbol and fault.symbol not in universe:
            raise BoxError(f"{fault.name.value}: {fault.symbol} is not in the universe: {', '.join(universe)}")
