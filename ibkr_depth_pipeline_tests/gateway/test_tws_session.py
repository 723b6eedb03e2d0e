"""One connection: which messages it refuses to send, and how it deals with cancelled queries and silent gateways."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from typing import Any

import pytest
from ib_insync.contract import Contract
from ib_insync.order import Order

from ibkr_depth_pipeline.errors import GatewayError, GatewayUnavailable
from ibkr_depth_pipeline.gateway.events import ConnectionLost
from ibkr_depth_pipeline.gateway.ib_client import ALLOWED_MESSAGES
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.tws_session import GatewayCallbacks, TwsSession
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway

ORDERS: dict[str, tuple[Any, ...]] = {
    "placeOrder": (1, Contract(), Order()),
    "cancelOrder": (1, ""),
    "reqGlobalCancel": (),
    "exerciseOptions": (1, Contract(), 1, 1, "DU1", 0),
    "reqAutoOpenOrders": (True,),
    "reqIds": (1,),
}


def gateway_at(gateway: SimulatedGateway, events: list[Any]) -> TwsGateway:
    return TwsGateway(
        gateway.host,
        gateway.port,
        request_ids=itertools.count(1),
        callbacks=GatewayCallbacks(on_event=events.append),
        connect_timeout=5,
    )


async def connected_session(gateway: SimulatedGateway) -> TwsSession:
    session = TwsSession(GatewayCallbacks())
    assert await session.open(gateway.host, gateway.port, 1, 5)
    return session


@pytest.mark.parametrize("method", sorted(ORDERS))
async def test_message_about_orders_is_refused_before_it_is_sent(method: str) -> None:
    async with SimulatedGateway() as gateway:
        session = await connected_session(gateway)
        with pytest.raises(GatewayError, match="not one that this program may send"):
            getattr(session.client, method)(*ORDERS[method])
        session.close()
        await gateway.wait_for(lambda: not gateway.clients)
        assert {request.name for request in gateway.journal.requests()} == {"startApi"}


async def test_message_type_that_is_not_allowed_is_refused() -> None:
    async with SimulatedGateway() as gateway:
        session = await connected_session(gateway)
        for kind in set(range(1, 120)) - ALLOWED_MESSAGES.keys():
            with pytest.raises(GatewayError):
                session.client.send(kind, 1)
        session.close()
        await gateway.wait_for(lambda: not gateway.clients)
        assert {request.name for request in gateway.journal.requests()} == {"startApi"}


async def test_exception_of_a_row_callback_is_raised() -> None:
    def broken(request: int, row: object) -> None:
        raise RuntimeError("ours")

    session = TwsSession(GatewayCallbacks(on_row=broken))
    for greeting in (b"176\0now\0", b"15\x001\0DU1\0", b"9\x001\x001\0"):
        session.on_message(greeting)
    with pytest.raises(RuntimeError, match="ours"):
        session.on_message(b"12\x001\x007\x000\x000\x001\x001.0\x00100\x00")


async def test_contract_details_of_a_cancelled_query_are_not_kept() -> None:
    class Details:
        """An object that supports weak references."""

    session = TwsSession(GatewayCallbacks())
    asked, late = session.expect_details(7), Details()
    asked.cancel()
    await asyncio.wait({asked})
    session.contractDetails(7, late)
    reference = weakref.ref(late)
    del late
    gc.collect()
    assert reference() is None


async def test_query_that_times_out_leaves_the_answer_to_the_other_callers() -> None:
    async with SimulatedGateway(GatewayOptions(latency=0.3)) as gateway:
        client = gateway_at(gateway, [])
        await client.connect([1])
        patient = [asyncio.ensure_future(client.server_time(timeout)) for timeout in (None, 5)]
        with pytest.raises(GatewayUnavailable, match="no answer"):
            await client.server_time(timeout=0.05)
        assert await asyncio.wait_for(client.server_time(timeout=None), 5) > 0
        assert all([await each > 0 for each in patient])
        client.disconnect()


async def test_gateway_of_an_old_version_is_unavailable() -> None:
    async with SimulatedGateway(GatewayOptions(server_version=120)) as gateway:
        with pytest.raises(GatewayUnavailable):
            await gateway_at(gateway, []).connect([1])


async def test_unanswered_connection_gets_another_one_beside_it_and_the_first_to_be_answered_is_kept() -> None:
    async with SimulatedGateway() as gateway:
        gateway.mute_new_connections()
        events: list[Any] = []
        client = gateway_at(gateway, events)
        connecting = asyncio.ensure_future(client.connect([1]))
        await gateway.wait_for(lambda: gateway.clients)
        gateway.answer_new_connections()
        assert await connecting == 1
        await gateway.wait_for(lambda: len(gateway.clients) == 1)
        assert await client.server_time() > 0
        client.disconnect()
        await gateway.wait_for(lambda: not gateway.clients)
        assert not [event for event in events if isinstance(event, ConnectionLost)]
