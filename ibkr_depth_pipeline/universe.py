"""config/ibkr_symbols.yaml -> Universe. Every fault of the file is reported at once, by entry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from ibkr_depth_pipeline.errors import ConfigurationError

_NAME = re.compile(r"[A-Z0-9][A-Z0-9.\-/&+]*(?: [A-Z0-9.\-/&+]+)?")
_NAME_RULE = (
    "a symbol is upper-case letters, digits and . - / & +, with at most one blank inside (as in 'BRK B'), "
    "at most 32 characters"
)
_CODE = re.compile(r"[A-Z0-9.]{1,20}")
_CODE_RULE = "use up to 20 upper-case letters and digits"
_CURRENCY = re.compile(r"[A-Z]{3}")
_CURRENCY_RULE = "use a code of three letters, such as USD"
_SEC_TYPES = ("STK", "IND", "FUT", "CONTFUT", "CASH", "CRYPTO", "CFD", "CMDTY", "BOND", "OPT", "FOP", "WAR", "FUND")
_LARGEST_CON_ID = 2**31 - 1
_QUOTE_IT = " (quote it: YAML reads it as something else)"
OPTIONAL_KEYS = ("exchange", "primary_exchange", "sec_type", "currency", "con_id")


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
    if not path.exists():
        raise ConfigurationError(str(path.absolute()), [_missing(path)])
    return parse_universe(read_yaml(path), str(path.absolute()))


def _missing(path: Path) -> str:
    looked = "" if path.is_absolute() else f", looked for from the folder {Path.cwd()}"
    return (
        f"can't be read: there is no such file (SYMBOL_CONFIG_PATH={str(path)!r}{looked}); "
        "start where it is, set SYMBOL_CONFIG_PATH, or let `ibkr_ingest_run init` write one to begin with"
    )


def read_yaml(path: Path) -> object:
    """What the file holds, plain data only. Raises ConfigurationError, which names the file."""
    where = str(path.absolute())
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationError(where, [f"can't be read: {error}"]) from None
    try:
        return yaml.load(text, _StrictLoader)
    except RecursionError:
        raise ConfigurationError(where, ["is not YAML that can be read: nested too deeply"]) from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:  # PyYAML's own for odd tags and dates
        raise ConfigurationError(where, [f"is not YAML that can be read: {' '.join(str(error).split())}"]) from None


def parse_universe(document: object, where: str) -> Universe:
    """Check the parsed YAML `document` of the file named `where`. Pure. Raises ConfigurationError."""
    reader = _Reader(where)
    universe = reader.read(document)
    reader.raise_problems()
    return universe


class _StrictLoader(yaml.SafeLoader):
    """Plain data only, and no key twice: YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of `node`. Raises ConstructorError, with the place, where a key stands twice."""
        seen = set()
        for key_node, _ in node.value:
            key = (key_node.tag, key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key[1]!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


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
            hint = _QUOTE_IT if isinstance(name, bool | int | float | date) else ""
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
            hint = "" if isinstance(name, str) else _QUOTE_IT
            self._problems.append(f"{place}: no such symbol in `symbols:`{hint}")
        if not isinstance(keys, Mapping):
            self._problems.append(f"{place}: must be a mapping with any of {', '.join(OPTIONAL_KEYS)}")
            return {}
        self._refuse_unknown(place, keys, OPTIONAL_KEYS)
        return self._options(place, keys)

    def _options(self, place: str, mapping: Mapping[Any, object]) -> dict[str, Any]:
        options: dict[str, Any] = {}
        for key in OPTIONAL_KEYS:
            value = mapping.get(key)
            if value is None:
                continue
            wrong = _wrong_with(key, value)
            if wrong is None:
                options[key] = value
            else:
                self._problems.append(f"{place} {key}: {value!r} is not allowed; {wrong}")
        return options

    def _refuse_unknown(self, place: str, mapping: Mapping[Any, object], allowed: Sequence[str]) -> None:
        for key in mapping:
            if key not in allowed:
                self._problems.append(f"{place}: unknown key {key!r}; allowed are {', '.join(allowed)}")


def _wrong_with(key: str, value: object) -> str | None:
    """What is allowed for that key, where `value` is not."""
    if key == "con_id":
        good = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_CON_ID
        return None if good else f"use a whole number from 1 to {_LARGEST_CON_ID}"
    hint = "" if isinstance(value, str) else _QUOTE_IT
    text = value if isinstance(value, str) else ""
    if key == "sec_type":
        return None if text in _SEC_TYPES else f"use one of {', '.join(_SEC_TYPES)}{hint}"
    if key == "currency":
        return None if _CURRENCY.fullmatch(text) else f"{_CURRENCY_RULE}{hint}"
    if text == "SMART":
        return "SMART is no venue; name a concrete one, such as ISLAND or ARCA"
    return None if _CODE.fullmatch(text) else f"{_CODE_RULE}{hint}"
