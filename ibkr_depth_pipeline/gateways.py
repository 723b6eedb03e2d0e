"""The gateways to record from: the one of the settings, or those that config/gateways.yaml lists, one per account.

    gateways:
      - {name: paper, port: 4002, client_id: 777, slots: 3, universe: paper_symbols.yaml}

An entry's keys override settings (`_SETTINGS` below); the rest is as the settings say for all. The paths of universe
and facts are relative to the file's folder. Keys in Redis are per symbol, so a symbol belongs to one gateway only.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.universe import SymbolSpec, load_universe
from ibkr_depth_pipeline.universe.terms import contract_key
from ibkr_depth_pipeline.yaml_files import read_yaml

_SETTINGS = {
    "name": "ibkr_gateway_name",
    "host": "ibkr_host",
    "port": "ibkr_port",
    "client_id": "ibkr_client_id",
    "probe_client_id": "ibkr_probe_client_id",
    "slots": "ibkr_max_concurrent_depth",
    "metrics_port": "ibkr_metrics_port",
    "deadman_url": "deadman_url",
    "universe": "symbol_config_path",
    "facts": "ibkr_gateway_facts",
}
_NAME_RULE = "a letter, then letters, digits and _, all in lower case, at most 32"


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway: `overrides` (setting -> value) distinguish it. No name: the one of the settings alone."""

    name: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, **overrides: Any) -> Settings:
        """The settings of this gateway; `overrides` win over its own. Raises ConfigurationError."""
        given = {name: value for name, value in overrides.items() if value is not None}
        return load_settings(**{**self.overrides, **given})


def load_gateways() -> tuple[Gateway, ...]:
    """The gateways of the file that GATEWAYS_CONFIG_PATH names; without that file, the one of the settings.

    Raises ConfigurationError, which names the file and every bad entry at once.
    """
    path = load_settings().gateways_config_path
    if not path.exists() and path == Settings.model_fields["gateways_config_path"].default:
        return (Gateway(),)
    gateways = parse_gateways(read_yaml(path), path)
    _warn_of_shared_switch(gateways)
    return gateways


def gateway_named(name: str) -> Gateway:
    """The gateway as it is configured now. Raises ConfigurationError if it is gone, or the file is bad."""
    gateways = load_gateways()
    found = next((gateway for gateway in gateways if gateway.name == name), None)
    if found is None:
        listed = ", ".join(gateway.name or "the one of the settings" for gateway in gateways)
        problem = f"{name or 'the gateway of the settings'} is no longer listed ({listed}); reload the code location"
        raise ConfigurationError("gateways", [problem])
    return found


