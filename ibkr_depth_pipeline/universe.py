"""config/ibkr_symbols.yaml -> Universe. Every fault of the file is reported at once, by entry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ibkr_depth_pipeline.errors import ConfigurationError

_NAME = re.compile(r"[A-Z0-9][A-Z0-9.\-/&+]*(?: [A-Z0-9.\-/&+]+)?")
_NAME_RULE = (
    "a symbol is upper-case letters, digits and . - / & +, with at most one blank inside (as in 'BRK B'), "
    "at most 32 characters"
)
_TEXT_KEYS = ("exchange", "primary_exchange", "sec_type", "currency")
_CODE = re.compile(r"[A-Z0-9.]{1,20}")
OPTIONAL_KEYS = (*_TEXT_KEYS, "con_id")


@dataclass(frozen=True, slots=True)
class SymbolSpec:
    """One entry of the universe, overrides already applied. None means: ask the gateway."""

    symbol: str
    exchange: str | None = None
    primary_exchange: str | None = None
    sec_type: str | None = None
    currency: str | None = None
    con_id: int | None = None


@dataclass(frozen=True, slots=True)
class Universe:
    """The symbols to record, in the order of the file, each name once."""

    specs: tuple[SymbolSpec, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(spec.symbol for spec in self.specs)

    def subset(self, symbols: Sequence[str]) -> Universe:
        """Only `symbols`, in their order. A name that the file does not hold is taken as a plain entry.

        Raises ConfigurationError for a bad or doubled name.
        """
        known = {spec.symbol: spec for spec in self.specs}
        reader = _Reader("symbols asked for")
        chosen = [known.get(name) or reader.entry(name, name) for name in symbols]
        reader.refuse_doubles(list(symbols))
        reader.raise_problems()
        return Universe(tuple(spec for spec in chosen if spec is not None))


def load_universe(path: Path) -> Universe:
    """Read and check the file. Raises ConfigurationError, which names the file and every bad entry."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path.absolute()), [f"can't be read: {error}"]) from None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(str(path), [f"is not YAML: {' '.join(str(error).split())}"]) from None
    return parse_universe(document, str(path))


def parse_universe(document: object, where: str) -> Universe:
    """Check the parsed YAML `document` of the file named `where`. Pure. Raises ConfigurationError."""
    reader = _Reader(where)
    universe = reader.read(document)
    reader.raise_problems()
    return universe


class _Reader:
    """Collects problems on the way, so that one error lists them all."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._problems: list[str] = []

    def raise_problems(self) -> None:
        if self._problems:
            raise ConfigurationError(self._where, self._problems)

    def read(self, document: object) -> Universe:
        if not isinstance(document, Mapping):
            self._problems.append("the file must hold a mapping with `symbols:` and, if wanted, `overrides:`")
            return Universe(())
        self._refuse_unknown("top level", document, ("symbols", "overrides"))
        entries = document.get("symbols")
        if not isinstance(entries, list) or not entries:
            self._problems.append("symbols: must be a list with at least one entry")
            entries = []
        specs = [self._spec(index, entry) for index, entry in enumerate(entries, start=1)]
        found = [spec for spec in specs if spec is not None]
        self.refuse_doubles([spec.symbol for spec in found])
        overrides = self._overrides(document.get("overrides"), {spec.symbol for spec in found})
        return Universe(tuple(replace(spec, **overrides.get(spec.symbol, {})) for spec in found))

    def _spec(self, index: int, entry: object) -> SymbolSpec | None:
        if isinstance(entry, Mapping):
            place = f"symbols[{index}] {entry.get('symbol', '(no symbol)')!r}"
            self._refuse_unknown(place, entry, ("symbol", *OPTIONAL_KEYS))
            return self.entry(entry.get("symbol"), place, self._options(place, entry))
        return self.entry(entry, f"symbols[{index}] {entry!r}")

    def entry(self, name: object, place: str, options: Mapping[str, Any] | None = None) -> SymbolSpec | None:
        """The entry of `name`, or None with the problem noted."""
        if not isinstance(name, str):
            hint = " (quote it: YAML reads it as something else)" if name is not None else ""
            self._problems.append(f"{place}: a symbol must be a text{hint}")
            return None
        if len(name) > 32 or not _NAME.fullmatch(name):
            self._problems.append(f"{place}: {name!r} is not a symbol; {_NAME_RULE}")
            return None
        return SymbolSpec(name, **(options or {}))

    def refuse_doubles(self, names: Sequence[str]) -> None:
        """Note every name that stands more than once."""
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._problems.append(f"{name!r} is listed {names.count(name)} times; list each symbol once")

    def _overrides(self, overrides: object, symbols: set[str]) -> dict[str, dict[str, Any]]:
        if overrides is None:
            return {}
        if not isinstance(overrides, Mapping):
            self._problems.append("overrides: must map a symbol to its settings")
            return {}
        return {str(name): self._override(name, keys, symbols) for name, keys in overrides.items()}

    def _override(self, name: object, keys: object, symbols: set[str]) -> dict[str, Any]:
        place = f"overrides[{name!r}]"
        if name not in symbols:
            self._problems.append(f"{place}: no such symbol in `symbols:`")
        if not isinstance(keys, Mapping):
            self._problems.append(f"{place}: must be a mapping with any of {', '.join(OPTIONAL_KEYS)}")
            return {}
        self._refuse_unknown(place, keys, OPTIONAL_KEYS)
        return self._options(place, keys)

    def _options(self, place: str, mapping: Mapping[Any, object]) -> dict[str, Any]:
        options: dict[str, Any] = {}
        for key in _TEXT_KEYS:
            value = mapping.get(key)
            if value is not None and self._is_code(f"{place} {key}", value):
                options[key] = value
        con_id = mapping.get("con_id")
        if con_id is not None and (isinstance(con_id, bool) or not isinstance(con_id, int) or con_id <= 0):
            self._problems.append(f"{place} con_id: {con_id!r} is not a contract id; allowed is a whole number above 0")
        elif con_id is not None:
            options["con_id"] = con_id
        if options.get("exchange") == "SMART":
            self._problems.append(f"{place} exchange: SMART is no venue; name a concrete one, such as ISLAND or ARCA")
        return options

    def _is_code(self, place: str, value: object) -> bool:
        good = isinstance(value, str) and _CODE.fullmatch(value) is not None
        if not good:
            self._problems.append(f"{place}: {value!r} is not allowed; use up to 20 upper-case letters and digits")
        return good

    def _refuse_unknown(self, place: str, mapping: Mapping[Any, object], allowed: Sequence[str]) -> None:
        for key in mapping:
            if key not in allowed:
                self._problems.append(f"{place}: unknown key {key!r}; allowed are {', '.join(allowed)}")
