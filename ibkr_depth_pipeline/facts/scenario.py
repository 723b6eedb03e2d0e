"""Facts -> a scenario for `ibkr_gateway_sim`, which then behaves as that gateway did. Pure.

docs/simulated-gateway.md has the options. What was not seen stays as the simulated gateway has it by default.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import yaml

from ibkr_depth_pipeline.gateway_facts import GatewayFacts

ABOUT = "as a gateway that ibkr_gateway_facts has seen"
LEAST_SECS = 0.05
"""Shorter times are those of the way there and back."""

_SAME: Mapping[str, str] = {
    "server_version": "server_version",
    "nasdaq_name": "nasdaq_name",
    "slots": "slots",
    "slots_count": "slots_count",
    "early_cancel": "early_cancel",
    "row_styles": "row_styles",
}
_SECONDS: Mapping[str, str] = {
    "greeting_secs": "greeting_delay",
    "clock_ahead_secs": "clock_offset",
    "details_secs": "details_delay",
    "slot_free_secs": "slot_free_delay",
    "rows_after_cancel_secs": "rows_after_cancel",
    "slots_held_after_drop_secs": "slots_held_after_drop",
    "client_id_held_after_drop_secs": "client_id_held_after_drop",
}
_TEXTS = ("unknown_contract", "unknown_cancel", "no_slot", "no_depth")


def scenario_of(facts: GatewayFacts) -> dict[str, Any]:
    """The document of a scenario file."""
    seen = {name: each.seen for name, each in facts.facts.items() if each.seen is not None}
    day = datetime.fromtimestamp(facts.ended_ts / 1000, timezone.utc).date().isoformat()
    gateway: dict[str, Any] = {option: seen[fact] for fact, option in _SAME.items() if fact in seen}
    gateway |= {option: seen[fact] for fact, option in _SECONDS.items() if abs(_number(seen.get(fact))) >= LEAST_SECS}
    gateway |= dict(_errors(seen))
    gateway |= dict(_access(seen))
    gateway |= dict(_rows(seen))
    return {
        "about": f"{ABOUT} on {day}",
        "gateway": gateway,
        "steps": list(_steps(seen)),
    }


def scenario_text(facts: GatewayFacts) -> str:
    """The text of a scenario file."""
    return yaml.safe_dump(scenario_of(facts), sort_keys=False, allow_unicode=True, width=110)


def _number(seen: Any) -> float:
    return float(seen) if isinstance(seen, int | float) else 0.0


def _errors(seen: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    errors = [seen[fact] for fact in _TEXTS if isinstance(seen.get(fact), dict)]
    yield "texts", {each["code"]: each["text"] for each in errors}
    if isinstance(seen.get("no_slot"), dict):
        yield "no_slot_code", seen["no_slot"]["code"]
    advisories = seen.get("advisories") or {}
    if advisories:
        yield "advisories", {symbol: each["code"] for symbol, each in advisories.items()}
        yield "advisory_delay", max(each["secs"] for each in advisories.values())


def _access(seen: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    refused: dict[str, dict[str, int]] = defaultdict(dict)
    asked: dict[str, int] = defaultdict(int)
    silent = []
    for symbol, venues in (seen.get("venues_with_depth") or {}).items():
        for venue, access in venues.items():
            asked[venue] += 1
            if isinstance(access, int):
                refused[venue][symbol] = access
            elif access == "silent":
                silent.append(f"{symbol}@{venue}")
    yield "venue_refusals", dict(_refusals(refused, asked))
    yield "silent_symbols", silent


def _refusals(refused: Mapping[str, Mapping[str, int]], asked: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """A venue that refused every symbol with the same code refuses any symbol."""
    for venue, codes in refused.items():
        if len(codes) == asked[venue] and len(set(codes.values())) == 1:
            yield f"*@{venue}", next(iter(codes.values()))
        else:
            yield from ((f"{symbol}@{venue}", code) for symbol, code in codes.items())


def _rows(seen: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    first = seen.get("first_row_secs") or {}
    if first:
        yield "first_row_delay", round(statistics.median(first.values()), 2)
        yield "venue_first_row_delays", first
    rates: dict[str, float] = {}
    for place, rate in (seen.get("row_rates") or {}).items():
        rates.setdefault(place.partition("@")[0], rate)
    if rates:
        yield "rows_per_second", round(statistics.median(rates.values()), 1)
        yield "symbol_rates", rates
    yield "sizes_in_lots", "lots" in (seen.get("size_units") or {}).values()


def _steps(seen: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    counts: dict[str, int] = defaultdict(int)
    for place, count in (seen.get("updates_past_end") or {}).items():
        symbol = place.partition("@")[0]
        counts[symbol] = max(counts[symbol], count)
    for symbol, count in counts.items():
        yield {"at": 0.0, "do": "updates_past_end", "symbol": symbol, "count": count, "times": 1_000_000}
