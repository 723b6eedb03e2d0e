"""Each way in which simulated gateways differ is found out, over a real socket, by the real client."""

from __future__ import annotations

import asyncio

import pytest

from ibkr_depth_pipeline.facts.assumptions import ASSUMPTIONS
from ibkr_depth_pipeline.gateway_facts import GatewayFacts
from ibkr_depth_pipeline_tests.facts.gateways import GATEWAYS, facts_of_all

SLOW_MACHINE_SECS = 5.0


@pytest.fixture(scope="module")
def found() -> dict[str, GatewayFacts]:
    return asyncio.run(facts_of_all())


@pytest.mark.parametrize(
    ("gateway", "fact", "seen"),
    [
        ("usual", "server_version", 176),
        ("paper", "server_version", 165),
        ("usual", "ready_codes", [2104, 2106, 2158]),
        ("usual", "nasdaq_name", "ISLAND"),
        ("paper", "nasdaq_name", "NASDAQ"),
        ("usual", "unknown_contract", {"code": 200, "text": "No security definition has been found for the request"}),
        ("overwriting", "unknown_contract", {"code": 200, "text": "Die Kontraktdefinition wurde nicht gefunden"}),
        ("overwriting", "unknown_cancel", {"code": 310, "text": "{request_id}: unbekannt"}),
        ("overwriting", "no_slot", {"code": 309, "text": "Limit erreicht"}),
        ("overwriting", "no_depth", {"code": 10092, "text": "Keine Markttiefe"}),
        ("late", "no_slot", {"code": 101, "text": "Max number of tickers has been reached"}),
        ("usual", "slots", 3),
        ("paper", "slots", 1),
        ("late", "slots", 2),
        ("held", "slots", 4),
        ("cascading", "slots", 10),
        ("usual", "slots_count", "contracts"),
        ("late", "slots_count", "subscriptions"),
        ("usual", "slot_free_secs", 0.0),
        ("usual", "rows_after_cancel_secs", 0.0),
        ("usual", "slots_held_after_drop_secs", 0.0),
        ("usual", "client_id_held_after_drop_secs", 0.0),
        (
            "usual",
            "venues_with_depth",
            {"SPY": {"ARCA": "depth", "ISLAND": "depth", "NYSE": "depth"}, "EUR.USD": {"IDEALPRO": "depth"}},
        ),
        (
            "overwriting",
            "venues_with_depth",
            {"SPY": {"ARCA": "depth", "ISLAND": 354, "NYSE": "silent"}, "EUR.USD": {"IDEALPRO": "depth"}},
        ),
        ("usual", "advisories", {}),
        ("usual", "insert_meaning", "shift"),
        ("overwriting", "insert_meaning", "overwrite"),
        (
            "usual",
            "row_styles",
            {"ARCA": "cascade", "ISLAND": "shift", "NYSE": "shift", "IDEALPRO": "cascade"},
        ),
        ("overwriting", "row_styles", {"ARCA": "overwrite", "IDEALPRO": "overwrite"}),
        (
            "cascading",
            "row_styles",
            {"ARCA": "cascade", "ISLAND": "cascade", "NYSE": "cascade", "IDEALPRO": "cascade"},
        ),
        ("usual", "updates_past_end", {}),
        ("usual", "size_units", {"EUR.USD": "currency", "SPY": "shares"}),
        ("overwriting", "size_units", {"EUR.USD": "currency", "SPY": "lots"}),
        ("usual", "early_cancel", "honoured"),
        ("paper", "early_cancel", "lost"),
        ("late", "early_cancel", "lost-until-first-row"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_way_of_the_gateway_is_found(found: dict[str, GatewayFacts], gateway: str, fact: str, seen: object) -> None:
    entry = found[gateway].facts[fact]
    assert (entry.seen, entry.reason) == (seen, "")


@pytest.mark.parametrize(
    ("gateway", "fact", "secs"),
    [
        ("late", "greeting_secs", 0.4),
        ("late", "details_secs", 0.2),
        ("paper", "slot_free_secs", 0.6),
        ("late", "rows_after_cancel_secs", 0.7),
        ("held", "slots_held_after_drop_secs", 4.0),
        ("held", "client_id_held_after_drop_secs", 0.6),
    ],
)
def test_time_of_the_gateway_is_measured(found: dict[str, GatewayFacts], gateway: str, fact: str, secs: float) -> None:
    seen = found[gateway].seen(fact)
    assert isinstance(seen, float)
    assert secs - 0.15 <= seen <= secs + SLOW_MACHINE_SECS


@pytest.mark.parametrize(("gateway", "secs"), [("usual", 0.0), ("paper", -2.5), ("cascading", 40.0)])
def test_clock_of_the_gateway_is_found_within_what_the_samples_leave_open(
    found: dict[str, GatewayFacts], gateway: str, secs: float
) -> None:
    entry = found[gateway].facts["clock_ahead_secs"]
    within = float(entry.note.split()[1])
    assert isinstance(entry.seen, float)
    assert abs(entry.seen - secs) <= within + 0.02


def test_first_rows_are_timed_for_each_venue(found: dict[str, GatewayFacts]) -> None:
    seen = found["late"].seen("first_row_secs")
    assert isinstance(seen, dict)
    secs = {place: float(str(each)) for place, each in seen.items()}
    assert sorted(secs) == ["SPY@ARCA", "SPY@ISLAND"]
    assert (secs["SPY@ARCA"] >= 0.49, secs["SPY@ISLAND"] >= 0.19) == (True, True)


def test_advice_about_a_line_that_goes_on_is_found_with_its_symbol(found: dict[str, GatewayFacts]) -> None:
    seen = found["overwriting"].seen("advisories")
    assert isinstance(seen, dict)
    assert {symbol: each["code"] for symbol, each in seen.items() if isinstance(each, dict)} == {"EUR.USD": 10090}


def test_updates_past_the_end_are_counted_where_they_come(found: dict[str, GatewayFacts]) -> None:
    seen = found["cascading"].seen("updates_past_end")
    assert seen == {"SPY@ARCA": 3, "SPY@ISLAND": 3, "SPY@NYSE": 3}


def test_rates_are_those_of_the_best_ten_levels(found: dict[str, GatewayFacts]) -> None:
    seen = found["cascading"].seen("row_rates")
    assert isinstance(seen, dict)
    assert all(60 <= float(str(rate)) <= 240 for rate in seen.values())


def test_each_fact_has_what_was_seen_or_the_reason_why_not(found: dict[str, GatewayFacts]) -> None:
    for name in GATEWAYS:
        for each in ASSUMPTIONS:
            entry = found[name].facts[each.fact]
            assert (entry.seen_ts is None) == bool(entry.reason), (name, each.fact)
            assert (entry.seen is None) == bool(entry.reason), (name, each.fact)


def test_facts_say_whether_they_are_as_assumed(found: dict[str, GatewayFacts]) -> None:
    assert found["usual"].facts["slots"].as_assumed is True
    assert found["paper"].facts["slots"].as_assumed is False
    assert found["usual"].facts["nasdaq_name"].as_assumed is None
    assert found["overwriting"].facts["insert_meaning"].as_assumed is False
