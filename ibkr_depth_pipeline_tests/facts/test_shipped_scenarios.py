"""The experiments against every shipped scenario: they end in time, and what they find is what the scenario has."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ibkr_depth_pipeline.errors import GatewayError
from ibkr_depth_pipeline.gateway_facts import GatewayFacts
from ibkr_depth_pipeline.simulation import GatewayOptions, shipped_scenarios
from ibkr_depth_pipeline_tests.facts.gateways import QUICK, facts_of

LIMITS = replace(QUICK, total=40.0, most_venues=1, watch=0.6)
AT_ONCE = 6

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


async def _found_in(name: str, turns: asyncio.Semaphore) -> GatewayFacts | GatewayError:
    scenario = shipped_scenarios()[name]
    async with turns:
        try:
            options = scenario.applied_to(GatewayOptions())
            return await facts_of(options, scenario.steps, limits=LIMITS, connect_timeout=3.0, symbols=("SPY",))
        except GatewayError as error:
            return error


async def _all_found() -> dict[str, GatewayFacts | GatewayError]:
    turns = asyncio.Semaphore(AT_ONCE)
    names = sorted(shipped_scenarios())
    return dict(zip(names, await asyncio.gather(*(_found_in(name, turns) for name in names)), strict=True))


@pytest.fixture(scope="module")
def found() -> dict[str, GatewayFacts | GatewayError]:
    return asyncio.run(_all_found())


def facts_in(found: dict[str, GatewayFacts | GatewayError], name: str) -> GatewayFacts:
    facts = found[name]
    assert isinstance(facts, GatewayFacts), facts
    return facts


def test_each_scenario_ends_with_facts_or_with_the_gateway_as_the_reason(
    found: dict[str, GatewayFacts | GatewayError],
) -> None:
    assert found.keys() == shipped_scenarios().keys()
    for name, facts in found.items():
        if isinstance(facts, GatewayFacts):
            assert all(bool(entry.reason) == (entry.seen_ts is None) for entry in facts.facts.values()), name


@pytest.mark.parametrize(
    ("name", "fact", "seen"),
    [
        ("one_slot", "slots", 1),
        ("two_slots", "slots", 2),
        ("early_cancel_lost", "early_cancel", "lost"),
        ("early_cancel_lost_until_first_row", "early_cancel", "lost-until-first-row"),
        ("quiet_market", "slots", 3),
        ("slow_details", "slots", 3),
    ],
)
def test_what_a_scenario_has_is_found(
    found: dict[str, GatewayFacts | GatewayError], name: str, fact: str, seen: object
) -> None:
    assert facts_in(found, name).seen(fact) == seen


def test_code_of_a_missing_slot_is_found(found: dict[str, GatewayFacts | GatewayError]) -> None:
    error = facts_in(found, "no_slot_is_101").seen("no_slot")
    assert isinstance(error, dict)
    assert error["code"] == 101


def test_slots_that_are_freed_late_are_measured(found: dict[str, GatewayFacts | GatewayError]) -> None:
    assert float(str(facts_in(found, "slots_freed_late").seen("slot_free_secs"))) > 0.2
