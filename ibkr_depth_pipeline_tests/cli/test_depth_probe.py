"""`ibkr_depth_probe` as an operator runs it: a process of its own, against a simulated gateway and a real Redis."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway

COMMAND = str(Path(sysconfig.get_path("scripts")) / "ibkr_depth_probe")
UNIVERSE = """
symbols:
  - AAPL
  - {symbol: SPX, sec_type: IND, exchange: CBOE}
"""
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int | None
    stdout: str
    stderr: str


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the command runs: with a universe, without a .env."""
    (tmp_path / "universe.yaml").write_text(UNIVERSE)
    return tmp_path


def environment(folder: Path, gateway: SimulatedGateway | None, redis_url: str, **more: str) -> dict[str, str]:
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("IBKR_", "REDIS_", "COLUMNS"))}
    target = {"IBKR_PORT": str(gateway.port)} if gateway is not None else {}
    config = {"SYMBOL_CONFIG_PATH": str(folder / "universe.yaml"), "REDIS_URL": redis_url, "TERM": "xterm-256color"}
    return {**mine, **target, **config, **more}


async def start(folder: Path, env: dict[str, str], *options: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(COMMAND, *options, stdout=pipe, stderr=pipe, cwd=folder, env=env)


async def end_of(process: asyncio.subprocess.Process) -> Ended:
    stdout, stderr = await process.communicate()
    return Ended(process.returncode, stdout.decode(), stderr.decode())


async def run(folder: Path, env: dict[str, str], *options: str) -> Ended:
    return await end_of(await start(folder, env, *options))


async def run_on_terminal(folder: Path, env: dict[str, str], *options: str) -> Ended:
    """The same on a terminal of 80 columns and 24 lines; stdout holds all that was written to it."""
    here, there = pty.openpty()
    size = {"COLUMNS": "80", "LINES": "24"}
    process = await asyncio.create_subprocess_exec(
        COMMAND, *options, stdin=there, stdout=there, stderr=there, cwd=folder, env={**env, **size}
    )
    os.close(there)
    written = await asyncio.to_thread(_read_all, here)
    os.close(here)
    return Ended(await process.wait(), written.decode(), "")


def _read_all(terminal: int) -> bytes:
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)


async def test_two_symbols_with_depth_are_a_table_two_ladders_and_exit_code_0(
    folder: Path, shared_redis_url: str
) -> None:
    async with SimulatedGateway() as gateway:
        ended = await run(
            folder, environment(folder, gateway, shared_redis_url), "--symbol", "AAPL", "--symbol2", "MSFT"
        )
    assert ended.code == 0, ended.stderr
    assert "AAPL on ISLAND" in ended.stdout
    assert "MSFT on ISLAND" in ended.stdout
    assert "2 of 2 symbols have depth" in ended.stdout
    assert "AAPL: ok" in ended.stderr
    assert "\x1b" not in ended.stdout + ended.stderr
    assert max(map(len, ended.stdout.splitlines())) <= 80
    with redis.Redis.from_url(shared_redis_url) as store:
        assert store.hget("raw:ibkr:depth:venue:MSFT", "depth_supported") == b"1"


async def test_symbol_may_be_repeated(folder: Path, shared_redis_url: str) -> None:
    options = ("--symbol", "AAPL", "--symbol", "MSFT", "--symbol", "SPY", "--json")
    async with SimulatedGateway() as gateway:
        ended = await run(folder, environment(folder, gateway, shared_redis_url), *options)
    assert [each["symbol"] for each in json.loads(ended.stdout)["symbols"]] == ["AAPL", "MSFT", "SPY"]


async def test_all_probes_the_universe_and_one_symbol_without_depth_is_exit_code_1(
    folder: Path, shared_redis_url: str
) -> None:
    async with SimulatedGateway() as gateway:
        ended = await run(folder, environment(folder, gateway, shared_redis_url), "--all")
    assert ended.code == 1
    assert "10092" in ended.stdout
    assert "1 of 2 symbols have depth" in ended.stdout


