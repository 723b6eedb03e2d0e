"""The tap between the real client and the simulated gateway: all passes but orders, and a tape is played as it was."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from ib_insync import IB, MarketOrder, Stock

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.tape.files import Entry, LinkEvent, Read, read_entries
from ibkr_depth_pipeline.tape.player import TapePlayer
from ibkr_depth_pipeline.tape.script import read_scripts
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, universe_of
from ibkr_depth_pipeline_tests.tape.tapping import tapped

ACCOUNT = "U7654321"
ROWS = 60


def events(entries: Iterable[Entry], name: str) -> list[LinkEvent]:
    return [entry for entry in entries if isinstance(entry, LinkEvent) and entry.name == name]


def books(snapshots: list[Any]) -> list[Any]:
    return [(snapshot.seq, snapshot.venue, snapshot.bids, snapshot.asks) for snapshot in snapshots]


async def stored(run: Recording, symbols: tuple[str, ...]) -> dict[str, list[Any]]:
    return {symbol: books(await run.stream(symbol)) for symbol in symbols}


async def holds(run: Recording, symbol: str, count: int) -> bool:
    return await run.length(symbol) >= count


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[IB]:
    ib = IB()
    await ib.client.connectAsync("127.0.0.1", port, 77, timeout=10)  # without the questions about the account
    try:
        yield ib
    finally:
        ib.disconnect()


@pytest.mark.parametrize("speed", [0.0, 4.0])
async def test_recorder_on_a_tape_stores_the_snapshots_that_it_stored_live(
    redis_url: str, tmp_path: Path, speed: float
) -> None:
    symbols = ("SPY", "QQQ")
    universe = universe_of(*symbols)
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with tapped(gateway.host, gateway.port, tmp_path / "day") as tap:
            async with recording(tap, redis_url, universe) as run:  # type: ignore[arg-type]
                for symbol in symbols:
                    await run.grows(symbol, ROWS)
                live = run
                await run.stop()
                wanted = await stored(live, symbols)
                await run.redis.flushall()
    async with TapePlayer(read_scripts(tmp_path / "day"), "127.0.0.1", 0, speed=speed) as player:
        async with recording(player, redis_url, universe) as run:  # type: ignore[arg-type]
            for symbol in symbols:
                await run.until(lambda symbol=symbol: holds(run, symbol, len(wanted[symbol])))  # type: ignore[misc]
            await run.stop()
            found = await stored(run, symbols)
    for symbol in symbols:
        assert found[symbol][: len(wanted[symbol])] == wanted[symbol]


async def test_tape_is_played_step_by_step(tmp_path: Path) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with tapped(gateway.host, gateway.port, tmp_path / "day") as tap, connected(tap.port) as ib:
            assert await ib.reqContractDetailsAsync(Stock("SPY", "SMART", "USD"))
    async with TapePlayer(read_scripts(tmp_path / "day"), "127.0.0.1", 0, step=True) as player:
        ib = IB()
        connecting = asyncio.ensure_future(ib.client.connectAsync("127.0.0.1", player.port, 1, timeout=20))
        await asyncio.sleep(0.2)
        assert not connecting.done()
        while not connecting.done():
            player.advance()
            await asyncio.sleep(0.01)
        await connecting
        ib.disconnect()


async def test_question_that_the_tape_lacks_gets_error_200(tmp_path: Path) -> None:
    async with SimulatedGateway() as gateway:
        async with tapped(gateway.host, gateway.port, tmp_path / "day") as tap, connected(tap.port) as ib:
            assert await ib.reqContractDetailsAsync(Stock("SPY", "SMART", "USD"))
    errors: list[tuple[int, str]] = []
    async with TapePlayer(read_scripts(tmp_path / "day"), "127.0.0.1", 0, speed=0) as player:
        async with connected(player.port) as ib:
            ib.errorEvent += lambda request, code, text, contract: errors.append((code, text))
            assert await ib.reqContractDetailsAsync(Stock("SPY", "SMART", "USD"))
            assert await ib.reqContractDetailsAsync(Stock("MSFT", "SMART", "USD")) == []
    assert (200, "The tape that is played has no such request") in errors


async def test_client_that_asks_for_its_account_at_the_start_gets_that_of_nobody(tmp_path: Path) -> None:
    async with SimulatedGateway() as gateway:
        async with tapped(gateway.host, gateway.port, tmp_path / "day") as tap, connected(tap.port) as ib:
            assert await ib.reqContractDetailsAsync(Stock("SPY", "SMART", "USD"))
    async with TapePlayer(read_scripts(tmp_path / "day"), "127.0.0.1", 0, speed=0) as player:
        ib = IB()
        await ib.connectAsync("127.0.0.1", player.port, clientId=1, timeout=30)
        assert ib.positions() == []
        assert await ib.reqContractDetailsAsync(Stock("SPY", "SMART", "USD"))
        ib.disconnect()


async def test_order_is_refused_before_it_reaches_the_gateway_and_the_client_learns_of_it(tmp_path: Path) -> None:
    async with SimulatedGateway(GatewayOptions(accounts=(ACCOUNT,))) as gateway:
        async with tapped(gateway.host, gateway.port, tmp_path / "day") as tap, connected(tap.port) as ib:
            errors: list[tuple[int, str]] = []
            ib.errorEvent += lambda request, code, text, contract: errors.append((code, text))
            ib.placeOrder(Stock("SPY", "ARCA", "USD"), MarketOrder("BUY", 4711, account=ACCOUNT))
            ib.client.reqGlobalCancel()
            assert await ib.reqCurrentTimeAsync()  # messages are taken in order
            assert [code for code, text in errors if "refuses to forward orders" in text] == [201]
        assert {"placeOrder", "reqGlobalCancel"}.isdisjoint(request.name for request in gateway.journal.requests())
        assert not [entry for entry in gateway.journal.entries() if entry.kind == "unknown"]
    entries = list(read_entries(tmp_path / "day"))
    assert [entry.detail["type"] for entry in events(entries, "refused")] == [3, 58]
    text = str(entries)
    assert ACCOUNT not in text
    assert "4711" not in text


async def test_order_passes_if_the_tap_is_told_to(tmp_path: Path) -> None:
    async with SimulatedGateway() as gateway:
        async with tapped(gateway.host, gateway.port, tmp_path / "day", allow_orders=True) as tap:
            async with connected(tap.port) as ib:
                ib.client.reqGlobalCancel()
                assert await ib.reqCurrentTimeAsync()
    sent = [m for e in read_entries(tmp_path / "day") if isinstance(e, Read) for m in e.messages if isinstance(m, dict)]
    assert 58 in [message["type"] for message in sent]
    assert not events(read_entries(tmp_path / "day"), "refused")


async def test_gateway_that_is_away_ends_the_clients_connection(tmp_path: Path, unused_tcp_port: int) -> None:
    async with tapped("127.0.0.1", unused_tcp_port, tmp_path / "day") as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(b"API\0\0\0\0\x09v100..176")
        assert await reader.read() == b""
        writer.close()
    assert [entry.name for entry in read_entries(tmp_path / "day") if isinstance(entry, LinkEvent)] == [
        "opened",
        "closed",
    ]


async def test_client_that_does_not_speak_the_protocol_is_closed(tmp_path: Path) -> None:
    async with SimulatedGateway() as gateway, tapped(gateway.host, gateway.port, tmp_path / "day") as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() == b""
        writer.close()


def test_program_records_is_read_by_show_and_played_by_the_simulated_gateway(tmp_path: Path) -> None:
    module = [sys.executable, "-m", "ibkr_depth_pipeline.cli.gateway_sim"]
    ready = tmp_path / "ready"
    gateway = subprocess.Popen([*module, "--port", "0", "--ready-file", str(ready)], stdout=subprocess.DEVNULL)
    try:
        port = _port(ready)
        tap_module = [sys.executable, "-m", "ibkr_depth_pipeline.cli.gateway_tap"]
        words = ["--to", f"127.0.0.1:{port}", "--out", str(tmp_path / "day")]
        tap = subprocess.Popen([*tap_module, *words], stdout=subprocess.PIPE, text=True)
        assert tap.stdout is not None
        listening = tap.stdout.readline()
        assert asyncio.run(_details(int(listening.split(":")[1].split()[0])))
        os.kill(tap.pid, signal.SIGTERM)
        assert tap.wait(PATIENCE_SECS) == 0
        tap.stdout.close()
    finally:
        gateway.terminate()
        gateway.wait(PATIENCE_SECS)
    assert "> 9|8|" in _shown(tap_module, str(tmp_path / "day"))
    as_json = _shown(tap_module, str(tmp_path / "day-0001.tape.gz"), "--json", "--limit", "3")
    assert [json.loads(line)["connection"] for line in as_json.splitlines()] == [1, 1, 1]
    ready.unlink()
    player = subprocess.Popen(
        [*module, "--port", "0", "--ready-file", str(ready), "--tape", str(tmp_path / "day"), "--tape-speed", "0"],
        stdout=subprocess.DEVNULL,
    )
    try:
        assert asyncio.run(_details(_port(ready)))
    finally:
        player.terminate()
        assert player.wait(PATIENCE_SECS) == 0


def _shown(command: list[str], *words: str) -> str:
    return subprocess.run([*command, "show", *words], capture_output=True, text=True, check=True).stdout


def _port(ready: Path) -> int:
    wait_until(ready.exists, PATIENCE_SECS)
    return int(json.loads(ready.read_text())["port"])


async def _details(port: int) -> list[Any]:
    async with connected(port) as ib:
        return list(await ib.reqContractDetailsAsync(Stock("SPY", "SMART", "USD")))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--to", "nowhere", "--out", "x"], "--to nowhere"),
        (["--to", "host:99999", "--out", "x"], "--to host:99999"),
        (["--to", "127.0.0.1:1", "--out", "nowhere/x"], "--out nowhere/x"),
        (["--out", "x"], "--to HOST:PORT"),
        (["show", "nothing"], "no such tape"),
    ],
)
def test_bad_words_are_refused_by_name(tmp_path: Path, words: list[str], named: str) -> None:
    command = [sys.executable, "-m", "ibkr_depth_pipeline.cli.gateway_tap", *words]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 2
    assert named in ended.stderr
