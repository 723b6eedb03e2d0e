"""The connection beside a simulated gateway: made, lost, and made anew."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
import structlog

from ibkr_depth_pipeline.errors import GatewayUnavailable
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.tws_session import GatewayCallbacks
from ibkr_depth_pipeline.ingest.connection import FailureLog, GatewayConnection
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.simulation import SimulatedGateway


def connection_to(
    gateway: SimulatedGateway, longest_pause: float = 0.2, on_attempt: Callable[[], None] = lambda: None
) -> tuple[GatewayConnection, TwsGateway]:
    settings = load_settings(ibkr_host=gateway.host, ibkr_port=gateway.port, ibkr_reconnect_max_secs=longest_pause)
    client = TwsGateway.of_settings(settings, request_ids=itertools.count(1), callbacks=GatewayCallbacks())
    return GatewayConnection(client, settings, on_attempt), client


def test_failure_that_stays_the_same_is_logged_at_first_and_then_rarely() -> None:
    failures = FailureLog()
    logged = [attempt for attempt in range(1, 1001) if failures.is_worth_a_line(attempt, "mute", attempt * 1.0)]
    assert logged == [1, 2, 3, 303, 603, 903]
    assert failures.is_worth_a_line(1001, "refused", 1001.0)


async def test_connection_is_in_use_from_its_use_to_its_loss() -> None:
    async with SimulatedGateway() as gateway:
        connection, client = connection_to(gateway)
        await connection.connect()
        assert not connection.in_use.is_set()
        assert connection.use()
        assert connection.in_use.is_set()
        connection.lose()
        assert connection.lost.is_set()
        assert not connection.in_use.is_set()
        client.disconnect()


async def test_connection_lost_before_its_use_is_not_used() -> None:
    async with SimulatedGateway() as gateway:
        connection, client = connection_to(gateway)
        await connection.connect()
        connection.lose()
        assert not connection.use()
        assert not connection.in_use.is_set()
        await connection.reconnect()
        assert connection.use()
        client.disconnect()


async def test_gateway_that_refuses_is_tried_until_it_answers() -> None:
    with structlog.testing.capture_logs() as logged:
        async with SimulatedGateway() as gateway:
            connection, client = connection_to(gateway)
            gateway.refuse_connections()
            with pytest.raises(GatewayUnavailable):
                await connection.connect()
            trying = asyncio.ensure_future(connection.reconnect())
            await gateway.wait_for(lambda: sum(line["event"] == "connect_failed" for line in logged) >= 2)
            await gateway.listen()
            await trying
            client.disconnect()
    failed = [line for line in logged if line["event"] == "connect_failed"]
    assert [line["attempt"] for line in failed] == list(range(1, len(failed) + 1))
    assert [line["attempts"] for line in logged if line["event"] == "reconnected"] == [len(failed) + 1]


async def test_rounds_over_ids_that_are_all_taken_keep_the_pace_of_connections() -> None:
    async with SimulatedGateway() as gateway:
        connection, client = connection_to(gateway)
        for client_id in range(777, 783):
            gateway.hold_client_id(client_id, 3600)
        trying = asyncio.ensure_future(connection.reconnect())
        await gateway.wait_for(lambda: len(gateway.journal.entries("opened")) > 24, timeout=30)
        times = [entry.at for entry in gateway.journal.entries("opened")]
        trying.cancel()
        await asyncio.gather(trying, return_exceptions=True)
        client.disconnect()
    assert times[24] - times[6] >= 3 * 6 * 0.05, "a pause of 0.1 to 0.2 s or more for each of six ids"


async def test_each_connection_that_is_tried_is_told_of_before() -> None:
    async with SimulatedGateway() as gateway:
        other = connection_to(gateway)
        await other[0].connect()
        tried: list[int] = []
        connection, client = connection_to(gateway, on_attempt=lambda: tried.append(len(gateway.clients)))
        await connection.connect()
        assert len(tried) == 2, "the id that is taken, and the next"
        await connection.reconnect()
        assert len(tried) == 4
        client.disconnect()
        other[1].disconnect()
