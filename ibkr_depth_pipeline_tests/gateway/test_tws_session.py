"""The client itself: what it refuses to send, and what it does with a gateway that is none."""

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
from ibkr_depth_pipeline.gateway.tws_session import TwsSession
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
        on_event=events.append,
        on_row=lambda request, row: None,
        connect_timeout=5,
    )


async def connected_session(gateway: SimulatedGateway) -> TwsSession:
    session = TwsSession(lambda event: None, lambda request, row: None)
    assert await session.open(gateway.host, gateway.port, 1, 5)
    return session


@pytest.mark.parametrize("method", sorted(ORDERS))
async def test_a_message_that_places_or_touches_orders_is_refused_before_it_is_sent(method: str) -> None:
    async with SimulatedGateway() as gateway:
        session = await connected_session(gateway)
        with pytest.raises(GatewayError, match="not one that this program may send"):
            getattr(session.client, method)(*ORDERS[method])
        session.close()
        await gateway.wait_for(lambda: not gateway.clients)
        assert {request.name for request in gateway.journal.requests()} == {"startApi"}


async def test_every_message_type_but_the_short_list_is_refused() -> None:
    async with SimulatedGateway() as gateway:
        session = await connected_session(gateway)
        for kind in set(range(1, 120)) - ALLOWED_MESSAGES.keys():
            with pytest.raises(GatewayError):
                session.client.send(kind, 1)
        session.close()
        await gateway.wait_for(lambda: not gateway.clients)
        assert {request.name for request in gateway.journal.requests()} == {"startApi"}


async def test_a_fault_of_whoever_listens_is_not_swallowed() -> None:
    def broken(request: int, row: object) -> None:
        raise RuntimeError("ours")

    session = TwsSession(lambda event: None, broken)
    session.client._apiReady = True
    with pytest.raises(RuntimeError, match="ours"):
        session.on_message(b"12\x001\x007\x000\x000\x001\x001.0\x00100\x00")


async def test_contracts_that_come_after_whoever_asked_gave_up_are_not_kept() -> None:
    class Details:
        """Something a weak reference can follow."""

    session = TwsSession(lambda event: None, lambda request, row: None)
    asked, late = session.expect_details(7), Details()
    asked.cancel()
    await asyncio.wait({asked})
    session.contractDetails(7, late)
    forgotten = weakref.ref(late)
    del late
    gc.collect()
    assert forgotten() is None


async def test_whoever_gives_a_question_up_leaves_the_answer_to_the_others() -> None:
    async with SimulatedGateway(GatewayOptions(latency=0.3)) as gateway:
        client = gateway_at(gateway, [])
        await client.connect([1])
        patient = [asyncio.ensure_future(client.server_time(timeout)) for timeout in (None, 5)]
        with pytest.raises(GatewayUnavailable, match="no answer"):
            await client.server_time(timeout=0.05)
        assert await asyncio.wait_for(client.server_time(timeout=None), 5) > 0
        assert all([await each > 0 for each in patient])
        client.disconnect()


async def test_a_gateway_that_is_too_old_or_none_is_unavailable() -> None:
    async with SimulatedGateway(GatewayOptions(server_version=120)) as gateway:
        with pytest.raises(GatewayUnavailable):
            await gateway_at(gateway, []).connect([1])


async def test_a_mute_connection_gets_another_one_beside_it_and_the_first_to_be_answered_wins() -> None:
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
