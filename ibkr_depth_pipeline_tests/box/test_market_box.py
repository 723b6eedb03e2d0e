"""The market in a box, from the command line: it fills Redis, touches nothing of others, and leaves nothing behind."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import port_is_free
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline_tests.box.running_box import COMMAND, START_SECS, listening, start, works_in
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

USUAL_PORTS = (3000, 3080, 6379, 7497)


@pytest.fixture
def usual_ports_taken() -> Iterator[None]:
    """Servers of somebody else on the usual ports, as far as those are free."""
    with ExitStack() as stack:
        for port in USUAL_PORTS:
            with suppress(OSError):  # somebody else has it already
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    """A server of somebody else, on a port that only this test knows. Nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.usefixtures("usual_ports_taken")
def test_box_fills_redis_and_ctrl_c_leaves_nothing(tmp_path: Path, stranger: socket.socket) -> None:
    elsewhere = str(stranger.getsockname()[1])
    hostile = {"REDIS_URL": f"redis://127.0.0.1:{elsewhere}/0", "IBKR_HOST": "127.0.0.1", "IBKR_PORT": elsewhere}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in hostile.items()))
    with ExitStack() as stack:
        box = start(stack, tmp_path, **hostile, IBKR_ROTATION_SECS="1", IBKR_LOG_LEVEL="ERROR")
        url = box.wait_for(r"Redis +(redis://\S+)")
        for line in ("Market", "Dagster UI"):
            with urllib.request.urlopen(box.wait_for(rf"{line} +(\S+)"), timeout=PATIENCE_SECS) as page:
                assert page.status == 200
        with redis.Redis.from_url(url) as client:
            assert wait_until(lambda: client.xlen("raw:ibkr:depth:stream:SPY") > 0, START_SECS)
            box.wait_for(r"rotation \d+: (.+)")
            rows = client.xlen("raw:ibkr:depth:stream:SPY")
            assert wait_until(lambda: client.xlen("raw:ibkr:depth:stream:SPY") > rows, START_SECS)
        addresses = listening(box.members())
        assert {host for host, _ in addresses} == {"127.0.0.1"}
        assert not {port for _, port in addresses} & set(USUAL_PORTS)

        box.process.send_signal(signal.SIGINT)
        assert box.exit_code() == 0, box.output
        assert "CANCELED" in box.output
        assert box.members() == []
        assert all(port_is_free(port) for _, port in addresses)
        assert not box.folder.exists()


@pytest.mark.faults
def test_nothing_survives_a_box_that_is_killed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        box = start(stack, tmp_path, "--symbol", "SPY", "--symbol", "AAPL")
        box.wait_for(r"rotation \d+: (.+)")
        assert len(box.members()) > 5
        box.process.kill()
        assert wait_until(lambda: not box.members(), PATIENCE_SECS)


def test_child_that_dies_is_named_and_ends_the_box(tmp_path: Path) -> None:
    with ExitStack() as stack:
        box = start(stack, tmp_path)
        port = box.wait_for(r"Redis +redis://127.0.0.1:(\d+)")
        box.wait_for(r"Gateway +(\S+)")
        box.listener(port).kill()
        assert box.exit_code() == 1
        assert "redis has ended by itself" in box.output
        assert "Ready to accept connections" in box.output
        assert box.members() == []


@pytest.mark.faults
def test_box_stops_by_itself_after_its_duration(tmp_path: Path) -> None:
    with ExitStack() as stack:
        box = start(stack, tmp_path, "--duration", "0", "--keep")
        assert box.exit_code() == 0, box.output
        assert "Stopped." in box.output
        assert box.folder.is_dir()


def test_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        box = start(stack, tmp_path, "--port", str(port))
        assert box.exit_code() == 1
        assert box.output == f"ibkr_market_box: port {port} is taken: choose another with --port\n"


def test_box_whose_output_nobody_reads_any_more_stops(tmp_path: Path) -> None:
    with subprocess.Popen([COMMAND], stdout=subprocess.PIPE, cwd=tmp_path, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.stdout.close()
        process.wait(PATIENCE_SECS)
    folder = Path(first.split(maxsplit=1)[1].strip()).parent
    assert not [process for process in psutil.process_iter() if works_in(process, folder)]
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--fault", "gatway", "--at", "3"),
            "step 1: fault: 'gatway' is not allowed; one of gateway_away, slot_stolen",
        ),
        (("--fault", "slot_stolen"), "--fault is given 1 times, --at 0 times; each fault needs its time"),
        (("--script", "none.yaml"), "--script none.yaml: can't be read: No such file or directory"),
        (("--script", "day.yaml"), "symbol_silent: XYZ is not in the universe: SPY"),
    ],
)
def test_fault_that_cannot_be_played_is_one_clear_line(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    (tmp_path / "day.yaml").write_text("- {at: 1, fault: symbol_silent, symbol: XYZ}\n")
    with ExitStack() as stack:
        box = start(stack, tmp_path, "--symbol", "SPY", *options)
        assert box.exit_code() == 1
        assert said in box.output
        assert "Redis" not in box.output