class _Entry(BaseModel):
    """An entry's keys. The values but for the name are checked as the settings that they override."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    universe: Any
    host: Any = None
    port: Any = None
    client_id: Any = None
    probe_client_id: Any = None
    slots: Any = None
    metrics_port: Any = None
    facts: Any = None
    deadman_url: Any = None


class _GatewaysFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    gateways: Annotated[list[Any], Field(strict=True, min_length=1)]


def parse_gateways(document: object, path: Path) -> tuple[Gateway, ...]:
    """Check the parsed YAML `document` of the file at `path`, and the universes that it names."""
    problems: list[str] = []
    gateways = _gateways(document, path.parent, problems)
    if problems:
        raise ConfigurationError(str(path.absolute()), problems)
    return gateways


def _gateways(document: object, folder: Path, problems: list[str]) -> tuple[Gateway, ...]:
    try:
        entries = _GatewaysFile.model_validate(document).gateways
    except ValidationError:
        problems.append("the file must hold `gateways:`, a list with at least one entry, and nothing else")
        return ()
    found = {}
    for number, entry in enumerate(entries, start=1):
        name = entry.get("name") if isinstance(entry, Mapping) else entry
        place = f"gateways[{number}] {'(no name)' if name is None else repr(name)}"
        if (gateway := _gateway(place, entry, folder, problems)) is not None:
            found[place] = gateway
    _refuse_shared(found, problems)
    return tuple(found.values())


def _gateway(place: str, entry: object, folder: Path, problems: list[str]) -> Gateway | None:
    if not isinstance(entry, Mapping):
        problems.append(f"{place}: must be a mapping with {', '.join(_SETTINGS)}")
        return None
    given = {key: value for key, value in entry.items() if value is not None}
    found = _wrong_keys(place, given)
    overrides = {setting: given[key] for key, setting in _SETTINGS.items() if key in given}
    for name in ("symbol_config_path", "ibkr_gateway_facts"):
        if isinstance(overrides.get(name), str):
            overrides[name] = folder / overrides[name]
    found += _wrong_values(place, {name: value for name, value in overrides.items() if name != "ibkr_gateway_name"})
    problems += found
    return None if found else Gateway(given["name"], overrides)


def _wrong_keys(place: str, given: Mapping[Any, Any]) -> list[str]:
    try:
        _Entry.model_validate(given)
    except ValidationError as error:
        return [_problem(place, each) for each in error.errors()]
    return []


def _problem(place: str, error: ErrorDetails) -> str:
    match error["type"]:
        case "missing":
            return f"{place}: {error['loc'][0]} is missing"
        case "extra_forbidden":
            return f"{place}: unknown key {error['loc'][0]!r}; allowed are {', '.join(_SETTINGS)}"
        case "invalid_key":
            return f"{place}: unknown key {error['input']!r}; allowed are {', '.join(_SETTINGS)}"
        case _:
            return f"{place} name: {error['input']!r} is not allowed; {_NAME_RULE}"


def _wrong_values(place: str, overrides: Mapping[str, Any]) -> list[str]:
    try:
        load_settings(**overrides)
    except ConfigurationError as error:
        keys = {setting.upper(): key for key, setting in _SETTINGS.items() if setting in overrides}
        parts = [problem.partition("=") for problem in error.problems]
        return [f"{place} {keys[name]}: {rest}" for name, _, rest in parts if name in keys]
    return []


def _refuse_shared(gateways: Mapping[str, Gateway], problems: list[str]) -> None:
    """A name, a network address, a symbol and a contract belong to one entry each."""
    owners: dict[tuple[str, object], str] = {}
    contracts: dict[Hashable, tuple[str, str]] = {}
    for place, gateway in gateways.items():
        settings = gateway.settings()
        owned = [("the name", gateway.name), ("the gateway at", f"{settings.ibkr_host}:{settings.ibkr_port}")]
        specs = _specs(place, settings, problems)
        owned += [("the symbol", spec.name) for spec in specs]
        for what, which in owned:
            first = owners.setdefault((what, which), place)
            if first != place:
                problems.append(f"{place}: {what} {which} is listed under {first} too; list it once")
        for spec in specs:
            name, first = contracts.setdefault(contract_key(spec), (spec.name, place))
            if first != place and name != spec.name:
                problems.append(f"{place}: {spec.name!r} asks for the contract of {name!r} under {first}; list it once")


def _warn_of_shared_switch(gateways: Sequence[Gateway]) -> None:
    """A switch that two gateways ping stays quiet as long as one of them is well."""
    sharing: dict[str, list[str]] = {}
    for gateway in gateways:
        sharing.setdefault(gateway.settings().deadman_target, []).append(gateway.name)
    for target, names in sharing.items():
        if target and len(names) > 1:
            get_log().warning("deadman_url_shared", gateways=names, advice=_SWITCH_ADVICE)


_SWITCH_ADVICE = "put {gateway} into DEADMAN_URL, which stands for the gateway's name, or give each entry a deadman_url"


def _specs(place: str, settings: Settings, problems: list[str]) -> Sequence[SymbolSpec]:
    try:
        universe = load_universe(settings.symbol_config_path)
        universe.check_pins(settings.ibkr_max_concurrent_depth, str(settings.symbol_config_path))
        return universe.specs
    except ConfigurationError as error:
        problems.append(f"{place} universe: {error}")
        return ()
