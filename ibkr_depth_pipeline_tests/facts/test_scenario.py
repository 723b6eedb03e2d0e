"""Facts as a file and as a scenario; a gateway that is made of them has the same facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ibkr_depth_pipeline.facts.assumptions import ASSUMPTIONS, BY_FACT
from ibkr_depth_pipeline.facts.scenario import scenario_of, scenario_text
from ibkr_depth_pipeline.gateway_facts import FactEntry, GatewayFacts, read_facts
from ibkr_depth_pipeline.simulation import EarlyCancel, GatewayOptions, load_scenario
from ibkr_depth_pipeline.simulation.options import SlotsCount
from ibkr_depth_pipeline.simulation.rows import RowStyle
from ibkr_depth_pipeline.simulation.scenario import parse_scenario
from ibkr_depth_pipeline_tests.facts.gateways import GATEWAYS, QUICK, STEPS, facts_of

SEEN: dict[str, object] = {
    "server_version": 173,
    "greeting_secs": 0.01,
    "clock_ahead_secs": -1.25,
    "details_secs": 0.3,
    "nasdaq_name": "NASDAQ",
    "unknown_contract": {"code": 200, "text": "nix"},
    "no_slot": {"code": 101, "text": "voll"},
    "slots": 5,
    "slots_count": "subscriptions",
    "slot_free_secs": 2.1,
    "venues_with_depth": {
        "SPY": {"ARCA": "depth", "NYSE": 354, "BATS": "silent", "IEX": 354},
        "IBM": {"NYSE": 354, "IEX": "depth"},
    },
    "first_row_secs": {"SPY@ARCA": 0.2, "IBM@IEX": 1.0},
    "advisories": {"SPY": {"code": 10089, "secs": 0.4}},
    "row_styles": {"ARCA": "overwrite"},
    "updates_past_end": {"SPY@ARCA": 2, "SPY@IEX": 7},
    "row_rates": {"SPY@ARCA": 80.0, "IBM@IEX": 20.0},
    "size_units": {"SPY": "lots"},
    "rows_after_cancel_secs": 0.4,
    "slots_held_after_drop_secs": 3.0,
    "client_id_held_after_drop_secs": 0.0,
    "early_cancel": "lost",
}


def facts(seen: dict[str, object], **other: object) -> GatewayFacts:
    entries = {each.fact: FactEntry(assumed=each.assumed, source=each.source, reason="?") for each in ASSUMPTIONS}
    entries |= {
        name: FactEntry.model_validate({"assumed": "", "source": "", "seen": value, "seen_ts": 1})
        for name, value in seen.items()
    }
    given = {"host": "127.0.0.1", "port": 4001, "began_ts": 1, "ended_ts": 2, "symbols": ("SPY",), "rows_asked": 15}
    return GatewayFacts.model_validate({**given, "facts": entries, **other})


def options_of(found: GatewayFacts, folder: Path) -> GatewayOptions:
    path = folder / "facts.yaml"
    path.write_text(scenario_text(found), encoding="utf-8")
    return load_scenario(str(path)).applied_to(GatewayOptions())


def test_scenario_has_every_way_of_the_gateway(tmp_path: Path) -> None:
    options = options_of(facts(SEEN), tmp_path)
    assert options == GatewayOptions(
        server_version=173,
        clock_offset=-1.25,
        details_delay=0.3,
        nasdaq_name="NASDAQ",
        texts={200: "nix", 101: "voll"},
        no_slot_code=101,
        slots=5,
        slots_count=SlotsCount.SUBSCRIPTIONS,
        slot_free_delay=2.1,
        venue_refusals={"*@NYSE": 354, "SPY@IEX": 354},
        silent_symbols=frozenset({"SPY@BATS"}),
        first_row_delay=0.6,
        venue_first_row_delays={"SPY@ARCA": 0.2, "IBM@IEX": 1.0},
        advisories={"SPY": 10089},
        advisory_delay=0.4,
        row_styles={"ARCA": RowStyle.OVERWRITE},
        rows_per_second=50.0,
        symbol_rates={"SPY": 80.0, "IBM": 20.0},
        sizes_in_lots=True,
        rows_after_cancel=0.4,
        slots_held_after_drop=3.0,
        early_cancel=EarlyCancel.LOST,
    )


def test_updates_past_the_end_are_steps_of_the_scenario() -> None:
    steps = parse_scenario(scenario_of(facts(SEEN))["steps"])
    assert [(each.fault.name, each.fault.arguments()["count"]) for each in steps] == [("updates_past_end", 7)]


def test_what_was_not_seen_stays_as_the_simulated_gateway_has_it(tmp_path: Path) -> None:
    assert options_of(facts({}), tmp_path) == GatewayOptions()


def test_each_fact_but_those_of_the_protocol_itself_has_its_place_in_the_scenario(tmp_path: Path) -> None:
    usual = scenario_of(facts({}))
    without_place = {"ready_codes", "insert_meaning"}  # always sent by a ready gateway; part of row_styles
    other = {"unknown_cancel": {"code": 310, "text": "x"}, "no_depth": {"code": 10092, "text": "x"}}
    values = {**SEEN, **other, "greeting_secs": 1.0, "client_id_held_after_drop_secs": 1.0}
    for fact in BY_FACT.keys() - without_place:
        assert scenario_of(facts({fact: values[fact]})) != usual, fact


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(facts(SEEN).as_json(), encoding="utf-8")
    assert read_facts(path) == facts(SEEN)


def test_facts_keep_what_an_earlier_run_has_seen_of_the_same_gateway() -> None:
    earlier = facts({"slots": 3, "nasdaq_name": "ISLAND"})
    found = facts({"slots": 1})
    both = found.with_earlier(earlier)
    assert (both.seen("slots"), both.seen("nasdaq_name")) == (1, "ISLAND")
    assert found.with_earlier(facts({"slots": 3, "nasdaq_name": "ISLAND"}, port=7)) == found


# ---- there and back


MEASURED = {
    "greeting_secs",
    "clock_ahead_secs",
    "details_secs",
    "slot_free_secs",
    "first_row_secs",
    "row_rates",
    "rows_after_cancel_secs",
    "slots_held_after_drop_secs",
    "client_id_held_after_drop_secs",
}


def alike(before: object, after: object) -> bool:
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(alike(before[each], after[each]) for each in before)
    if isinstance(before, float | int) and isinstance(after, float | int):
        return abs(before - after) <= 1.0 + 0.4 * abs(before)
    return before == after


@pytest.mark.faults
@pytest.mark.parametrize("name", sorted(GATEWAYS))
async def test_gateway_made_of_the_facts_of_another_has_the_same_facts(name: str, tmp_path: Path) -> None:
    limits = replace(QUICK, most_venues=2)
    first = await facts_of(GATEWAYS[name], parse_scenario(list(STEPS.get(name, ()))), limits=limits)
    path = tmp_path / "facts.yaml"
    path.write_text(scenario_text(first), encoding="utf-8")
    scenario = load_scenario(str(path))
    again = await facts_of(scenario.applied_to(GatewayOptions(seed=7)), scenario.steps, limits=limits)
    for fact in BY_FACT:
        before, after = first.seen(fact), again.seen(fact)
        if fact == "advisories":
            assert alike(before, after)
        elif fact in MEASURED:
            assert alike(before, after), (fact, before, after)
        else:
            assert before == after, fact


@pytest.mark.faults
@pytest.mark.parametrize("slots", range(1, 11))
async def test_each_number_of_slots_is_found(slots: int) -> None:
    found = await facts_of(GatewayOptions(slots=slots), only=["slots"], early_cancel=False)
    assert (found.seen("slots"), found.facts["slots"].at_least) == (slots, False)


async def test_more_slots_than_were_tried_are_a_lower_bound() -> None:
    limits = replace(QUICK, most_slots=2)
    found = await facts_of(GatewayOptions(slots=9), only=["slots"], limits=limits, early_cancel=False)
    assert (found.seen("slots"), found.facts["slots"].at_least) == (3, True)
    assert found.facts["no_slot"].reason
