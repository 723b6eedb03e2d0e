"""Gateways in trouble, or that keep something from being seen: the reason is stated, and nothing is guessed."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone

import pytest

from ibkr_depth_pipeline.errors import GatewayUnavailable
from ibkr_depth_pipeline.facts.session import FactsSession, specs_of
from ibkr_depth_pipeline.gateway_facts import GatewayFacts
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.simulation import EarlyCancel, GatewayOptions
from ibkr_depth_pipeline.simulation.rows import RowStyle
from ibkr_depth_pipeline.simulation.scenario import parse_scenario
from ibkr_depth_pipeline.universe import Universe
from ibkr_depth_pipeline_tests.facts.gateways import QUICK, facts_of

STOCKS = ("SPY",)
REFUSED = {f"*@{venue}": 354 for venue in ("ISLAND", "ARCA", "NYSE", "BATS", "EDGX", "IDEALPRO")}


def closed_today() -> str:
    """Hours of a market that opens again in a week, by the gateway's clock."""
    today = datetime.now(timezone.utc) - timedelta(days=1)
    days = [today + timedelta(days=each) for each in range(9)]
    shut = ";".join(f"{day:%Y%m%d}:CLOSED" for day in days[:-1])
    return f"{shut};{days[-1]:%Y%m%d}:0930-{days[-1]:%Y%m%d}:1600"


async def all_found() -> dict[str, GatewayFacts]:
    one = replace(QUICK, most_venues=1)
    lost = parse_scenario([{"on": {"kind": "request", "name": "reqMktDepth", "count": 6}, "do": "drop_connections"}])
    reset = parse_scenario([{"on": {"kind": "rows", "name": "SPY", "count": 60}, "do": "reset_book", "symbol": "SPY"}])
    notice = parse_scenario(
        [{"on": {"kind": "subscribed", "name": "EUR.USD"}, "do": "notify_permissions", "repeat": 20, "every": 0.2}]
    )
    runs = {
        "full": facts_of(GatewayOptions(slots=0), only=["release", "drop"], limits=one),
        "without": facts_of(GatewayOptions(refusals={"*": 354}), only=["release", "venues"], limits=one),
        "closed": facts_of(GatewayOptions(hours={"SPY": closed_today()}), only=["venues"], symbols=STOCKS, limits=one),
        "unknown": facts_of(GatewayOptions(), only=["venues"], symbols=("NOSUCH",), limits=one),
        "lost": facts_of(GatewayOptions(), lost, only=["slots", "venues"], limits=one),
        "refused": facts_of(GatewayOptions(venue_refusals=REFUSED), only=["release"], limits=one),
        "reset": facts_of(
            GatewayOptions(row_styles={"ARCA": RowStyle.SHIFT}), reset, only=["venues"], symbols=STOCKS, limits=one
        ),
        "partly": facts_of(
            GatewayOptions(
                slots=2,
                slot_free_delay=0.5,
                silent_symbols=frozenset({"EUR.USD"}),
                early_cancel=EarlyCancel.LOST,
                venue_refusals={"GBP.USD@IDEALPRO": 354},
            ),
            only=["release", "venues"],
            limits=one,
        ),
        "noticed": facts_of(GatewayOptions(silent_symbols=frozenset({"EUR.USD"})), notice, only=["venues"], limits=one),
        "paced": facts_of(GatewayOptions(messages_per_second=25), only=["slots"], limits=one),
        "hung": facts_of(GatewayOptions(hung_client_ids=frozenset({797})), only=["connection"], connect_timeout=1.0),
        "silent": facts_of(
            GatewayOptions(silent_symbols=frozenset({"SPY"})), only=["venues"], symbols=STOCKS, limits=one
        ),
        "stuck": facts_of(
            GatewayOptions(slot_free_delay=60.0, client_id_held_after_drop=60.0),
            only=["release", "drop"],
            limits=replace(one, release=1.5),
        ),
        "short": facts_of(GatewayOptions(), limits=replace(QUICK, total=1.0), early_cancel=False),
    }
    return dict(zip(runs, await asyncio.gather(*runs.values()), strict=True))


@pytest.fixture(scope="module")
def found() -> dict[str, GatewayFacts]:
    return asyncio.run(all_found())


@pytest.mark.parametrize(
    ("gateway", "fact", "reason"),
    [
        ("full", "slots", "no slot is free (309): other clients or windows of TWS hold all"),
        ("full", "slot_free_secs", "the limit of the slots is not known"),
        ("full", "slots_held_after_drop_secs", "the limit of the slots is not known"),
        ("without", "slots", "no contract was granted on any venue: 354"),
        ("without", "slot_free_secs", "the limit of the slots is not known"),
        ("without", "insert_meaning", "no line has had rows"),
        ("closed", "insert_meaning", "the market is closed: SPY opens "),
        ("unknown", "venues_with_depth", "NOSUCH: the gateway knows no such contract (200)"),
        ("unknown", "row_styles", "no symbol has a contract with depth"),
        ("lost", "insert_meaning", "the connection to the gateway was lost"),
        ("silent", "first_row_secs", "no line has had rows"),
        ("short", "slots", "not seen in the time there was"),
        ("short", "early_cancel", "not tried: it may cost a slot until the connection ends; allow it with"),
    ],
)
def test_fact_that_was_not_seen_has_the_reason(
    found: dict[str, GatewayFacts], gateway: str, fact: str, reason: str
) -> None:
    entry = found[gateway].facts[fact]
    assert (entry.seen, entry.seen_ts) == (None, None)
    assert entry.reason.startswith(reason)


