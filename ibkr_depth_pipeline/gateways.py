"""Which gateways there are: the one of the settings, or those that config/gateways.yaml lists, an account each.

    gateways:
      - {name: paper, port: 4002, client_id: 777, slots: 3, universe: paper_symbols.yaml}

An entry's keys override settings (`_SETTINGS` below); the rest is as the settings say for all. The universe's path is
relative to the file's folder. Keys in Redis are per symbol, so a symbol belongs to one gateway only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.universe import Universe, load_universe, read_yaml

_SETTINGS = {
    "name": "ibkr_gateway_name",
    "host": "ibkr_host",
    "port": "ibkr_port",
    "client_id": "ibkr_client_id",
    "probe_client_id": "ibkr_probe_client_id",
    "slots": "ibkr_max_concurrent_depth",
    "metrics_port": "ibkr_metrics_port",
    "universe": "symbol_config_path",
}
_REQUIRED = ("name", "universe")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway: `overrides` (setting -> value) is what sets it apart. No name: that of the settings alone."""

    name: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, **overrides: Any) -> Settings:
        """What is in force for it; what is given here wins. Raises ConfigurationError."""
        given = {name: value for name, value in overrides.items() if value is not None}
        return load_settings(**{**self.overrides, **given})


def load_gateways() -> tuple[Gateway, ...]:
    """Those of the file that GATEWAYS_CONFIG_PATH names; without that file, the one of the settings.

    Raises ConfigurationError, which names the file and every bad entry at once.
    """
    path = load_settings().gateways_config_path
    if not path.exists() and path == Settings.model_fields["gateways_config_path"].default:
        return (Gateway(),)
    return parse_gateways(read_yaml(path), path)


def gateway_named(name: str) -> Gateway:
    """That gateway as it is configured now. Raises ConfigurationError where it is gone, or the file is bad."""
    gateways = load_gateways()
    found = next((gateway for gateway in gateways if gateway.name == name), None)
    if found is None:
        listed = ", ".join(gateway.name or "the one of the settings" for gateway in gateways)
        told = f"{name or 'the gateway of the settings'} is no longer listed ({listed}); reload the code location"
        raise ConfigurationError("gateways", [told])
    return found


def parse_gateways(document: object, path: Path) -> tuple[Gateway, ...]:
    """Check the parsed YAML `document` of the file at `path`, and the universes that it names."""
    reader = _Reader(path)
    gateways = reader.read(document)
    if reader.problems:
        raise ConfigurationError(str(path.absolute()), reader.problems)
    return gateways


class _Reader:
    """Collects problems on the way, so that one error lists them all."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self.problems: list[str] = []

    def read(self, document: object) -> tuple[Gateway, ...]:
        entries = document.get("gateways") if isinstance(document, Mapping) and len(document) == 1 else None
        if not isinstance(entries, list) or not entries:
            self.problems.append("the file must hold `gateways:`, a list with at least one entry, and nothing else")
            return ()
        places = [f"gateways[{number}] {_called(entry)}" for number, entry in enumerate(entries, start=1)]
        found = [self._gateway(place, entry) for place, entry in zip(places, entries, strict=True)]
        settled = [(place, each) for place, each in zip(places, found, strict=True) if each is not None]
        self._refuse_shared(settled)
        return tuple(gateway for _, gateway in settled)

    def _gateway(self, place: str, entry: object) -> Gateway | None:
        before = len(self.problems)
        if not isinstance(entry, Mapping):
            self.problems.append(f"{place}: must be a mapping with {', '.join(_SETTINGS)}")
            return None
        self._check_keys(place, entry)
        overrides = {setting: entry[key] for key, setting in _SETTINGS.items() if entry.get(key) is not None}
        if isinstance(overrides.get("symbol_config_path"), str):
            overrides["symbol_config_path"] = self._folder / overrides["symbol_config_path"]
        self._check_values(place, {name: value for name, value in overrides.items() if name != "ibkr_gateway_name"})
        return Gateway(str(entry["name"]), overrides) if len(self.problems) == before else None

    def _check_keys(self, place: str, entry: Mapping[Any, Any]) -> None:
        unknown = [key for key in entry if key not in _SETTINGS]
        self.problems += [f"{place}: unknown key {key!r}; allowed are {', '.join(_SETTINGS)}" for key in unknown]
        self.problems += [f"{place}: {key} is missing" for key in _REQUIRED if entry.get(key) is None]
        name = entry.get("name")
        if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
            rule = "a letter, then letters, digits and _, all in lower case, at most 32"
            self.problems.append(f"{place} name: {name!r} is not allowed; {rule}")

    def _check_values(self, place: str, overrides: Mapping[str, Any]) -> None:
        try:
            load_settings(**overrides)
        except ConfigurationError as error:
            keys = {setting.upper(): key for key, setting in _SETTINGS.items() if setting in overrides}
            told = [problem.partition("=") for problem in error.problems]
            self.problems += [f"{place} {keys[name]}: {rest}" for name, _, rest in told if name in keys]

    def _refuse_shared(self, settled: Sequence[tuple[str, Gateway]]) -> None:
        """A name, a place on the network and a symbol belong to one entry each."""
        owners: dict[tuple[str, object], str] = {}
        for place, gateway in settled:
            settings = gateway.settings()
            owned = [("the name", gateway.name), ("the gateway at", f"{settings.ibkr_host}:{settings.ibkr_port}")]
            owned += [("the symbol", symbol) for symbol in self._universe(place, settings).symbols]
            for what, which in owned:
                first = owners.setdefault((what, which), place)
                if first != place:
                    self.problems.append(f"{place}: {what} {which} is listed under {first} too; list it once")

    def _universe(self, place: str, settings: Settings) -> Universe:
        try:
            return load_universe(settings.symbol_config_path)
        except ConfigurationError as error:
            self.problems.append(f"{place} universe: {error}")
            return Universe(())


def _called(entry: object) -> str:
    name = entry.get("name") if isinstance(entry, Mapping) else entry
    return "(no name)" if name is None else repr(name)
