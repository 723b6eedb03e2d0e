"""The contracts of the simulated gateway: chains, several of one symbol, pairs, what clashes with a con_id, hours."""

from __future__ import annotations

from datetime import date, datetime, timezone
from typing import Any

import pytest
from ib_insync import ContFuture, Contract, Forex, Future, Option, Stock

from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.simulation.catalogue import Catalogue
from ibkr_depth_pipeline.simulation.codec import Request
from ibkr_depth_pipeline.simulation.hours import hours_of
from ibkr_depth_pipeline.simulation.listings import third_friday
from ibkr_depth_pipeline_tests.simulation.test_with_ib_insync import connected

TODAY = date(2026, 11, 26)
NOON = datetime(2026, 11, 26, 17, tzinfo=timezone.utc).timestamp()


def asked(**fields: Any) -> Request:
    return Request(9, "reqContractDetails", {name: str(value) for name, value in fields.items()})


def names(catalogue: Catalogue, **fields: Any) -> list[str]:
    return [each.name for each in catalogue.find_all(asked(**fields))]


def test_chain_is_that_of_the_day_soonest_first() -> None:
    assert names(Catalogue(today=TODAY), symbol="ES", secType="FUT") == ["ESZ6", "ESH7", "ESM7", "ESU7", "ESZ7"]
    assert names(Catalogue(today=date(2026, 12, 19)), symbol="ES", secType="FUT")[0] == "ESH7"
    assert names(Catalogue(today=TODAY), localSymbol="ESZ6", secType="FUT", exchange="CME") == ["ESZ6"]
    month = {"lastTradeDateOrContractMonth": "202703"}
    assert names(Catalogue(today=TODAY), symbol="ES", secType="FUT", **month) == ["ESH7"]


def test_expiry_is_the_third_friday_or_the_day_before_juneteenth() -> None:
    assert third_friday(2026, 12) == date(2026, 12, 18)
    assert third_friday(2026, 6) == date(2026, 6, 18)


def test_symbol_may_have_several_contracts_in_one_currency() -> None:
    found = Catalogue()
    for symbol in ("META", "MSFT", "GLD", "GDX"):
        assert len(names(found, symbol=symbol, secType="STK", currency="USD", exchange="SMART")) == 2
    assert found.find(asked(symbol="META", secType="STK")) is None
    assert names(found, symbol="EUR", secType="CASH") == ["EUR.USD", "EUR.GBP"]


def test_venue_that_was_renamed_has_its_new_name_alone() -> None:
    found = Catalogue(today=TODAY)
    found.rename_venue("CME", "XCME")
    assert names(found, symbol="ES", secType="FUT", exchange="CME") == []
    assert names(found, symbol="ES", secType="FUT", exchange="XCME")[0] == "ESZ6"
    assert "XCME" in {venue.name for venue in found.depth_venues()}


@pytest.mark.parametrize(
    ("name", "trading", "liquid"),
    [
        ("AAPL", "20261126:0400-20261126:2000", "20261126:0930-20261126:1600"),
        ("ESZ6", "20261125:1700-20261126:1600", "20261126:0830-20261126:1600"),
        ("EUR.USD", "20261125:1715-20261126:1700", "20261125:1715-20261126:1700"),
        ("7203", "20261127:0900-20261127:1130;20261127:1230-20261127:1530", "20261127:0900-20261127:1130"),
    ],
)
def test_hours_are_in_the_contracts_own_zone(name: str, trading: str, liquid: str) -> None:
    listing = Catalogue(today=TODAY).named(name)
    assert listing is not None
    found = hours_of(listing, NOON)
    assert found[0].startswith(trading)
    assert found[1].startswith(liquid)


async def test_client_reads_futures_options_and_pairs() -> None:
    async with connected() as (_, ib, _events):
        chain = await ib.reqContractDetailsAsync(Future("ES", exchange="CME"))
        contracts = [each.contract for each in chain if each.contract is not None]
        assert {each.multiplier for each in contracts} == {"50"}
        assert [len(each.lastTradeDateOrContractMonth) for each in contracts] == [8] * 5
        assert chain[0].contractMonth == contracts[0].lastTradeDateOrContractMonth[:6]
        assert (chain[0].lastTradeTime, chain[0].timeZoneId, chain[0].underSymbol) == ("08:30:00", "US/Central", "ES")
        (front,) = await ib.reqContractDetailsAsync(ContFuture("ES", exchange="CME"))
        assert front.contract is not None
        assert (front.contract.secType, front.contract.conId) == ("CONTFUT", contracts[0].conId)
        expiry = contracts[0].lastTradeDateOrContractMonth
        (option,) = await ib.reqContractDetailsAsync(Option("SPY", expiry, 600, "C", "SMART"))
        assert option.contract is not None
        assert (option.contract.strike, option.contract.right) == (600.0, "C")
        (pair,) = await ib.reqContractDetailsAsync(Forex("EURGBP"))
        assert pair.contract is not None
        assert pair.contract.localSymbol == "EUR.GBP"
        listings = {each.exchange: each.listingExch for each in await ib.reqMktDepthExchangesAsync()}
        assert listings["AMEX"] == "AMEX"
        assert listings["ARCA"] == ""


def errors_of_requests(gateway: SimulatedGateway) -> list[dict[str, Any]]:
    """The errors that name a request, farm notices left out."""
    return [entry.detail for entry in gateway.journal.entries("error") if entry.detail["request_id"] != -1]


async def refusal(contract: Contract) -> list[int]:
    """The codes that answer a depth request for the contract, up to the next answer to anything."""
    async with connected() as (gateway, ib, _):
        ib.client.reqMktDepth(1, contract, 5, False, [])
        await ib.reqCurrentTimeAsync()
        return [
            int(entry.detail["code"]) for entry in gateway.journal.entries("error") if entry.detail["request_id"] == 1
        ]


@pytest.mark.parametrize(
    ("contract", "codes"),
    [
        (Contract(conId=107113386, exchange="ISLAND"), []),
        (Contract(conId=107113386, exchange="ISLAND", tradingClass="NMS"), [478]),
        (Contract(conId=107113386, exchange="ISLAND", symbol="FB"), [478]),
        (Contract(conId=265598, exchange="ISLAND", currency="CHF"), [200]),
        (Stock("META", "ISLAND", "USD"), []),
        (Stock("META", "EBS", "USD"), []),
        (Stock("GLD", "SMART", "USD"), [200]),
        (Contract(conId=43645828, exchange="AMEX"), []),
        (Contract(conId=265598, exchange="AMEX"), [10092]),
    ],
)
async def test_depth_request_is_granted_or_refused_by_what_it_says_of_the_contract(
    contract: Contract, codes: list[int]
) -> None:
    assert await refusal(contract) == codes


async def test_continuous_future_has_no_depth() -> None:
    async with connected() as (gateway, ib, _):
        (front,) = await ib.reqContractDetailsAsync(ContFuture("ES", exchange="CME"))
        assert front.contract is not None
        for request, sec_type in ((1, "CONTFUT"), (2, "")):
            asked_for = Contract(conId=front.contract.conId, secType=sec_type, exchange="CME")
            ib.client.reqMktDepth(request, asked_for, 5, False, [])
        await ib.reqCurrentTimeAsync()
        assert [error["request_id"] for error in errors_of_requests(gateway)] == [1]
