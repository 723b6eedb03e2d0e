"""Scenarios: files that state when which fault happens, and their execution on a running gateway.

A file, YAML or JSON, is a list of steps, or a mapping that also states what it is about and how the gateway behaves:

    about: after a drop the slots stay taken for 5 s (309)
    gateway: {slots_held_after_drop: 5.0}        # options of GatewayOptions; they win over the command line's
    steps:
      - on: {kind: rows, count: 500}
        do: drop_connections

The folder `scenarios` beside this module holds the shipped ones; a name is a file's, with _ or - between words.

A step is one trigger and one fault, written as one mapping:

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
is of rows, not entries. The faults are the
methods that gateway.py and line_faults.py mark with `fault`, with the parameters for arguments.
"""

import asyncio
import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from ibkr_depth_pipeline.simulation.codec import REQUEST_NAMES
from ibkr_depth_pipeline.simulation.faults import FAULTS, Fault, Seconds, one_of
from ibkr_depth_pipeline.simulation.journal import KINDS, Entry, Journal
from ibkr_depth_pipeline.simulation.options import GatewayOptions

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
class ScenarioStep:
    trigger: Trigger
    fault: Fault


def parse_scenario(document: object) -> tuple[ScenarioStep, ...]:
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


def _parse_step(item: object) -> ScenarioStep:
    if not isinstance(item, dict):
        raise ValueError("a step is a mapping")
    # YAML 1.1 reads a bare `on` as true; it need not be quoted.
    item = {("on" if key is True else key): value for key, value in item.items()}
    name = item.pop("do", None)
    if name not in FAULTS:
        raise ValueError(f"do: {name!r}; allowed: {', '.join(sorted(FAULTS))}")
    trigger = Trigger.model_validate({key: item.pop(key) for key in _TRIGGER_KEYS if key in item})
    return ScenarioStep(trigger, FAULTS[name].model_validate(item))


def in_one_line(problem: ValidationError) -> str:
    """Every complaint of a validation, on one line."""
    return "; ".join(f"{'.'.join(map(str, error['loc'])) or 'step'}: {error['msg']}" for error in problem.errors())


class ScenarioClock:
    """Hands out each fault once per repetition, in the order of their times.

    The caller must call `observe` for every journal entry and `due` no later than `next_deadline`. Any clock will do,
    in seconds.
    """

    def __init__(self, steps: Sequence[ScenarioStep], start: float) -> None:
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


# ---- shipped scenarios, and files


SHIPPED = Path(__file__).with_name("scenarios")

_NOT_A_SCENARIOS = frozenset({"host", "port", "replays", "keep_rows", "journal_file", "journal_entries"})
"""Options that concern where a gateway listens, plays from and writes to, not how it behaves."""


class _Changes(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _changes_model() -> type[BaseModel]:
    types = get_type_hints(GatewayOptions)
    names = [each.name for each in fields(GatewayOptions) if each.name not in _NOT_A_SCENARIOS]
    settable: dict[str, Any] = {name: (types[name], None) for name in names}
    return create_model("GatewayChanges", __base__=_Changes, **settable)


GatewayChanges = _changes_model()
"""The options that a scenario may set: all that concern how a gateway behaves, none required."""


def parse_changes(document: Mapping[str, Any]) -> BaseModel:
    """The options of a mapping, as GatewayChanges. Raises ScenarioError, which names the option."""
    try:
        changes = GatewayChanges.model_validate(document)
        apply_changes(changes, GatewayOptions())
    except ValidationError as problem:
        raise ScenarioError(in_one_line(problem)) from None
    except ValueError as problem:
        raise ScenarioError(str(problem).replace(" is ", ": ", 1)) from None
    return changes


def apply_changes(changes: BaseModel, options: GatewayOptions) -> GatewayOptions:
    """The options with those that were set. Raises ValueError as GatewayOptions does."""
    return replace(options, **{name: getattr(changes, name) for name in changes.model_fields_set})


_NO_CHANGES = GatewayChanges()


@dataclass(frozen=True, slots=True)
class Scenario:
    """What goes wrong, and when. `about` is one line for a reader."""

    steps: tuple[ScenarioStep, ...]
    about: str = ""
    gateway: BaseModel = _NO_CHANGES
    """A GatewayChanges."""

    def applied_to(self, options: GatewayOptions) -> GatewayOptions:
        """The options with those that the scenario sets. Raises ValueError as GatewayOptions does."""
        return apply_changes(self.gateway, options)


def shipped_scenarios() -> dict[str, Scenario]:
    """Every scenario that comes with the package, by name."""
    return {path.stem: load_scenario(str(path)) for path in sorted(SHIPPED.glob("*.yaml"))}


def load_scenario(name_or_file: str) -> Scenario:
    """A shipped scenario by its name, or the YAML or JSON file at that path. Raises ScenarioError, which names it."""
    shipped = SHIPPED / f"{name_or_file.replace('-', '_')}.yaml"
    path = shipped if Path(name_or_file).name == name_or_file and shipped.is_file() else Path(name_or_file)
    try:
        return _scenario(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        names = ", ".join(each.stem for each in sorted(SHIPPED.glob("*.yaml")))
        raise ScenarioError(f"{name_or_file}: no such file, and no scenario of that name; there are {names}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise ScenarioError(f"{path}: {' '.join(str(problem).split())}") from problem
    except ScenarioError as problem:
        raise ScenarioError(f"{path}: {problem}") from None


def _scenario(document: Any) -> Scenario:
    if not isinstance(document, dict):
        return Scenario(parse_scenario(document))
    unknown = sorted(map(str, document.keys() - {"about", "gateway", "steps"}))
    if unknown:
        raise ScenarioError(f"{unknown[0]}: a scenario is a list of steps, or a mapping of about, gateway and steps")
    try:
        changes = parse_changes(document.get("gateway") or {})
    except ScenarioError as problem:
        raise ScenarioError(f"gateway: {problem}") from None
    return Scenario(parse_scenario(document.get("steps") or []), str(document.get("about", "")), changes)


# ---- execution


class ScenarioRunner:
    """`run` until cancelled. Faults are called by name on `gateway`; each makes a journal entry of kind `fault`."""

    def __init__(self, steps: Sequence[ScenarioStep], journal: Journal, gateway: object) -> None:
        self._clock = ScenarioClock(steps, time.monotonic())
        self._journal = journal
        self._gateway = gateway
        self._news = asyncio.Event()

    async def run(self) -> None:
        unlisten = self._journal.listen(self._observe)
        try:
            while True:
                for fault in self._clock.due(time.monotonic()):
                    await self._carry_out(fault)
                await self._sleep()
        finally:
            unlisten()

    async def _carry_out(self, fault: Fault) -> None:
        arguments = fault.arguments()
        self._journal.add(Entry(time.time(), 0, "fault", fault.name, arguments))
        outcome = getattr(self._gateway, fault.name)(**arguments)
        if inspect.isawaitable(outcome):
            await outcome

    async def _sleep(self) -> None:
        """Until the next deadline, or until the journal brought one nearer."""
        self._news.clear()
        deadline = self._clock.next_deadline()
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            await asyncio.wait_for(self._news.wait(), wait)
        except asyncio.TimeoutError:
            return

    def _observe(self, entry: Entry) -> None:
        amount = int(entry.detail["count"]) if entry.kind == "rows" else 1
        before = self._clock.next_deadline()
        self._clock.observe(entry.kind, entry.name, amount, time.monotonic())
        if self._clock.next_deadline() != before:
            self._news.set()