@pytest.mark.parametrize("fact", ["slot_free_secs", "client_id_held_after_drop_secs", "slots_held_after_drop_secs"])
def test_time_that_was_not_over_is_a_lower_bound(found: dict[str, GatewayFacts], fact: str) -> None:
    entry = found["stuck"].facts[fact]
    assert (entry.at_least, float(str(entry.seen)) >= 1.5) == (True, True)


def test_slots_taken_by_others_leave_the_error_that_shows_it(found: dict[str, GatewayFacts]) -> None:
    assert found["full"].seen("no_slot") == {
        "code": 309,
        "text": "Max number (0) of market depth requests has been reached",
    }


def test_lost_connection_leaves_what_was_found_before(found: dict[str, GatewayFacts]) -> None:
    assert found["lost"].ended_early.startswith("the connection to the gateway was lost")
    assert (found["lost"].seen("slots"), found["lost"].seen("nasdaq_name")) == (3, "ISLAND")


def test_slots_are_found_at_venues_that_the_account_has_depth_for(found: dict[str, GatewayFacts]) -> None:
    assert (found["refused"].seen("slots"), found["refused"].seen("slot_free_secs")) == (3, 0.0)


def test_lines_that_stay_silent_cost_no_slot_of_the_experiments_after_them(found: dict[str, GatewayFacts]) -> None:
    partly = found["partly"]
    assert partly.seen("slots") == 2
    assert 0.4 <= float(str(partly.seen("slot_free_secs"))) < 5.0
    assert partly.seen("venues_with_depth") == {"SPY": {"ARCA": "depth"}, "EUR.USD": {"IDEALPRO": "silent"}}


def test_notice_of_permissions_refuses_nothing_and_is_noted(found: dict[str, GatewayFacts]) -> None:
    entry = found["noticed"].facts["venues_with_depth"]
    assert entry.seen == {"SPY": {"ARCA": "depth"}, "EUR.USD": {"IDEALPRO": "silent"}}
    assert entry.note.startswith("Exchanges - Depth: ")
    assert found["noticed"].seen("advisories") == {}


def test_reset_book_is_an_opening_again_and_no_proof_of_anything(found: dict[str, GatewayFacts]) -> None:
    reset = found["reset"]
    assert reset.seen("insert_meaning") in ("shift", None)
    assert reset.seen("updates_past_end") == {}
    assert reset.seen("venues_with_depth") == {"SPY": {"ARCA": "depth"}}


def test_pace_of_the_account_costs_no_fact(found: dict[str, GatewayFacts]) -> None:
    assert found["paced"].seen("slots") == 3


def test_client_id_without_an_answer_is_given_up_for_the_next(found: dict[str, GatewayFacts]) -> None:
    assert found["hung"].seen("server_version") == 176


def test_line_without_rows_is_silent(found: dict[str, GatewayFacts]) -> None:
    assert found["silent"].seen("venues_with_depth") == {"SPY": {"ARCA": "silent"}}


async def test_gateway_that_is_away_raises() -> None:
    with pytest.raises(GatewayUnavailable, match="nothing listens there"):
        await FactsSession(load_settings(ibkr_port=1), specs_of(Universe(()), STOCKS)).run()


# ---- every way there is


SOUGHT = {
    "server_version": "server_version",
    "slots": "slots",
    "slots_count": "slots_count",
    "nasdaq_name": "nasdaq_name",
    "no_slot_code": "no_slot",
    "refusals": "venues_with_depth",
    "venue_refusals": "venues_with_depth",
    "silent_symbols": "venues_with_depth",
    "texts": "no_slot",
    "advisories": "advisories",
    "advisory_delay": "advisories",
    "greeting_delay": "greeting_secs",
    "details_delay": "details_secs",
    "clock_offset": "clock_ahead_secs",
    "rows_per_second": "row_rates",
    "symbol_rates": "row_rates",
    "row_styles": "row_styles",
    "sizes_in_lots": "size_units",
    "first_row_delay": "first_row_secs",
    "venue_first_row_delays": "first_row_secs",
    "latency": "first_row_secs",
    "slot_free_delay": "slot_free_secs",
    "rows_after_cancel": "rows_after_cancel_secs",
    "early_cancel": "early_cancel",
    "slots_held_after_drop": "slots_held_after_drop_secs",
    "client_id_held_after_drop": "client_id_held_after_drop_secs",
}
"""Option of the simulated gateway -> the fact that shows it."""

NOT_SOUGHT = {
    **dict.fromkeys(("host", "port", "replays", "keep_rows", "journal_file", "journal_entries"), "where it listens"),
    **dict.fromkeys(("seed", "strict_catalogue", "accounts"), "who it is, and what it has to sell"),
    **dict.fromkeys(("read_only_api", "write_access_dialog"), "asking about orders opens a dialog in TWS"),
    **dict.fromkeys(("ready_after", "unready"), "a state that passes; the run is repeated"),
    **dict.fromkeys(("hung_client_ids", "taken_client_id", "dead_subscriptions"), "an accident of the day"),
    **dict.fromkeys(("unanswered_details",), "an accident of the day: questions are repeated"),
    **dict.fromkeys(("market_hours", "hours"), "of the market, not of the gateway"),
    **dict.fromkeys(("messages_per_second", "other_messages_per_second", "pacing"), "to break it costs the session"),
    **dict.fromkeys(("markets_stand_still", "largest_backlog"), "of the simulation alone"),
}
"""Option -> why no fact shows it."""


def test_each_option_of_the_simulated_gateway_is_shown_by_a_fact_or_left_out_for_a_reason() -> None:
    options = {each.name for each in fields(GatewayOptions)}
    assert options == SOUGHT.keys() | NOT_SOUGHT.keys()
    assert not SOUGHT.keys() & NOT_SOUGHT.keys()
