"""Scenarios: files that say when which fault happens. Pure: the clock decides what is due, the gateway carries it out.

A scenario is a YAML or JSON list of steps. A step is one trigger and one fault, written as one mapping:

    - at: 2.0                                  # seconds after the gateway began to listen
      do: drop_connections
      reset: true
    - after: 5.0                               # seconds after the step before was carried out
      do: set_slots
      slots: 1
    - on: {kind: request, name: reqMktDepth, count: 4}   # at the 4th such entry of the journal
      delay: 0.1                               # and so many seconds later (default 0)
      do: send_error
      code: 1100
    - at: 10.0
      repeat: 3                                # three times in all,
      every: 2.0                               # so many seconds apart
      do: malformed_rows

`kind` and `name` are those of journal entries (KINDS in journal.py); `name` may be left out. For `kind: rows` the count
is of rows, not entries. The faults and their arguments stand in faults.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ibkr_depth_pipeline.simulation.faults import FAULTS, Fault, Seconds, one_of
from ibkr_depth_pipeline.simulation.journal import KINDS
from ibkr_depth_pipeline.simulation.requests import REQUEST_NAMES

_TRIGGER_KEYS = ("at", "after", "on", "delay", "repeat", "every")


class ScenarioError(ValueError):
    """A scenario that cannot be carried out: names the step and what is wrong with it."""


class JournalTrigger(BaseModel):
    """The `count`-th entry of that kind, and of that name if one is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Annotated[str, one_of(KINDS)]
    name: str | None = None
    count: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _a_request_that_there_is(self) -> "JournalTrigger":
        if self.kind == "request" and self.name not in (None, *REQUEST_NAMES):
            raise ValueError(f"name: {self.name!r}; allowed: {', '.join(REQUEST_NAMES)}")
        return self


class Trigger(BaseModel):
    """When a step is carried out. Exactly one of `at`, `after` and `on`; all times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    at: Seconds | None = None
    after: Seconds | None = None
    on: JournalTrigger | None = None
    delay: Seconds = 0.0
    repeat: Annotated[int, Field(ge=1)] = 1
    every: Seconds = 0.0

    @model_validator(mode="after")
    def _exactly_one(self) -> "Trigger":
        if sum(trigger is not None for trigger in (self.at, self.after, self.on)) != 1:
            raise ValueError("a step needs exactly one of: at, after, on")
        return self


@dataclass(frozen=True, slots=True)
class Step:
    trigger: Trigger
    fault: Fault


def read_scenario(path: Path) -> tuple[Step, ...]:
    """The steps of a YAML or JSON file. Raises ScenarioError, naming the file, for one that cannot be read."""
    try:
        return parse_scenario(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise ScenarioError(f"{path}: {' '.join(str(problem).split())}") from problem
    except ScenarioError as problem:
        raise ScenarioError(f"{path}: {problem}") from None


def parse_scenario(document: object) -> tuple[Step, ...]:
    """The steps of a loaded document. Raises ScenarioError for anything but a list of well-formed steps."""
    if not isinstance(document, list):
        raise ScenarioError("a scenario is a list of steps")
    steps = []
    for number, item in enumerate(document, start=1):
        try:
            steps.append(_parse_step(item))
        except ValidationError as problem:
            raise ScenarioError(f"step {number}: {in_one_line(problem)}") from problem
        except ValueError as problem:
            raise ScenarioError(f"step {number}: {problem}") from problem
    if steps and steps[0].trigger.after is not None:
        raise ScenarioError("step 1: `after` needs a step before it; use `at`")
    return tuple(steps)


def _parse_step(item: object) -> Step:
    if not isinstance(item, dict):
        raise ValueError("a step is a mapping")
    # YAML 1.1 reads a bare `on` as true; nobody should have to quote it.
    item = {("on" if key is True else key): value for key, value in item.items()}
    name = item.pop("do", None)
    if name not in FAULTS:
        raise ValueError(f"do: {name!r}; allowed: {', '.join(sorted(FAULTS))}")
    trigger = Trigger.model_validate({key: item.pop(key) for key in _TRIGGER_KEYS if key in item})
    return Step(trigger, FAULTS[name].model_validate(item))


def in_one_line(problem: ValidationError) -> str:
    """Every complaint of a validation, on one line."""
    return "; ".join(f"{'.'.join(map(str, error['loc'])) or 'step'}: {error['msg']}" for error in problem.errors())


class ScenarioClock:
    """Hands out each fault once per repetition, in the order of their times.

    The caller must call `observe` for every journal entry and `due` no later than `next_deadline`. Any clock will do,
    in seconds.
    """

    def __init__(self, steps: Sequence[Step], start: float) -> None:
        self._steps = steps
        self._counts = [0] * len(steps)
        self._deadlines: list[tuple[float, int, int]] = []
        for index, step in enumerate(steps):
            if step.trigger.at is not None:
                self._schedule(index, start + step.trigger.at)

    def observe(self, kind: str, name: str, amount: int, now: float) -> None:
        """Something stands in the journal: `amount` of that kind and name."""
        for index, step in enumerate(self._steps):
            trigger = step.trigger.on
            if trigger is None or trigger.kind != kind or trigger.name not in (None, name):
                continue
            before, self._counts[index] = self._counts[index], self._counts[index] + amount
            if before < trigger.count <= self._counts[index]:
                self._schedule(index, now)

    def next_deadline(self) -> float | None:
        return self._deadlines[0][0] if self._deadlines else None

    def due(self, now: float) -> list[Fault]:
        """The faults to carry out now. Each is handed out once."""
        faults = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, index, repetition = self._deadlines.pop(0)
            faults.append(self._steps[index].fault)
            following = index + 1
            if repetition == 0 and following < len(self._steps):
                after = self._steps[following].trigger.after
                if after is not None:
                    self._schedule(following, now + after)
        return faults

    def _schedule(self, index: int, when: float) -> None:
        trigger = self._steps[index].trigger
        for repetition in range(trigger.repeat):
            self._deadlines.append((when + trigger.delay + repetition * trigger.every, index, repetition))
        self._deadlines.sort()
