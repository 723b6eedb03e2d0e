"""How a connection begins: slow greetings, hung client ids, gateways that are not ready, over a real socket."""

from __future__ import annotations

import asyncio
import time

import pytest
from ib_insync import IB, Stock

from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.options import TakenClientId, Unready
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.simulation.wire_client import STILL, WireClient, connected

FARMS = [2104, 2106, 2158]


def gateway_with(**options: object) -> SimulatedGateway:
    return SimulatedGateway(GatewayOptions(**{**STILL, **options}))  # type: ignore[arg-type]


def codes(gateway: SimulatedGateway) -> list[int]:
    return [entry.detail["code"] for entry in gateway.journal.errors()]


async def test_slow_greeting_holds_the_client_id_and_a_second_try_is_refused() -> None:
    async with gateway_with(greeting_delay=0.3) as gateway, WireClient(gateway.host, gateway.port) as client:
        await gateway.wait_for(lambda: gateway.journal.requests("startApi"))
        async with WireClient(gateway.host, gateway.port) as second:
            await second.until_error(326)
        assert not gateway.journal.entries("reply", "nextValidId")
        client.send(49, 1)  # comes before the greeting, is answered after it
        assert [(await client.next())[0] for _ in range(6)] == ["9", "15", "4", "4", "4", "49"]


async def test_connection_that_ends_before_its_greeting_frees_its_client_id() -> None:
    async with gateway_with(greeting_delay=0.2) as gateway:
        async with WireClient(gateway.host, gateway.port):
            await gateway.wait_for(lambda: gateway.journal.requests("startApi"))
        await gateway.wait_for(lambda: not gateway.clients)
        async with WireClient(gateway.host, gateway.port) as second:
            await second.until_error(2158)
        assert not gateway.journal.errors(326)


async def test_ib_insync_connects_to_a_gateway_that_greets_slowly() -> None:
    async with gateway_with() as gateway:
        gateway.set_greeting_delay(0.3)
        ib = IB()
        await ib.connectAsync(gateway.host, gateway.port, clientId=1, readonly=True, timeout=PATIENCE_SECS)
        assert ib.isConnected()
        ib.disconnect()
        await gateway.wait_for(lambda: not gateway.clients)


async def test_hung_client_id_is_neither_answered_nor_refused() -> None:
    async with gateway_with(hung_client_ids=frozenset({1})) as gateway:
        gateway.hang_client_id(2)
        for client_id in (1, 2):
            async with WireClient(gateway.host, gateway.port, client_id=client_id) as client:
                await gateway.wait_for(lambda n=client_id: len(gateway.journal.entries("unanswered")) == n)
                client.send(49, 1)
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(client.next(), 0.1)
        async with WireClient(gateway.host, gateway.port, client_id=3) as other:
            await other.until_error(2158)
        assert codes(gateway) == FARMS


async def test_client_id_hangs_for_the_given_time() -> None:
    async with gateway_with() as gateway:
        gateway.hang_client_id(1, seconds=0.0)
        async with WireClient(gateway.host, gateway.port) as client:
            await client.until_error(2158)


async def test_taken_client_id_may_hang() -> None:
    async with connected(taken_client_id=TakenClientId.HANGS) as (gateway, _):
        async with WireClient(gateway.host, gateway.port):
            await gateway.wait_for(lambda: gateway.journal.entries("unanswered", "startApi"))
        assert codes(gateway) == FARMS


async def test_unready_gateway_greets_and_lists_no_depth_exchange_until_it_is_ready() -> None:
    async with gateway_with(ready_after=60.0) as gateway, WireClient(gateway.host, gateway.port) as client:
        await client.until(15)
        client.send(82)
        assert await client.next() == ["80", "0"]
        client.subscribe(1, "IBM", "NYSE")
        await client.until_error(10092)
        gateway.become_ready()
        assert [(await client.next())[3] for _ in FARMS] == ["2104", "2106", "2158"]
        client.send(82)
        assert int((await client.until(80))[1]) > 5
        client.subscribe(2, "IBM", "NYSE")
        await client.until(12)
        gateway.become_ready()  # a second time is nothing
        client.send(49, 1)
        await client.until(49)
        assert [code for code in codes(gateway) if code in FARMS] == FARMS


async def test_unready_gateway_knows_no_contract() -> None:
    async with gateway_with(ready_after=60.0, unready=Unready.UNKNOWN_CONTRACTS) as gateway:
        ib = IB()
        await ib.connectAsync(gateway.host, gateway.port, clientId=1, readonly=True)
        assert await ib.reqContractDetailsAsync(Stock("IBM", "SMART", "USD")) == []
        gateway.become_ready()
        assert len(await ib.reqContractDetailsAsync(Stock("IBM", "SMART", "USD"))) == 1
        ib.disconnect()
        await gateway.wait_for(lambda: not gateway.clients)


async def test_unready_gateway_has_no_subscription_of_market_data() -> None:
    async with connected() as (gateway, client):
        gateway.become_unready("not_subscribed")
        client.subscribe(1, "IBM", "NYSE")
        await client.until_error(354)
        assert gateway.account.slots.in_use(time.time()) == 0
        gateway.become_ready()
        client.subscribe(2, "IBM", "NYSE")
        await client.until(12)


async def test_silent_gateway_greets_when_it_becomes_ready() -> None:
    async with gateway_with(ready_after=0.2, unready=Unready.SILENT) as gateway:
        async with WireClient(gateway.host, gateway.port) as client:
            client.send(49, 1)
            assert [(await client.next())[0] for _ in range(6)] == ["9", "15", "4", "4", "4", "49"]
        kinds = [entry.kind for entry in gateway.journal.entries() if entry.kind in ("unready", "ready", "reply")]
        assert kinds[:4] == ["unready", "reply", "ready", "reply"]  # the handshake comes at once


async def test_started_connection_falls_silent_and_is_answered_later() -> None:
    async with connected() as (gateway, client):
        gateway.become_unready(Unready.SILENT)
        client.send(49, 1)
        await gateway.wait_for(lambda: gateway.journal.requests("reqCurrentTime"))
        assert not gateway.journal.entries("reply", "currentTime")
        gateway.become_ready()
        assert [(await client.next())[0] for _ in range(4)] == ["4", "4", "4", "49"]


async def test_unknown_way_of_being_unready_is_refused() -> None:
    async with gateway_with() as gateway:
        with pytest.raises(ValueError, match="asleep"):
            gateway.become_unready("asleep")


async def test_requests_for_orders_may_open_a_dialog_and_stay_unanswered() -> None:
    async with connected(write_access_dialog=True) as (gateway, client):
        client.send(5, 1)
        client.send(49, 1)
        assert (await client.next())[0] == "49"
        assert gateway.journal.entries("unanswered", "reqOpenOrders")
