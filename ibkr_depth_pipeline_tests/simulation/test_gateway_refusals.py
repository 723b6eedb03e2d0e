"""Depth requests that are refused, by symbol and venue and with any code, and errors that are only advisory."""

from __future__ import annotations

import pytest
from ib_insync import IB, Stock

from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline_tests.simulation.wire_client import connected, rows


@pytest.mark.parametrize("code", [101, 200, 354, 420, 478, 504, 10168, 10186, 31337])
async def test_any_code_refuses_a_request_and_its_slot_is_free(code: int) -> None:
    async with connected(slots=1, refusals={"AAPL": code}) as (gateway, client):
        client.subscribe(7, "AAPL", "ISLAND")
        assert (await client.until_error(code))[2] == "7"
        assert not gateway.journal.entries("subscribed")
        client.subscribe(8, "IBM", "NYSE")
        await rows(client, 1)


async def test_refusal_on_one_venue_leaves_the_others() -> None:
    async with connected(venue_refusals={"AAPL@NASDAQ": 354}) as (_, client):
        client.subscribe(1, "AAPL", "ISLAND")
        await client.until_error(354)
        client.subscribe(2, "AAPL", "NASDAQ")
        await client.until_error(354)
        client.subscribe(3, "AAPL", "ARCA")
        await rows(client, 1)
        client.subscribe(4, "MSFT", "ISLAND")
        await rows(client, 1)


async def test_venue_may_be_refused_for_every_symbol() -> None:
    async with connected(venue_refusals={"*@ISLAND": 354}, slots=9) as (gateway, client):
        for request_id, symbol in enumerate(("AAPL", "MSFT"), start=1):
            client.subscribe(request_id, symbol, "ISLAND")
            assert (await client.until_error(354))[2] == str(request_id)
        client.subscribe(3, "AAPL", "IEX")
        await rows(client, 1)
        gateway.refuse("AAPL", 10092, venue="ISLAND")
        client.subscribe(4, "AAPL", "ISLAND")
        await client.until_error(10092)


async def test_refused_symbol_is_allowed_again() -> None:
    async with connected(refusals={"IBM": 354}) as (gateway, client):
        gateway.refuse("IBM", 10092, venue="ARCA")
        gateway.refuse("JPM", 200, venue="NYSE")
        gateway.allow("IBM")
        gateway.allow("JPM", venue="NYSE")
        for request_id, (symbol, venue) in enumerate([("IBM", "NYSE"), ("IBM", "ARCA"), ("JPM", "NYSE")]):
            client.subscribe(request_id, symbol, venue)
            await rows(client, 1)


async def test_number_that_is_no_error_code_is_refused() -> None:
    async with connected() as (gateway, _):
        with pytest.raises(ValueError, match="refusal code 7"):
            gateway.refuse("IBM", 7)


@pytest.mark.parametrize("place", ["AAPL", "@ISLAND", "AAPL@"])
def test_venue_refusal_names_symbol_and_venue(place: str) -> None:
    with pytest.raises(ValueError, match="venue_refusals"):
        GatewayOptions(venue_refusals={place: 354})


async def test_advisory_comes_before_the_rows_of_a_line_that_goes_on() -> None:
    async with connected(advisories={"IBM": 10089}, slots=1, first_row_delay=0.05) as (gateway, client):
        client.subscribe(5, "IBM", "NYSE")
        assert (await client.until_error(10089))[2] == "5"
        assert len(await rows(client, 20)) == 20
        client.cancel(5)
        await gateway.wait_for(lambda: gateway.journal.entries("unsubscribed", "IBM"))


async def test_advisory_may_come_later_and_only_to_a_line_that_is_live() -> None:
    async with connected(advisories={"*": 10090}, advisory_delay=0.1) as (gateway, client):
        client.subscribe(5, "IBM", "NYSE")
        client.subscribe(6, "JPM", "NYSE")
        client.cancel(6)
        await client.until_error(10090)
        assert [entry.detail["request_id"] for entry in gateway.journal.errors(10090)] == [5]


async def test_advisory_is_sent_about_a_live_line() -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=500.0)) as gateway:
        ib = IB()
        errors: list[tuple[int, int]] = []
        ib.errorEvent += lambda request_id, code, text, contract: errors.append((request_id, code))
        await ib.connectAsync(gateway.host, gateway.port, clientId=1, readonly=True)
        ib.client.reqMktDepth(50, Stock("IBM", "NYSE", "USD"), 10, False, [])
        await gateway.wait_for(lambda: gateway.journal.row_counts["IBM"])
        assert gateway.advise("IBM", 10091) == 1
        await gateway.wait_for(lambda: (50, 10091) in errors)
        before = gateway.journal.row_counts["IBM"]
        await gateway.wait_for(lambda: gateway.journal.row_counts["IBM"] > before + 50)
        ib.disconnect()
        await gateway.wait_for(lambda: not gateway.clients)


async def test_gateway_may_answer_101_if_no_slot_is_free() -> None:
    async with connected(slots=1, no_slot_code=101) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        client.subscribe(2, "JPM", "NYSE")
        assert (await client.until_error(101))[2] == "2"
        assert not gateway.journal.errors(309)
