"""`ibkr_gateway_sim` as a program."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ibkr_depth_pipeline.simulation import gateway_process
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.simulation.wire_client import WireClient

COMMAND = [sys.executable, "-m", "ibkr_depth_pipeline.cli.gateway_sim"]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE_SECS, check=False)


async def test_program_serves_as_its_options_say(tmp_path: Path) -> None:
    journal, scenario = tmp_path / "journal.jsonl", tmp_path / "scenario.yaml"
    scenario.write_text("- on: {kind: request, name: reqCurrentTime}\n  do: send_error\n  code: 2103\n")
    arguments = ["--slots", "1", "--rate", "IBM=0", "--refuse", "JPM=354", "--journal", str(journal)]
    with gateway_process(*arguments, "--scenario", str(scenario)) as (host, port):
        async with WireClient(host, port) as client:
            client.subscribe(1, "JPM", "NYSE")
            await client.until_error(354)
            client.subscribe(2, "IBM", "NYSE", rows=1)
            await client.until(12)
            client.subscribe(3, "SPY", "ARCA")
            await client.until_error(309)
            client.send(49, 1)
            await client.until_error(2103)
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [entry["count"] for entry in entries if entry["kind"] == "rows"] == [2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_program_ends_cleanly_when_asked(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen([*COMMAND, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Simulated gateway listening on 127.0.0.1:")
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_SECS)
    assert (process.returncode, out, err) == (0, "", "")


def test_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "in use" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--host", "0.0.0.0"], "--allow-remote"),
        (["--replay", "no_such_file.csv"], "no_such_file.csv: no such file"),
        (["--scenario", "no_such_file.yaml"], "no_such_file.yaml"),
        (["--rate", "IBM"], "--rate IBM: not SYMBOL=NUMBER"),
        (["--rate", "IBM=-5"], "the rate of IBM is -5.0; allowed: 0 or more"),
        (["--rate", "IBM=nan"], "the rate of IBM is nan; allowed: 0 or more"),
        (["--latency", "inf"], "latency is inf; allowed: 0 or more"),
        (["--port", "99999"], "port is 99999; allowed: 0 (a free one) to 65535"),
        (["--port", "-1"], "port is -1; allowed: 0"),
        (["--refuse", "IBM=3"], "refusal code 3; allowed: 100 to 99999"),
        (["--nasdaq-name", "ARCA"], "allowed: ISLAND, NASDAQ"),
        (["--server-version", "9"], "allowed: 100 to 178"),
        (["--replay-symbol", "AAPL"], "--replay-symbol is given 1 times for 0 of --replay"),
    ],
)
def test_wrong_command_line_is_one_clear_line(arguments: list[str], complaint: str) -> None:
    done = run("--port", "0", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_names_every_option() -> None:
    done = run("--help")
    assert done.returncode == 0
    for option in ("--port", "--ready-file", "--replay", "--scenario", "--journal", "--slots", "--early-cancel"):
        assert option in done.stdout


def test_process_that_does_not_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="allow-remote"), gateway_process("--host", "0.0.0.0"):
        pass
