"""Which symbols are asked about, when, and what the answers lead to."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.errors import GatewayError, GatewayUnavailable
from ibkr_depth_pipeline.gateway.venues import INDEX_SYMBOLS, ContractQuery
from ibkr_depth_pipeline.ingest.resolver import (
    AT_ONCE,
    FIRST_PATIENCE_SECS,
    LONGEST_PATIENCE_SECS,
    NO_EXCHANGES,
    PATIENT_TRIES,
    SPACING_SECS,
    QuestionSchedule,
    patience_secs,
    query_of,
    resolve_symbols,
)
from ibkr_depth_pipeline.model import Instrument, Unresolved
from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline.simulation.options import Unready
from ibkr_depth_pipeline.universe import SymbolSpec
from ibkr_depth_pipeline_tests.ingest.odd_gateway import connected

DEFAULT_VENUES = {
    "SPY": ("ARCA", "ARCA"),
    "QQQ": ("ISLAND", "NASDAQ"),
    "IWM": ("ARCA", "ARCA"),
    "AAPL": ("ISLAND", "NASDAQ"),
    "IBM": ("NYSE", "NYSE"),
    "BRK B": ("NYSE", "NYSE"),
    "SPX": ("CBOE", "CBOE"),
}


def specs(*names: str) -> list[SymbolSpec]:
    return [SymbolSpec(name) for name in names]


@pytest.mark.parametrize("listed", ["ISLAND", "NASDAQ"])
async def test_each_rule_holds_under_both_settings_of_the_compatibility_checkbox(listed: str) -> None:
    async with connected(GatewayOptions(nasdaq_name=listed)) as (_, client):
        found = await resolve_symbols(client, specs(*DEFAULT_VENUES))
    expected = {name: (listed if venue == "ISLAND" else venue, on) for name, (venue, on) in DEFAULT_VENUES.items()}
    assert list(found) == list(expected)
    for symbol, venue in expected.items():
        instrument = found[symbol]
        assert isinstance(instrument, Instrument), instrument
        assert (instrument.exchange, instrument.primary_exchange) == venue


async def test_unknown_symbol_costs_no_other_its_venue() -> None:
    async with connected(GatewayOptions()) as (_, client):
        found = await resolve_symbols(client, specs("AAPL", "NOSUCH", "SPY"))
    assert found["NOSUCH"] == Unresolved("NOSUCH", "the gateway knows no such contract (200)")
    assert isinstance(found["AAPL"], Instrument)
    assert isinstance(found["SPY"], Instrument)


async def test_wrong_con_id_is_unresolved() -> None:
    async with connected(GatewayOptions()) as (_, client):
        found = await resolve_symbols(client, [SymbolSpec("AAPL", con_id=272093)])
    assert found["AAPL"] == Unresolved(
        "AAPL", "contract 272093 (MSFT STK) differs: symbol is MSFT, the universe says AAPL", 272093
    )


async def test_odd_answer_costs_only_its_own_symbol() -> None:
    async with connected(GatewayOptions(), IBM=GatewayError("odd")) as (_, client):
        found = await resolve_symbols(client, specs("AAPL", "IBM"))
    assert found["IBM"] == Unresolved("IBM", "odd")
    assert isinstance(found["AAPL"], Instrument)


async def test_missing_answer_costs_only_its_own_symbol() -> None:
    async with connected(GatewayOptions(unanswered_details={"IBM": 1000})) as (simulated, client):
        found = await resolve_symbols(client, specs("AAPL", "IBM"), first_patience=0.2)
        asked = [each.detail["symbol"] for each in simulated.journal.requests("reqContractDetails")]
    assert asked.count("IBM") == PATIENT_TRIES
    assert asked.count("AAPL") == 1
    assert isinstance(found["IBM"], Unresolved)
    assert "no answer" in found["IBM"].reason
    assert isinstance(found["AAPL"], Instrument)


async def test_question_that_got_lost_is_asked_again() -> None:
    async with connected(GatewayOptions(unanswered_details={"IBM": 2})) as (_, client):
        found = await resolve_symbols(client, specs("AAPL", "IBM"), first_patience=0.2)
    assert isinstance(found["IBM"], Instrument)


async def test_gateway_without_depth_exchanges_gives_no_verdict_on_a_symbol() -> None:
    options = GatewayOptions(ready_after=3600, unready=Unready.NO_EXCHANGES)
    async with connected(options) as (_, client):
        found = await resolve_symbols(
            client, [SymbolSpec("AAPL"), SymbolSpec("IBM", exchange="NYSE")], first_patience=0.2
        )
    assert found["AAPL"] == Unresolved("AAPL", NO_EXCHANGES)
    assert isinstance(found["IBM"], Instrument)


async def test_gateway_that_is_gone_is_an_error_and_not_a_reason_for_each_symbol() -> None:
    async with connected(GatewayOptions()) as (_, client):
        client.disconnect()
        with pytest.raises(GatewayUnavailable):
            await resolve_symbols(client, specs("AAPL"))


async def test_gateway_that_goes_away_midway_is_an_error() -> None:
    async with connected(GatewayOptions(details_delay=5)) as (simulated, client):
        looking = asyncio.ensure_future(resolve_symbols(client, specs("IBM")))
        await simulated.wait_for(lambda: simulated.journal.requests("reqContractDetails"))
        simulated.drop_connections()
        with pytest.raises(GatewayUnavailable):
            await looking


@pytest.mark.parametrize("symbol", sorted(INDEX_SYMBOLS))
def test_name_of_an_index_means_the_index_unless_told_otherwise(symbol: str) -> None:
    assert query_of(SymbolSpec(symbol)) == ContractQuery(symbol, sec_type="IND")
    assert query_of(SymbolSpec(symbol, sec_type="STK")).sec_type == "STK"


def test_everything_that_the_universe_says_is_asked_for() -> None:
    assert query_of(SymbolSpec("SAP", "IBIS", "IBIS2", "CFD", "EUR", 7)) == ContractQuery(
        "SAP", "CFD", "EUR", "IBIS", "IBIS2", 7
    )
    assert query_of(SymbolSpec("AAPL")) == ContractQuery("AAPL", "STK", "USD")


NAMES = [f"S{number:03}" for number in range(300)]


def asked(schedule: QuestionSchedule, now: float) -> list[str]:
    return [symbol for symbol, _ in schedule.due(now)]


def test_symbols_are_asked_about_in_their_order_and_a_bounded_number_at_once() -> None:
    schedule = QuestionSchedule(NAMES)
    assert asked(schedule, 0.0) == NAMES[:AT_ONCE]
    assert asked(schedule, 0.0) == []
    schedule.answered(NAMES[3], 0.0)
    assert asked(schedule, 0.0) == [NAMES[AT_ONCE]]


def test_question_without_an_answer_is_asked_again_with_growing_patience() -> None:
    schedule, now, patience = QuestionSchedule(["SPY"]), 0.0, []
    for _ in range(8):
        ((symbol, secs),) = schedule.due(now)
        patience.append(secs)
        now += secs
        schedule.unanswered(symbol, now)
    assert patience[:3] == [FIRST_PATIENCE_SECS * factor for factor in (1, 2, 4)]
    assert patience[-1] == LONGEST_PATIENCE_SECS == patience_secs(10_000)


def test_patience_is_twice_what_a_slow_gateway_takes() -> None:
    schedule = QuestionSchedule(["A", "B"], at_once=1)
    asked(schedule, 0.0)
    schedule.answered("A", 5.0, took=5.0)
    assert schedule.due(5.0) == [("B", 10.0)]


def test_symbols_that_stay_silent_hold_no_other_up() -> None:
    schedule = QuestionSchedule(NAMES, at_once=2)
    silent = asked(schedule, 0.0)
    for symbol in silent:
        schedule.unanswered(symbol, FIRST_PATIENCE_SECS)
    assert asked(schedule, FIRST_PATIENCE_SECS) == [*silent, *NAMES[2:4]]


def test_refusal_that_comes_at_once_is_not_asked_again_at_once() -> None:
    schedule = QuestionSchedule(["SPY"])
    assert asked(schedule, 0.0)
    schedule.unanswered("SPY", 0.01)
    assert asked(schedule, 0.02) == []
    assert schedule.next_at() == FIRST_PATIENCE_SECS


def test_question_of_a_broken_connection_is_asked_again_before_later_symbols() -> None:
    schedule = QuestionSchedule(NAMES, at_once=2)
    first = asked(schedule, 0.0)
    for symbol in first:
        schedule.lost(symbol, 1.0)
    assert asked(schedule, 2.0) == first


def test_news_of_the_gateway_ends_every_pause_and_gives_old_questions_up() -> None:
    schedule = QuestionSchedule(["A", "B", "C"], at_once=2)
    asked(schedule, 0.0)
    schedule.unanswered("A", FIRST_PATIENCE_SECS)
    assert asked(schedule, FIRST_PATIENCE_SECS) == ["A", "C"]
    assert schedule.hurry(FIRST_PATIENCE_SECS + 1) == ["B"]
    assert asked(schedule, FIRST_PATIENCE_SECS + 1) == ["B"]


def test_symbol_that_was_answered_is_asked_about_again_after_a_pause() -> None:
    schedule = QuestionSchedule(["SPY"])
    asked(schedule, 0.0)
    schedule.answered("SPY", 1.0)
    assert schedule.is_done
    schedule.add("SPY")
    assert asked(schedule, 1.0) == []
    assert asked(schedule, 1.0 + SPACING_SECS) == ["SPY"]
    schedule.add("SPY")
    assert asked(schedule, 1.0 + SPACING_SECS) == []


@given(st.lists(st.sampled_from(["answered", "unanswered", "lost", "hurry"]), max_size=200), st.integers(1, 5))
def test_every_symbol_is_answered_in_the_end(happenings: list[str], at_once: int) -> None:
    schedule, now, open_questions = QuestionSchedule(NAMES[:20], at_once), 0.0, []
    for happening in happenings:
        now += 1.0
        open_questions += asked(schedule, now)
        assert len(open_questions) <= 2 * at_once
        if happening == "hurry":
            given_up = schedule.hurry(now)
            open_questions = [symbol for symbol in open_questions if symbol not in given_up]
        elif open_questions:
            symbol = open_questions.pop(0)
            if happening == "answered":
                schedule.answered(symbol, now)
            else:
                getattr(schedule, happening)(symbol, now)
    while not schedule.is_done:
        for symbol in open_questions:
            schedule.answered(symbol, now)
        at = schedule.next_at()
        now = now if at is None else max(now, at)
        open_questions = asked(schedule, now)
        assert open_questions or schedule.is_done