async def test_json_is_the_only_output_on_stdout(folder: Path, shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        ended = await run(folder, environment(folder, gateway, shared_redis_url), "--all", "--json")
    report = json.loads(ended.stdout)
    aapl, spx = report["symbols"]
    assert (report["passed"], report["client_id"], report["redis"]) == (False, 787, "recorded")
    assert (aapl["outcome"], aapl["venue_requested"], aapl["l2"]) == ("depth", "ISLAND", True)
    assert (aapl["bid_rows"], len(aapl["asks"]), len(aapl["asks"][0])) == (10, 10, 3)
    assert set(aapl["sizes"]) == {"rows", "fractional", "multiples_of_100", "smallest", "largest"}
    assert (spx["outcome"], spx["codes"], spx["l2"], spx["first_row_secs"]) == ("refused", [10092], False, None)


async def test_unreachable_redis_is_a_warning_and_exit_code_0(folder: Path) -> None:
    async with SimulatedGateway() as gateway:
        env = environment(folder, gateway, "redis://:sesame@127.0.0.1:1/0")
        ended = await run(folder, env, "--symbol", "AAPL")
    assert ended.code == 0
    assert "warning: Redis at redis://:***@127.0.0.1:1/0" in ended.stdout
    assert "sesame" not in ended.stdout + ended.stderr


async def test_no_redis_option_leaves_redis_alone(folder: Path, shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        ended = await run(
            folder, environment(folder, gateway, shared_redis_url), "--symbol", "AAPL", "--no-redis", "--json"
        )
    assert (ended.code, json.loads(ended.stdout)["redis"]) == (0, "off")
    with redis.Redis.from_url(shared_redis_url) as store:
        assert store.dbsize() == 0


async def test_probe_beside_a_running_ingest_reports_it_and_passes_symbols_with_a_venue(
    folder: Path, shared_redis_url: str
) -> None:
    with redis.Redis.from_url(shared_redis_url) as store:
        store.set("raw:ibkr:depth:hb:SPY", 1_700_000_000_000, ex=60)
    async with SimulatedGateway() as gateway:
        ended = await run(folder, environment(folder, gateway, shared_redis_url), "--symbol", "AAPL")
        assert gateway.journal.requests("reqMktDepth") == []
    assert ended.code == 0
    assert "an ingest is running (heartbeats of SPY" in ended.stdout
    assert "as far as it could be checked" in ended.stdout


async def test_timeout_bounds_the_wait_for_a_book(folder: Path, shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(silent_symbols=frozenset({"AAPL"}))) as gateway:
        env = environment(folder, gateway, shared_redis_url)
        ended = await run(folder, env, "--symbol", "AAPL", "--timeout", "0.3")
    assert ended.code == 1
    assert "no row in 0.3 s" in ended.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "nothing to probe: name symbols (--symbol AAPL --symbol MSFT) or ask for --all"),
        (("--all", "--symbol", "AAPL"), "both --all and --symbol"),
        (("--symbol", "aapl"), "'aapl' is not a symbol"),
        (("--symbol", "AAPL", "--symbol2", "AAPL"), "listed 2 times"),
        (("--symbol", "AAPL", "--timeout", "0"), "0"),
        (("AAPL",), "AAPL"),
    ],
)
async def test_bad_input_is_explained_and_exit_code_2(folder: Path, options: tuple[str, ...], said: str) -> None:
    ended = await run(folder, environment(folder, None, "redis://127.0.0.1:1/0"), *options)
    assert ended.code == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


async def test_bad_settings_are_exit_code_2(folder: Path) -> None:
    env = environment(folder, None, "http://127.0.0.1", IBKR_PROBE_CLIENT_ID="none")
    ended = await run(folder, env, "--symbol", "AAPL")
    assert ended.code == 2
    assert "IBKR_PROBE_CLIENT_ID='none'" in ended.stderr
    assert "REDIS_URL" in ended.stderr


async def test_unreachable_gateway_is_one_line_and_exit_code_1(folder: Path, shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        env = environment(folder, gateway, shared_redis_url)
    ended = await run(folder, env, "--symbol", "AAPL", "--json")
    assert (ended.code, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1].startswith(f"error: 127.0.0.1:{gateway.port}: ")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_signal_cancels_the_subscriptions(
    folder: Path, shared_redis_url: str, number: signal.Signals, code: int
) -> None:
    async with SimulatedGateway(GatewayOptions(silent_symbols=frozenset({"AAPL"}))) as gateway:
        process = await start(folder, environment(folder, gateway, shared_redis_url), "--symbol", "AAPL")
        await gateway.wait_for(lambda: gateway.journal.entries("subscribed"))
        process.send_signal(number)
        ended = await end_of(process)
        await gateway.wait_for(lambda: gateway.journal.entries("closed"))
        assert len(gateway.journal.requests("cancelMktDepth")) == 1
    assert ended.code == code
    assert "Traceback" not in ended.stderr


async def test_ctrl_c_ends_a_probe_of_a_mute_gateway_without_a_traceback(folder: Path, shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        gateway.mute_new_connections()
        env = environment(folder, gateway, shared_redis_url, IBKR_CONNECT_TIMEOUT_SECS="60")
        process = await start(folder, env, "--symbol", "AAPL")
        await gateway.wait_for(lambda: gateway.journal.entries("opened"))
        process.send_signal(signal.SIGINT)
        ended = await end_of(process)
    assert ended.code == 130
    assert "Traceback" not in ended.stderr
    assert "interrupted (SIGINT)" in ended.stdout


async def test_probe_on_a_terminal_draws_in_place_and_in_colour(folder: Path, shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        env = environment(folder, gateway, shared_redis_url)
        env.pop("NO_COLOR", None)
        ended = await run_on_terminal(folder, env, "--symbol", "AAPL", "--symbol", "MSFT")
    assert ended.code == 0, ended.stdout
    assert "symbols done" in ended.stdout
    assert any(code != "\x1b[0m" for code in _COLOUR.findall(ended.stdout))


async def test_no_color_is_respected_on_a_terminal(folder: Path, shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        env = environment(folder, gateway, shared_redis_url, NO_COLOR="1")
        ended = await run_on_terminal(folder, env, "--symbol", "AAPL")
    colours = {number for code in _COLOUR.findall(ended.stdout) for number in code[2:-1].split(";")}
    assert colours <= {"", "0", "1", "2", "3"}  # bold, dim and italic are no colours
    assert max(len(_ESCAPE.sub("", line).rstrip()) for line in re.split(r"[\r\n]+", ended.stdout)) <= 80


async def test_help_has_an_example_and_the_exit_codes(folder: Path) -> None:
    ended = await run(folder, environment(folder, None, "redis://127.0.0.1:1/0"), "--help")
    assert ended.code == 0
    assert "ibkr_depth_probe --symbol AAPL --symbol2 MSFT" in ended.stdout
    assert "beside a running ingest" in ended.stdout
