"""Scenario files: those that are shipped, by name, and any other by path.

A file is a list of steps (scenario.py), or a mapping that says as well what it is about and how the gateway behaves:

    about: after a drop the slots stay taken for 5 s (309)
    gateway: {slots_held_after_drop: 5.0}        # options of GatewayOptions; they win over the command line's
    steps:
      - on: {kind: rows, count: 500}
        do: drop_connections

The folder `scenarios` beside this module holds those that are shipped; a name is a file's, with _ or - between words.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline.simulation.scenario import ScenarioError, Step, in_one_line, parse_scenario

SHIPPED = Path(__file__).with_name("scenarios")

_NOT_A_SCENARIOS = frozenset({"host", "port", "replays", "keep_rows", "journal_file", "journal_entries"})
"""Options of GatewayOptions that say where a gateway listens, plays from and writes to, and not how it behaves."""


class _Changes(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _changes_model() -> type[BaseModel]:
    types = get_type_hints(GatewayOptions)
    names = [each.name for each in fields(GatewayOptions) if each.name not in _NOT_A_SCENARIOS]
    settable: dict[str, Any] = {name: (types[name], None) for name in names}
    return create_model("GatewayChanges", __base__=_Changes, **settable)


GatewayChanges = _changes_model()
"""The options that a scenario may set: every one of GatewayOptions that says how a gateway behaves, none required."""


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

    steps: tuple[Step, ...]
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
