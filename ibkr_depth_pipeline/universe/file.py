"""config/ibkr_symbols.yaml -> Universe. Every fault of the file is reported at once, by entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.universe.spec import SymbolSpec
from ibkr_depth_pipeline.universe.terms import (
    TERM_RULES,
    ContractTerms,
    impossible,
    same_contracts,
    settled,
    split_pair,
)
from ibkr_depth_pipeline.yaml_files import UnquotedName, read_yaml

_LARGEST_CON_ID = 2**31 - 1
_LARGEST_WEIGHT = 100
_NOT_TEXT = (bool, int, float, date)
_QUOTE_IT = " (quote it: YAML reads it as something else)"
_NAME_RULE = (
    "a symbol is upper-case letters, digits and . - / & +, with at most one blank inside (as in 'BRK B'), "
    "at most 32 characters"
)


@dataclass(frozen=True, slots=True)
class Universe:
    """The symbols to record, in the order of the file, each name once."""

    specs: tuple[SymbolSpec, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(spec.name for spec in self.specs)

    def check_pins(self, slots: int, where: str) -> None:
        """Raises ConfigurationError if more symbols are pinned than may be with so many slots; `where` is for it.

        One slot is left for the rest to take turns in, unless there is no rest.
        """
        pinned = [spec.name for spec in self.specs if spec.pin]
        most = slots if len(pinned) == len(self.specs) else slots - 1
        if len(pinned) > most:
            told = (
                f"pin: {len(pinned)} are pinned ({', '.join(pinned)}), at most {most} may be: of "
                f"IBKR_MAX_CONCURRENT_DEPTH={slots} slots one is for the rest to take turns in; pin fewer, "
                "or give some a weight instead"
            )
            raise ConfigurationError(where, [told])

    def subset(self, symbols: Sequence[str]) -> Universe:
        """Only `symbols`, in their order. A name that the file does not hold is taken as a plain entry.

        Raises ConfigurationError for a bad or doubled name.
        """
        known = {spec.name: spec for spec in self.specs}
        problems: list[str] = []
        chosen = [known.get(name) or _entry(name, name, problems) for name in symbols]
        problems += _doubles(symbols)
        if problems:
            raise ConfigurationError("symbols asked for", problems)
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


# ---- the models of the file


def _no_smart(venue: str) -> str:
    if venue == "SMART":
        raise PydanticCustomError("smart", "SMART is no venue; name a concrete one, such as ISLAND or ARCA")
    return venue


_Venue = Annotated[str, Field(strict=True, pattern=r"^[A-Z0-9.]{1,20}$"), AfterValidator(_no_smart)]
_SecType = Literal[
    "STK", "IND", "FUT", "CONTFUT", "CASH", "CRYPTO", "CFD", "CMDTY", "BOND", "OPT", "FOP", "WAR", "FUND"
]


class _Override(ContractTerms):
    model_config = ConfigDict(extra="forbid")

    exchange: _Venue | None = None
    primary_exchange: _Venue | None = None
    sec_type: _SecType | None = None
    currency: Annotated[str, Field(strict=True, pattern=r"^[A-Z]{3}$")] | None = None
    con_id: Annotated[int, Field(strict=True, ge=1, le=_LARGEST_CON_ID)] | None = None
    pin: Annotated[bool, Field(strict=True)] | None = None
    weight: Annotated[int, Field(strict=True, ge=1, le=_LARGEST_WEIGHT)] | None = None
    hours: Literal["liquid", "trading", "always"] | None = None


_Name = Annotated[str, Field(strict=True, max_length=32, pattern=r"^[A-Z0-9][A-Z0-9.\-/&+]*(?: [A-Z0-9.\-/&+]+)?$")]


class _Entry(_Override):
    symbol: _Name | None = None
    name: _Name | None = None


class _UniverseFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    symbols: Annotated[list[Any], Field(strict=True, min_length=1)]
    overrides: dict[Any, Any] | None = None


OPTIONAL_KEYS = tuple(_Override.model_fields)

_RULES = {
    "exchange": "use up to 20 upper-case letters and digits",
    "primary_exchange": "use up to 20 upper-case letters and digits",
    "sec_type": f"use one of {', '.join(get_args(_SecType))}",
    "currency": "use a code of three letters, such as USD",
    "con_id": f"use a whole number from 1 to {_LARGEST_CON_ID}",
    "pin": "use true or false",
    "weight": f"use a whole number from 1 to {_LARGEST_WEIGHT}",
    "hours": "use one of liquid, trading, always",
    **TERM_RULES,
}
_NUMBERS = ("con_id", "multiplier", "strike", "expiry", "roll", "pin", "weight")
_FILE_RULES = {
    "symbols": "must be a list with at least one entry",
    "overrides": "must map a symbol to its settings",
}


def parse_universe(document: object, where: str) -> Universe:
    """Check the parsed YAML `document` of the file named `where`. Pure. Raises ConfigurationError."""
    problems: list[str] = []
    universe = _universe(document, problems)
    if problems:
        raise ConfigurationError(where, problems)
    return universe


def _universe(document: object, problems: list[str]) -> Universe:
    if not isinstance(document, dict):
        problems.append("the file must hold a mapping with `symbols:` and, if wanted, `overrides:`")
        return Universe(())
    wrong = {}
    try:
        _UniverseFile.model_validate(document)
    except ValidationError as error:
        wrong = {each["loc"][0]: each for each in error.errors()}
    for key, each in wrong.items():
        unknown = _unknown_key("top level", each, tuple(_UniverseFile.model_fields))
        problems.append(unknown or f"{key}: {_FILE_RULES[str(key)]}")
    entries = [] if "symbols" in wrong else document["symbols"]
    places = [_place(number, entry) for number, entry in enumerate(entries, start=1)]
    specs = [_entry(entry, place, problems) for entry, place in zip(entries, places, strict=True)]
    found = [(place, spec) for place, spec in zip(places, specs, strict=True) if spec is not None]
    problems += _doubles([spec.name for _, spec in found])
    overrides = {} if "overrides" in wrong else document.get("overrides") or {}
    names = {spec.name for _, spec in found}
    changes = {name: _override(name, keys, names, problems) for name, keys in overrides.items()}
    final = [_settled(place, replace(spec, **changes.get(spec.name, {})), problems) for place, spec in found]
    problems += same_contracts(final)
    return Universe(tuple(final))


def _place(number: int, entry: object) -> str:
    named = entry.get("name") or entry.get("symbol", "(no symbol)") if isinstance(entry, Mapping) else entry
    return f"symbols[{number}] {named!r}"


def _entry(entry: object, place: str, problems: list[str]) -> SymbolSpec | None:
    """The spec of a name or a mapping; with a bad option it lacks that, with a bad name it is None."""
    given = dict(entry) if isinstance(entry, Mapping) else {"symbol": entry}
    before = len(problems)
    options = _checked(_Entry, given, place, problems)
    if "symbol" in options:
        return SymbolSpec(**options)
    says_enough = given.get("con_id") is not None or given.get("local_symbol") is not None
    if "name" in options and given.get("symbol") is None:
        return SymbolSpec(**{"symbol": "" if says_enough else options["name"], **options})
    if len(problems) == before:
        hint = _QUOTE_IT if entry is None else ""
        rule = "an entry without a symbol needs a name" if says_enough else f"a symbol must be a text{hint}"
        problems.append(f"{place}: {rule}")
    return None


def _settled(place: str, spec: SymbolSpec, problems: list[str]) -> SymbolSpec:
    """The spec with its pair split; a problem if no contract can be like that."""
    wrong = impossible(spec)
    if wrong:
        problems.append(f"{place} {wrong}")
    pair = split_pair(spec)
    return spec if pair is None else replace(spec, symbol=pair[0], currency=pair[1])


def _override(name: object, keys: object, names: set[str], problems: list[str]) -> dict[str, Any]:
    place = f"overrides[{name!r}]"
    if isinstance(name, UnquotedName):
        problems.append(f"{place}: write '{name}' in quotes{_QUOTE_IT}")
    elif name not in names:
        problems.append(f"{place}: no such symbol in `symbols:`{'' if isinstance(name, str) else _QUOTE_IT}")
    if not isinstance(keys, Mapping):
        problems.append(f"{place}: must be a mapping with any of {', '.join(OPTIONAL_KEYS)}")
        return {}
    return _checked(_Override, dict(keys), place, problems)


def _checked(model: type[_Override], given: dict[Any, Any], place: str, problems: list[str]) -> dict[str, Any]:
    """The good values among `given`; a problem for each of the others."""
    bad: set[Any] = {key for key, value in given.items() if isinstance(value, UnquotedName)}
    problems += [f"{place} {key}: write '{given[key]}' in quotes{_QUOTE_IT}" for key in given if key in bad]
    allowed = sorted(model.model_fields, key=lambda key: (key != "symbol", key != "name"))
    try:
        model.model_validate({key: value for key, value in given.items() if key not in bad})
    except ValidationError as error:
        for each in error.errors():
            bad.add(each["loc"][0])
            problems.append(_unknown_key(place, each, allowed) or _problem(place, each))
    return settled({key: given[key] for key in model.model_fields if key not in bad and given.get(key) is not None})


def _unknown_key(place: str, error: ErrorDetails, allowed: Sequence[str]) -> str:
    """The problem if `error` is about a key, otherwise ""."""
    if error["type"] not in ("extra_forbidden", "invalid_key"):
        return ""
    key = error["input"] if error["type"] == "invalid_key" else error["loc"][0]
    return f"{place}: unknown key {key!r}; allowed are {', '.join(allowed)}"


def _problem(place: str, error: ErrorDetails) -> str:
    key, value = str(error["loc"][0]), error["input"]
    if key in ("symbol", "name") and isinstance(value, str):
        return f"{place}: {value!r} is not a {key}; {_NAME_RULE.replace('a symbol is', f'a {key} is')}"
    if key in ("symbol", "name"):
        return f"{place}: a {key} must be a text{_QUOTE_IT if isinstance(value, _NOT_TEXT) else ''}"
    hint = "" if isinstance(value, str) or key in _NUMBERS else _QUOTE_IT
    rule = error["msg"] if error["type"] == "smart" else f"{_RULES[key]}{hint}"
    return f"{place} {key}: {value!r} is not allowed; {rule}"


def _doubles(names: Sequence[str]) -> list[str]:
    """A problem for every name that is listed more than once."""
    doubled = sorted({name for name in names if names.count(name) > 1})
    return [f"{name!r} is listed {names.count(name)} times; list each symbol once" for name in doubled]
