"""Scenarios, the journal, threads, and what is left behind."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from ibkr_depth_pipeline.simulation import (
    GatewayOptions,
    GatewayThread,
    SimulatedGateway,
)
from ibkr_depth_pipeline_tests.simulation.wire_client import WireClient, connected, rows


async def test_scenario_is_carried_out_on_the_running_gateway() -> None:
    scenario: list[object] = [
        {"on": {"kind": "subscribed", "name": "IBM"}, "do": "set_slots", "slots": 1},
        {"after": 0.0, "do": "send_error", "code": 2152},
        {"on": {"kind": "error", "name": "309"}, "do": "drop_connections"},
    ]
    async with connected(scenario) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        await client.until_error(2152)
        client.subscribe(2, "SPY", "ARCA")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.until("never")
        assert [entry.name for entry in gateway.journal.entries("fault")] == [
            "set_slots",
            "send_error",
            "drop_connections",
        ]


async def test_journal_names_every_request_with_its_fields() -> None:
    async with connected() as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        client.cancel(1)
        client.send(49, 1)
        await client.until(49)
        assert [entry.name for entry in gateway.journal.requests()] == [
            "startApi",
            "reqMktDepth",
            "cancelMktDepth",
            "reqCurrentTime",
        ]
        assert gateway.journal.requests("reqMktDepth")[0].detail["exchange"] == "NYSE"


async def test_journal_is_written_as_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    async with connected(journal_file=file) as (_, client):
        client.subscribe(1, "IBM", "NYSE", rows=1)
        await rows(client, 2)
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    kinds = [entry["kind"] for entry in entries]
    assert kinds[:3] == ["listening", "opened", "reply"]
    assert kinds[-1] == "closed"
    (opening,) = [entry for entry in entries if entry["kind"] == "rows"]
    assert (opening["name"], opening["request_id"], len(opening["rows"])) == ("IBM", 1, 2)


async def test_journal_may_only_count_rows() -> None:
    async with connected(keep_rows=False, journal_entries=5) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        await rows(client, 20)
        assert gateway.journal.row_counts["IBM"] == 20
        assert gateway.journal.rows() == []
        assert len(gateway.journal.entries()) == 5


async def test_port_in_use_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            async with SimulatedGateway(GatewayOptions(port=taken.getsockname()[1])):
                pass


async def test_closed_gateway_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    async with (
        SimulatedGateway(GatewayOptions(rows_per_second=5000.0)) as gateway,
        WireClient(gateway.host, gateway.port) as client,
    ):
        client.subscribe(1, "IBM", "NYSE")
        await rows(client, 100)
    assert asyncio.all_tasks() == before
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", gateway.port)


def test_gateway_in_a_thread_serves_a_blocking_client() -> None:
    with GatewayThread(GatewayOptions(rows_per_second=0.0)) as gateway:
        with socket.create_connection((gateway.host, gateway.port)) as client:
            client.sendall(b"API\0\x00\x00\x00\x09v157..176")
            assert client.recv(100)[4:7] == b"176"
            gateway.do(lambda simulated: simulated.set_slots(1))
            assert gateway.do(lambda simulated: simulated.account.slots.limit) == 1
        gateway.wait_for(lambda simulated: not simulated.clients)
        assert gateway.journal.entries("closed")


def test_gateway_in_a_thread_that_cannot_start_says_why() -> None:
    with GatewayThread() as first, pytest.raises(OSError, match="in use"):
        GatewayThread(GatewayOptions(port=first.port)).__enter__()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("server_version", 99),
        ("server_version", 179),
        ("nasdaq_name", "X"),
        ("slots", -1),
        ("latency", -1.0),
        ("refusals", {"A": 1}),
    ],
)
def test_option_out_of_range_is_named(option: str, value: object) -> None:
    with pytest.raises(ValueError, match="refusal code" if option == "refusals" else option):
        GatewayOptions(**{option: value})  # type: ignore[arg-type]
