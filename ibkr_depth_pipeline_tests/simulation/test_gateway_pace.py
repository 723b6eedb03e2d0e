"""Pacing, slow and unanswered contract details, and the gateway's clock, over a real socket."""

from __future__ import annotations

import asyncio
import time

import pytest
from ib_insync import IB, Stock

from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.account import MessageMeter
from ibkr_depth_pipeline.simulation.options import Pacing
from ibkr_depth_pipeline_tests.simulation.wire_client import STILL, WireClient, connected


def ask_for_details(client: WireClient, request_id: int, symbol: str) -> None:
    contract = (0, symbol, "STK", "", 0.0, "", "", "SMART", "", "USD", "", "")
    client.send(9, 8, request_id, *contract, 0, "", "", "")


def test_second_of_the_message_limit_slides() -> None:
    meter = MessageMeter(limit=2)
    assert [meter.excess(now) for now in (0.0, 0.5, 0.9)] == [0, 0, 3]
    assert meter.excess(1.4) == 3  # those of 0.5, 0.9 and 1.4
    assert meter.excess(2.5) == 0


def test_messages_of_other_clients_count() -> None:
    meter = MessageMeter(limit=3)
    meter.taken_by_others = 2
    assert [meter.excess(now) for now in (0.0, 0.1)] == [0, 4]


def test_messages_without_a_limit_are_never_too_many() -> None:
    assert not any(MessageMeter().excess(0.0) for _ in range(1000))


async def test_message_past_the_limit_is_answered_by_100_and_lost() -> None:
    async with connected(messages_per_second=10) as (gateway, client):
        for _ in range(12):  # startApi was the first of the second
            client.send(49, 1)
        text = (await client.until_error(100))[4]
        assert text.startswith("Max rate of messages per second has been exceeded:max=10 rec=11")
        await gateway.wait_for(lambda: len(gateway.journal.errors(100)) >= 2)
        assert len(gateway.journal.entries("unanswered", "reqCurrentTime")) == len(gateway.journal.errors(100))
        assert len(gateway.journal.entries("reply", "currentTime")) <= 10
        assert client.received  # the connection goes on
        await asyncio.sleep(1.1)  # the limit's own second
        client.send(49, 1)
        await client.until(49)


async def test_third_violation_ends_the_connection() -> None:
    async with connected(messages_per_second=5, pacing=Pacing.DISCONNECT) as (gateway, client):
        for _ in range(40):
            client.send(49, 1)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.until("never")
        assert len(gateway.journal.errors(100)) == 3
        assert gateway.journal.entries("closing")


async def test_limit_is_shared_by_all_connections() -> None:
    async with connected(messages_per_second=10) as (gateway, client):
        async with WireClient(gateway.host, gateway.port, client_id=2) as other:
            for _ in range(5):
                client.send(49, 1)
                other.send(49, 1)
            await gateway.wait_for(lambda: gateway.journal.errors(100))


async def test_limit_may_change_and_others_use_it_up() -> None:
    async with connected() as (gateway, client):
        gateway.limit_messages(30, "drop")
        gateway.occupy_messages(30)
        client.send(49, 1)
        await client.until_error(100)
        gateway.occupy_messages(0)
        client.send(49, 1)
        await client.until(49)


async def test_first_questions_for_contract_details_go_unanswered() -> None:
    async with connected(unanswered_details={"AAPL": 2, "*": 1}) as (gateway, client):
        for request_id, symbol in enumerate(["AAPL", "IBM", "AAPL", "IBM", "AAPL"], start=1):
            ask_for_details(client, request_id, symbol)
        assert (await client.until(10))[1] == "4"
        assert (await client.until(10))[1] == "5"
        assert [entry.detail["reqId"] for entry in gateway.journal.entries("unanswered")] == ["1", "2", "3"]
        gateway.ignore_details("IBM", 1)
        ask_for_details(client, 6, "IBM")
        ask_for_details(client, 7, "IBM")
        assert (await client.until(10))[1] == "7"


async def test_contract_details_may_take_their_time() -> None:
    async with connected(details_delay=0.2) as (gateway, client):
        ask_for_details(client, 1, "IBM")
        client.send(49, 1)
        assert [(await client.next())[0] for _ in range(3)] == ["49", "10", "52"]
        gateway.set_details_delay(0.0)
        ask_for_details(client, 2, "IBM")
        client.send(49, 1)
        assert [(await client.next())[0] for _ in range(3)] == ["10", "52", "49"]


async def test_gateways_clock_may_be_off() -> None:
    async with SimulatedGateway(GatewayOptions(**STILL, clock_offset=-3600.0)) as gateway:  # type: ignore[arg-type]
        ib = IB()
        await ib.connectAsync(gateway.host, gateway.port, clientId=1, readonly=True)
        assert abs((await ib.reqCurrentTimeAsync()).timestamp() - (time.time() - 3600)) < 60
        gateway.set_clock_offset(7200.0)
        assert abs((await ib.reqCurrentTimeAsync()).timestamp() - (time.time() + 7200)) < 60
        assert len(await ib.reqContractDetailsAsync(Stock("IBM", "SMART", "USD"))) == 1
        ib.disconnect()
        await gateway.wait_for(lambda: not gateway.clients)
