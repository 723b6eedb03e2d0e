"""Messages to the gateway, paced and repeated, through the real client and over the socket."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ib_insync.client import Client

from ibkr_depth_pipeline.gateway.events import PacingViolation, RequestIdRejected
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.tws_session import GatewayCallbacks
from ibkr_depth_pipeline.gateway.venues import ContractQuery
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway

SPY = Instrument("SPY", 756733, "STK", "USD", "ARCA", "ARCA")
EVERYTHING = 1_000_000


class Conversation:
    """A connected client, and the events and rows that it received."""

    def __init__(self, simulated: SimulatedGateway, rate: float) -> None:
        self.events: list[Any] = []
        self.rows: set[int] = set()
        self.ids = itertools.count(1)
        self.gateway = TwsGateway(
            simulated.host,
            simulated.port,
            request_ids=self.ids,
            callbacks=GatewayCallbacks(on_event=self.events.append, on_row=lambda request, row: self.rows.add(request)),
            connect_timeout=5,
            messages_per_second=rate,
        )

    def received(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def query_in_the_background(self, symbols: int) -> asyncio.Future[Any]:
        """Queries for so many made-up symbols, all at once."""
        names = ["".join(letters) for letters in itertools.islice(itertools.product("ABCDEFG", repeat=4), symbols)]
        return asyncio.gather(*(self.gateway.contracts(ContractQuery(name)) for name in names))


@asynccontextmanager
async def conversation(
    rate: float = 20, options: GatewayOptions | None = None
) -> AsyncIterator[tuple[SimulatedGateway, Conversation]]:
    async with SimulatedGateway(options) as simulated:
        client = Conversation(simulated, rate)
        await client.gateway.connect([1])
        try:
            yield simulated, client
        finally:
            client.gateway.disconnect()


def names(simulated: SimulatedGateway) -> list[str]:
    return [request.name for request in simulated.journal.requests()]


async def test_hundreds_of_queries_at_once_are_no_pacing_violation() -> None:
    async with conversation(100, GatewayOptions(messages_per_second=150)) as (simulated, client):
        assert all(await client.query_in_the_background(200))
        assert simulated.journal.errors(100) == []


async def test_depth_requests_and_current_time_overtake_hundreds_of_queries() -> None:
    async with conversation() as (simulated, client):
        queries = client.query_in_the_background(300)
        await simulated.wait_for(lambda: "reqContractDetails" in names(simulated))
        client.gateway.subscribe(next(client.ids), SPY, 5)
        assert await client.gateway.server_time() > 0
        sent = names(simulated)
        assert sent.index("reqMktDepth") < sent.index("reqCurrentTime")
        assert sent.count("reqContractDetails") < 50
        queries.cancel()


def depth_requests(simulated: SimulatedGateway) -> list[tuple[str, int]]:
    """Depth requests and cancels that arrived, in order."""
    depth = [each for each in simulated.journal.requests() if each.name in ("reqMktDepth", "cancelMktDepth")]
    return [(each.name, int(each.detail["reqId"])) for each in depth]


async def test_subscribe_and_cancel_arrive_in_their_order() -> None:
    async with conversation(60) as (simulated, client):
        queries = client.query_in_the_background(300)
        requests = range(10_001, 10_016)
        for request in requests:
            client.gateway.subscribe(request, SPY, 5)
        await simulated.wait_for(lambda: len(depth_requests(simulated)) == len(requests))
        for request in requests:
            client.gateway.cancel(request)
        await client.gateway.drain()
        await client.gateway.server_time()
        expected = [(name, request) for name in ("reqMktDepth", "cancelMktDepth") for request in requests]
        assert depth_requests(simulated) == expected
        queries.cancel()


async def test_depth_request_that_was_not_sent_yet_is_withdrawn_with_its_cancel() -> None:
    async with conversation(4) as (simulated, client):
        for request in range(1, 40):
            client.gateway.subscribe(request, SPY, 5)
            client.gateway.cancel(request)
        client.gateway.subscribe(100, SPY, 5)
        await simulated.wait_for(lambda: 100 in client.rows)
        arrived = depth_requests(simulated)
        assert len(arrived) <= 4, "what the bucket held at first, and the last"
        for name, request in arrived:
            assert name == "cancelMktDepth" or request == 100 or ("cancelMktDepth", request) in arrived


async def test_current_time_that_waits_to_be_sent_is_not_requested_a_second_time() -> None:
    async with conversation(4) as (simulated, client):
        for request in range(1, 5):
            client.gateway.subscribe(request, SPY, 5)
        await asyncio.gather(*(client.gateway.server_time() for _ in range(20)))
        assert names(simulated).count("reqCurrentTime") <= 2


async def test_throttle_of_ib_insync_is_off() -> None:
    assert Client.MaxRequests == 45  # the throttle that is turned off
    async with conversation(500) as (simulated, client):
        for request in range(100):
            client.gateway.cancel(request)
        await client.gateway.server_time()
        assert names(simulated).count("cancelMktDepth") == 100


async def test_depth_request_lost_to_a_violation_is_sent_again() -> None:
    async with conversation(options=GatewayOptions(messages_per_second=50)) as (simulated, client):
        simulated.occupy_messages(EVERYTHING, seconds=0.5)
        request = next(client.ids)
        client.gateway.subscribe(request, SPY, 5)
        await simulated.wait_for(lambda: request in client.rows)
        assert len(simulated.journal.errors(100)) == len(client.received(PacingViolation)) == 1


async def test_cancel_lost_to_a_violation_is_sent_again() -> None:
    async with conversation(options=GatewayOptions(messages_per_second=50)) as (simulated, client):
        request = next(client.ids)
        client.gateway.subscribe(request, SPY, 5)
        await simulated.wait_for(lambda: request in client.rows)
        simulated.occupy_messages(EVERYTHING, seconds=0.5)
        client.gateway.cancel(request)
        await simulated.wait_for(lambda: simulated.journal.entries("unsubscribed"))
        assert names(simulated).count("reqMktDepth") == 1


async def test_current_time_lost_to_a_violation_is_requested_again() -> None:
    async with conversation(options=GatewayOptions(messages_per_second=50)) as (simulated, client):
        simulated.occupy_messages(EVERYTHING, seconds=0.5)
        assert await client.gateway.server_time() > 0


async def test_depth_request_that_was_not_lost_is_left_alone() -> None:
    async with conversation(options=GatewayOptions(messages_per_second=50)) as (simulated, client):
        request = next(client.ids)
        client.gateway.subscribe(request, SPY, 5)
        await simulated.wait_for(lambda: request in client.rows)
        simulated.send_error(100)
        await simulated.wait_for(lambda: simulated.journal.errors(322))
        await client.gateway.server_time()
        assert client.received(RequestIdRejected) == []


async def test_rate_is_lowered_once_by_violations_that_come_together_and_the_event_has_it() -> None:
    async with conversation() as (simulated, client):
        for _ in range(3):
            simulated.send_error(100)
        await simulated.wait_for(lambda: len(client.received(PacingViolation)) == 3)
    assert [event.slowed_to for event in client.received(PacingViolation)] == [10, None, None]


async def test_depth_exchanges_are_requested_once_a_connection_and_again_after_a_farm_is_back() -> None:
    async with conversation() as (simulated, client):
        for _ in range(3):
            assert await client.gateway.depth_exchanges()
        assert names(simulated).count("reqMktDepthExchanges") == 1
        simulated.send_error(2104)
        await simulated.wait_for(lambda: not client.gateway.known_depth_exchanges)
        assert await client.gateway.depth_exchanges()
        client.gateway.disconnect()
        await client.gateway.connect([2])
        assert await client.gateway.depth_exchanges()
        assert names(simulated).count("reqMktDepthExchanges") == 3
