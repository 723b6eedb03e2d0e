"""Symbols resolved by the simulated gateway, through the real client."""

from __future__ import annotations

import asyncio

import pytest

from ibkr_depth_pipeline.errors import GatewayError, GatewayUnavailable
from ibkr_depth_pipeline.gateway.venues import INDEX_SYMBOLS, ContractQuery
from ibkr_depth_pipeline.ingest.resolver import NO_EXCHANGES, PATIENT_TRIES, query_of, resolve_symbols
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
