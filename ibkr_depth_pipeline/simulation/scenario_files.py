"""Scenario files: those that are shipped, by name, and any other by path.

A file is a list of steps (scenario.py), or a mapping that says as well what it is about and how the gateway behaves:

    about: after a drop the slots stay taken for 5 s (309)
    gateway: {slots_held_after_drop: 5.0}        # options of GatewayOptions; they win over the command line's
    steps:
      - on: {kind: rows, count: 500}
        do: drop_connections

The folder `scenarios` beside this module holds those that are shipped; a name is a file's, with _ or - between words.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ibkr_depth_pipeline.simulation.options import EarlyCancel, GatewayOptions
from ibkr_depth_pipeline.simulation.scenario import ScenarioError, Step, in_one_line, parse_scenario

SHIPPED = Path(__file__).with_name("scenarios")

_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class GatewayChanges(BaseModel):
    """The options that a scenario may set; see GatewayOptions."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    slots: Annotated[int, Field(ge=0)] = 3
    rows_per_second: _Seconds = 200.0
    latency: _Seconds = 0.0
    first_row_delay: _Seconds = 0.05
    slot_free_delay: _Seconds = 0.0
    rows_after_cancel: _Seconds = 0.0
    early_cancel: EarlyCancel = EarlyCancel.HONOURED
    slots_held_after_drop: _Seconds = 0.0
    client_id_held_after_drop: _Seconds = 0.0
    refusals: dict[str, int] = Field(default_factory=dict)


_NO_CHANGES = GatewayChanges()


@dataclass(frozen=True, slots=True)
class Scenario:
    """What goes wrong, and when. `about` is one line for a reader."""

    steps: tuple[Step, ...]
    about: str = ""
    gateway: GatewayChanges = _NO_CHANGES

    def applied_to(self, options: GatewayOptions) -> GatewayOptions:
        """The options with those that the scenario sets. Raises ValueError as GatewayOptions does."""
        return replace(options, **{name: getattr(self.gateway, name) for name in self.gateway.model_fields_set})


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
    except ValidationError as problem:
        raise ScenarioError(f"{path}: gateway: {in_one_line(problem)}") from None
    except ScenarioError as problem:
        raise ScenarioError(f"{path}: {problem}") from None


def _scenario(document: Any) -> Scenario:
    if not isinstance(document, dict):
        return Scenario(parse_scenario(document))
    unknown = sorted(map(str, document.keys() - {"about", "gateway", "steps"}))
    if unknown:
        raise ScenarioError(f"{unknown[0]}: a scenario is a list of steps, or a mapping of about, gateway and steps")
    changes = GatewayChanges.model_validate(document.get("gateway") or {})
    return Scenario(parse_scenario(document.get("steps") or []), str(document.get("about", "")), changes)
