"""What an entry of the universe may state of its contract, and what follows: pairs, expiries, rolls. Pure."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from datetime import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ibkr_depth_pipeline.futures import MOST_DAYS_BEFORE, Expiry, RollRule, zone_named
from ibkr_depth_pipeline.universe.spec import SymbolSpec

NO_BONDS = "BOND is not recorded: IBKR lists no exchange with market depth of bonds"

_EXPIRING = ("FUT", "CONTFUT", "FOP", "OPT", "WAR")
_STRUCK = ("FOP", "OPT", "WAR")
_LOCAL_SYMBOL = r"^[A-Za-z0-9](?:[A-Za-z0-9 .\-/&+]{0,38}[A-Za-z0-9])?$"
_PAIR = re.compile(r"([A-Z]{3})[./]?([A-Z]{3})")


def _number_text(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if is_number and abs(float(str(value))) < 1e9 else value


def _expiry_text(value: object) -> str:
    return str(Expiry.parse(value))


def _time_of_day(value: object) -> time:
    """HH:MM or HH:MM:SS; a number is what YAML makes of that unquoted: minutes, or seconds from 1:00:00 on."""
    if isinstance(value, int) and not isinstance(value, bool) and (0 <= value < 1440 or 3600 <= value < 86_400):
        minutes, seconds = divmod(value, 60) if value >= 3600 else (value, 0)
        return time(minutes // 60, minutes % 60, seconds)
    if isinstance(value, str) and re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", value):
        hours, minutes, seconds = [*map(int, value.split(":")), 0][:3]
        return time(hours, minutes, seconds)
    raise ValueError("no time of day")


def _zone(name: str) -> str:
    if zone_named(name) is None:
        raise ValueError("no time zone")
    return name


class _Roll(BaseModel):
    model_config = ConfigDict(extra="forbid")

    days_before: Annotated[int, Field(strict=True, ge=0, le=MOST_DAYS_BEFORE)] | None = None
    at: Annotated[time, BeforeValidator(_time_of_day)] | None = None
    timezone: Annotated[str, Field(strict=True), AfterValidator(_zone)] | None = None


def _roll_rule(value: object) -> RollRule:
    found = _Roll.model_validate(value)
    return RollRule(found.days_before, found.at, found.timezone)


class ContractTerms(BaseModel):
    """The keys of an entry that say which contract is meant, apart from symbol, type, currency, venues and con_id."""

    model_config = ConfigDict(extra="forbid")

    local_symbol: Annotated[
        str, Field(strict=True, pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9 .\-/&+]{0,38}[A-Za-z0-9])?$")
    ] | (None) = None
    trading_class: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9 .\-/&+]{0,19}$")] | None = None
    multiplier: (
        Annotated[str, BeforeValidator(_number_text), Field(strict=True, pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$")] | None
    ) = None
    expiry: Annotated[str, BeforeValidator(_expiry_text)] | None = None
    strike: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    right: Literal["C", "P", "CALL", "PUT"] | None = None
    roll: Annotated[Any, AfterValidator(_roll_rule)] | None = None


TERM_RULES: Mapping[str, str] = {
    "local_symbol": "use IBKR's own name of the contract, such as ESZ6, at most 40 characters",
    "trading_class": "use IBKR's trading class, such as FDAX, at most 20 characters",
    "multiplier": "use a number, such as 50",
    "expiry": "use front, front+1, a month such as 202612, or a last trade date such as 20261218",
    "strike": "use a price above 0",
    "right": "use C or P",
    "roll": (
        f"use a mapping with days_before (whole days from 0 to {MOST_DAYS_BEFORE}), at (a time such as '17:00') and "
        "timezone (such as America/Chicago)"
    ),
}


def settled(terms: dict[str, Any]) -> dict[str, Any]:
    """Checked terms as the spec has them: texts of numbers, a side of one letter, a rule for the roll."""
    changed: dict[str, Any] = {}
    if "expiry" in terms:
        changed["expiry"] = _expiry_text(terms["expiry"])
    if "multiplier" in terms:
        changed["multiplier"] = str(_number_text(terms["multiplier"]))
    if "strike" in terms:
        changed["strike"] = float(terms["strike"])
    if "right" in terms:
        changed["right"] = str(terms["right"])[:1]
    if "roll" in terms:
        changed["roll"] = _roll_rule(terms["roll"])
    return {**terms, **changed}


def split_pair(spec: SymbolSpec) -> tuple[str, str] | None:
    """(base, quote) of a currency pair named as IBKR names it (EUR.GBP), or without the dot; None for anything else."""
    pair = _PAIR.fullmatch(spec.symbol) if spec.sec_type == "CASH" else None
    return (pair[1], pair[2]) if pair else None


def impossible(spec: SymbolSpec) -> str:
    """Why no contract can be like that; empty if one can."""
    pair = split_pair(spec)
    if spec.sec_type == "BOND":
        return f"sec_type: {NO_BONDS}; remove the entry"
    if pair is not None and spec.currency not in (None, pair[1]):
        return f"currency: {spec.currency!r} contradicts the pair {spec.symbol}; leave it out"
    if spec.con_id is not None:
        rolls = spec.expiry is not None and not spec.expiry.isdigit()
        return (
            f"expiry: {spec.expiry!r} contradicts con_id, which is one contract; leave one of them out" if rolls else ""
        )
    return _impossible_expiry(spec)


def _impossible_expiry(spec: SymbolSpec) -> str:
    kind = spec.sec_type or "STK"
    rolls = kind == "CONTFUT" or (spec.expiry is not None and not spec.expiry.isdigit())
    if spec.expiry is not None and kind not in _EXPIRING:
        return f"expiry: {kind} does not expire; use sec_type FUT, OPT or FOP, or leave it out"
    if kind == "CONTFUT" and spec.expiry is not None and spec.expiry.isdigit():
        return f"expiry: {spec.expiry!r} contradicts CONTFUT, which means front; use sec_type: FUT"
    if rolls and kind in _STRUCK:
        return f"expiry: {spec.expiry!r} is for futures; use a month or a date for {kind}"
    if spec.roll is not None and not rolls:
        return "roll: only what is listed with expiry: front (or front+1) rolls; leave it out"
    if (spec.strike is not None or spec.right is not None) and kind not in _STRUCK:
        return f"strike, right: {kind} has none; use sec_type OPT or FOP, or leave them out"
    is_open = kind in ("OPT", "FOP") and spec.local_symbol is None
    if is_open and None in (spec.expiry, spec.strike, spec.right):
        return f"{kind} needs expiry, strike and right, or local_symbol, or con_id"
    return ""


def contract_key(spec: SymbolSpec) -> Hashable:
    """Equal for two entries that ask for one and the same contract on the same venue."""
    if spec.con_id is not None:
        return spec.con_id, spec.exchange
    kind = "FUT" if spec.sec_type == "CONTFUT" else spec.sec_type
    expiry = spec.expiry or ("front" if spec.sec_type == "CONTFUT" else None)
    currency = spec.currency or (None if kind in ("FUT", "FOP") else "USD")
    venue = "NASDAQ" if spec.exchange == "ISLAND" else spec.exchange
    named = (spec.symbol, kind or "STK", currency, venue, spec.primary_exchange, spec.local_symbol)
    return *named, spec.trading_class, spec.multiplier, expiry, spec.strike, spec.right


def same_contracts(specs: Iterable[SymbolSpec]) -> list[str]:
    """A problem for each entry that asks for the contract of an earlier one."""
    owners: dict[Hashable, str] = {}
    problems = []
    for spec in specs:
        first = owners.setdefault(contract_key(spec), spec.name)
        if first != spec.name:
            problems.append(f"{first!r} and {spec.name!r} ask for one and the same contract and venue; list it once")
    return problems
