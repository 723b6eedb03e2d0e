"""`ibkr_gateway_facts` as an operator runs it: a process of its own, against a simulated gateway and a real Redis."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import sysconfig
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from ibkr_depth_pipeline.cli.gateway_facts import app
from ibkr_depth_pipeline.gateway_facts import key_path, read_facts, starting_point
from ibkr_depth_pipeline.schema.keys import lease_key
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway, load_scenario

COMMAND = str(Path(sysconfig.get_path("scripts")) / "ibkr_gateway_facts")
QUICK = (
    *("--first-row", "3", "--granted", "0.5", "--advice", "0.3", "--watch", "0.3", "--late-rows", "0.3"),
    *("--release", "3", "--most-venues", "1", "--early-cancel"),
)
READ_ONLY = {"startApi": 71, "reqContractDetails": 9, "reqMktDepth": 10, "cancelMktDepth": 11}
READ_ONLY |= {"reqCurrentTime": 49, "reqMktDepthExchanges": 82}


@dataclass(frozen=True)
class Ended:
    code: int | None
    stdout: str
    stderr: str


def environment(folder: Path, port: int, redis_url: str) -> dict[str, str]:
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("IBKR_", "REDIS_", "COLUMNS"))}
    universe = str(folder / "universe.yaml")
    return {**mine, "IBKR_PORT": str(port), "REDIS_URL": redis_url, "SYMBOL_CONFIG_PATH": universe, "COLUMNS": "200"}


async def start(folder: Path, port: int, redis_url: str, *options: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    env = environment(folder, port, redis_url)
    return await asyncio.create_subprocess_exec(COMMAND, *options, stdout=pipe, stderr=pipe, cwd=folder, env=env)


async def run(folder: Path, port: int, redis_url: str, *options: str) -> Ended:
    process = await start(folder, port, redis_url, *options)
    stdout, stderr = await process.communicate()
    return Ended(process.returncode, stdout.decode(), stderr.decode())


@asynccontextmanager
async def recorded(gateway: SimulatedGateway) -> AsyncIterator[tuple[int, bytearray]]:
    """A port that leads to the gateway, and every byte that clients have sent there, handshakes included."""
    sent = bytearray()
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bytearray | None) -> None:
        while data := await reader.read(65536):
            if keep is not None:
                keep += data
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gateway_reader, gateway_writer = await asyncio.open_connection(gateway.host, gateway.port)
        tasks.add(asyncio.create_task(copy(reader, gateway_writer, sent)))
        tasks.add(asyncio.create_task(copy(gateway_reader, writer, None)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], sent
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def types_of(sent: bytes) -> list[int]:
    """The type of every message after the offer of versions of each connection."""
    types = []
    at = 0
    while at < len(sent):
        if sent.startswith(b"API\0", at):
            at += 4
            at += 4 + int.from_bytes(sent[at : at + 4], "big")
            continue
        length = int.from_bytes(sent[at : at + 4], "big")
        types.append(int(sent[at + 4 : at + 4 + length].split(b"\0")[0]))
        at += 4 + length
    return types


async def test_whole_run_sends_questions_and_depth_requests_alone_and_writes_what_it_found(
    tmp_path: Path, shared_redis_url: str
) -> None:
    async with SimulatedGateway(GatewayOptions(slots=2)) as gateway, recorded(gateway) as (port, sent):
        ended = await run(tmp_path, port, shared_redis_url, "--symbol", "SPY", "--symbol2", "EUR.USD", *QUICK)
    assert (ended.code, ended.stderr.count("error")) == (0, 0), ended.stderr
    assert set(types_of(bytes(sent))) == set(READ_ONLY.values())
    found = read_facts(tmp_path / "config" / "gateway_facts.json")
    assert (found.seen("slots"), found.port, found.symbols) == (2, port, ("SPY", "EUR.USD"))
    assert "DU1234567" not in found.as_json()
    key = key_path(tmp_path / "config" / "gateway_facts.json")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().strip() not in (tmp_path / "config" / "gateway_facts.json").read_text()
    used = starting_point(
        load_settings(ibkr_port=port, ibkr_gateway_facts=key.with_name("gateway_facts.json")), ["DU1234567"]
    )
    assert (used.slots, used.problem) == (2, "")
    assert "depth subscriptions at once" in ended.stdout
    assert "slots ..." in ended.stderr
    assert re.search(r"\d+ as assumed, \d+ otherwise, \d+ where nothing definite is assumed, \d not seen", ended.stdout)
    options = load_scenario(str(tmp_path / "config" / "gateway_facts.yaml")).applied_to(GatewayOptions())
    assert (options.slots, options.server_version) == (2, 176)


async def test_interrupted_run_cancels_its_lines_and_keeps_what_it_found_so_far(
    tmp_path: Path, shared_redis_url: str
) -> None:
    async with SimulatedGateway() as gateway:
        process = await start(tmp_path, gateway.port, shared_redis_url, "--only", "venues", "--watch", "600")
        await gateway.wait_for(lambda: gateway.journal.row_counts["SPY"] > 30, timeout=60)
        process.send_signal(signal.SIGINT)
        stdout, _ = await process.communicate()
        assert gateway.journal.requests("cancelMktDepth")
        assert gateway.account.slots.in_use(time.time()) == 0
    assert process.returncode == 130
    found = read_facts(tmp_path / "config" / "gateway_facts.json")
    assert found.seen("nasdaq_name") == "ISLAND"
    assert found.facts["insert_meaning"].reason == "interrupted (SIGINT)" == found.ended_early
    assert found.facts["early_cancel"].reason.startswith("not tried")
    assert "not seen: interrupted (SIGINT)" in stdout.decode()


async def test_run_beside_a_recorder_is_refused_unless_that_is_allowed(tmp_path: Path, shared_redis_url: str) -> None:
    with redis.Redis.from_url(shared_redis_url) as client:
        client.set(lease_key("default"), "another")
    async with SimulatedGateway() as gateway:
        ended = await run(tmp_path, gateway.port, shared_redis_url)
        assert (ended.code, gateway.journal.requests()) == (1, [])
        assert "a recorder runs" in ended.stderr
        assert "--beside-recorder" in ended.stderr
        ended = await run(tmp_path, gateway.port, shared_redis_url, "--beside-recorder", "--only", "connection")
    assert ended.code == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--only", "everything"), "--only everything: there is no such experiment; there are connection, contracts"),
        (("--symbol", "spy!"), "spy!"),
        (("--out", "notes.txt"), "is not replaced, as it is no file of this program"),
        (("--scenario", "notes.txt"), "is not replaced, as it is no scenario of this program"),
    ],
)
def test_bad_input_is_named_before_anything_is_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    ended = CliRunner().invoke(app, list(options), env={"IBKR_PORT": "1"})
    assert ended.exit_code == 2
    assert complaint in ended.output
    assert (tmp_path / "notes.txt").read_text() == "mine"


async def test_gateway_that_cannot_be_reached_is_named_and_no_file_is_written(
    tmp_path: Path, shared_redis_url: str
) -> None:
    ended = await run(tmp_path, 1, shared_redis_url)
    assert ended.code == 1
    assert "127.0.0.1:1: nothing listens there" in ended.stderr
    assert not (tmp_path / "config").exists()
