"""`ibkr_ingest_run` as an operator runs it: a process, its exit code and what it prints."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import sysconfig
import termios
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis, free_port
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.schema.keys import PREFIX, focus_key, last_key, stream_key
from ibkr_depth_pipeline.simulation import GatewayOptions, GatewayThread
from ibkr_depth_pipeline.universe import load_universe
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

COMMAND = Path(sysconfig.get_path("scripts")) / "ibkr_ingest_run"
REPOSITORY = Path(__file__).parents[2]
SECRET = "hunter2"


class Operator:
    """Somebody at a terminal in a folder of their own, with an environment of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
        self.symbols("SPY", "AAPL")

    def symbols(self, *names: str) -> None:
        path = self.folder / "config" / "ibkr_symbols.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"symbols": names}))

    def points_at(self, gateway: GatewayThread, redis_url: str) -> None:
        self.env |= {"IBKR_HOST": gateway.host, "IBKR_PORT": str(gateway.port), "REDIS_URL": redis_url}

    def runs(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=PATIENCE_SECS
        )

    @contextmanager
    def starts(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


@pytest.fixture(scope="module")
def shared_gateway() -> Iterator[GatewayThread]:
    with GatewayThread(GatewayOptions()) as gateway:
        yield gateway


@pytest.fixture
def settled(operator: Operator, shared_gateway: GatewayThread, shared_redis_url: str) -> Operator:
    """An operator with a gateway and a Redis that work."""
    operator.points_at(shared_gateway, shared_redis_url)
    return operator


def log_lines(stderr: str) -> list[dict[str, Any]]:
    """The log; asserts that each line is a JSON object."""
    return [json.loads(line) for line in stderr.splitlines()]


def failed(stdout: str) -> list[str]:
    """The subjects of the lines that say FAIL."""
    return [line[5:].split(":")[0] for line in stdout.splitlines() if line.startswith("FAIL ")]


# ---- help


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), ("run", "check", "IBKR_PORT", "REDIS_URL", ".env", "SYMBOL_CONFIG_PATH")),
        (("run",), ("--symbol", "--duration", "--once", "Ctrl-C", "stderr")),
        (("check",), ("--symbol", "--orders", "Exit code")),
    ],
)
def test_help_shows_a_newcomer_the_commands(
    operator: Operator, arguments: tuple[str, ...], told: tuple[str, ...]
) -> None:
    done = operator.runs(*arguments, "--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    assert all(word in text for word in told), text


# ---- 2: the operator's input


def test_bad_settings_are_listed_at_once_and_nothing_connects(settled: Operator, shared_gateway: GatewayThread) -> None:
    before = len(shared_gateway.journal.entries("opened"))
    settled.env |= {"IBKR_CLIENT_ID": "-5", "IBKR_DEPTH_ROWS": "0", "REDIS_URL": f"http://:{SECRET}@localhost"}
    for command in ("run", "check"):
        done = settled.runs(command)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "IBKR_CLIENT_ID='-5' is not allowed" in done.stderr
        assert "IBKR_DEPTH_ROWS='0' is not allowed" in done.stderr
        assert "REDIS_URL=" in done.stderr
        assert SECRET not in done.stderr
        assert "Traceback" not in done.stderr
    assert len(shared_gateway.journal.entries("opened")) == before


def test_settings_come_from_dot_env_of_the_folder(settled: Operator) -> None:
    (settled.folder / ".env").write_text("IBKR_LOG_LEVEL=LOUD\n")
    done = settled.runs("check")
    assert (done.returncode, "IBKR_LOG_LEVEL='LOUD'" in done.stderr) == (2, True)


def test_bad_universe_is_refused_before_the_run(settled: Operator) -> None:
    settled.symbols("spy", "A:B")
    done = settled.runs("run")
    assert done.returncode == 2
    assert "config/ibkr_symbols.yaml" in done.stderr
    assert "symbols[1] 'spy'" in done.stderr
    assert "symbols[2] 'A:B'" in done.stderr


@pytest.mark.parametrize("arguments", [("run", "--symbol", "spy"), ("check", "--symbol", "A:B")])
def test_bad_symbol_on_the_command_line_is_refused(settled: Operator, arguments: tuple[str, ...]) -> None:
    done = settled.runs(*arguments)
    assert (done.returncode, "symbols asked for" in done.stderr) == (2, True)


@pytest.mark.parametrize("duration", ["0", "-1", "nan", "inf", "long"])
def test_bad_duration_is_refused(settled: Operator, duration: str) -> None:
    assert settled.runs("run", f"--duration={duration}").returncode == 2


# ---- check


def test_check_of_a_sound_setup_is_one_line_each_and_exit_code_0(settled: Operator) -> None:
    done = settled.runs("check")
    assert (done.returncode, done.stderr) == (0, "")
    subjects = [line[5:].split(":")[0] for line in done.stdout.splitlines()]
    expected = ["universe", "rotation", "redis", "gateway", "client id", "read-only", "venue of SPY", "venue of AAPL"]
    assert subjects == expected
    assert {line[:5] for line in done.stdout.splitlines()} == {"ok   "}


def test_check_without_gateway_and_redis_reports_both(operator: Operator, redis_server: EmbeddedRedis) -> None:
    with GatewayThread(GatewayOptions(port=free_port())) as gone:
        operator.points_at(gone, redis_server.url)
    redis_server.stop()
    done = operator.runs("check")
    assert done.returncode == 1
    assert failed(done.stdout) == ["redis", "gateway"]
    assert "Traceback" not in done.stderr


def test_check_with_no_free_client_id_fails_and_with_one_warns(operator: Operator, shared_redis_url: str) -> None:
    with GatewayThread(GatewayOptions()) as gateway:
        operator.points_at(gateway, shared_redis_url)
        operator.env["IBKR_CLIENT_ID_MAX_OFFSET"] = "0"
        gateway.do(lambda simulated: simulated.hold_client_id(777, 600))
        done = operator.runs("check")
        assert (done.returncode, failed(done.stdout)) == (1, ["client id"])
        operator.env["IBKR_CLIENT_ID_MAX_OFFSET"] = "1"
        done = operator.runs("check")
        assert (done.returncode, failed(done.stdout)) == (0, [])
        assert "warn client id: 777 in use; 778 is free" in done.stdout


def test_check_with_a_read_only_redis_fails(settled: Operator, redis_server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.replicaof("127.0.0.1", str(redis_server.port))
    settled.env["REDIS_URL"] = redis_server.url
    done = settled.runs("check")
    assert (done.returncode, failed(done.stdout)) == (1, ["redis"])


def test_check_with_a_wrong_password_fails_without_showing_it(settled: Operator, redis_server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("requirepass", "right")
        settled.env["REDIS_URL"] = redis_server.url.replace("//", f"//:{SECRET}@")
        done = settled.runs("check")
        client.config_set("requirepass", "")
    assert (done.returncode, failed(done.stdout)) == (1, ["redis"])
    assert SECRET not in done.stdout + done.stderr


def test_check_with_unknown_symbols_fails_for_each(settled: Operator) -> None:
    settled.symbols("NOSUCH", "SPY", "ZZTOP")
    done = settled.runs("check")
    assert (done.returncode, failed(done.stdout)) == (1, ["venue of NOSUCH", "venue of ZZTOP"])


def test_check_with_a_bad_universe_fails_and_goes_on(settled: Operator) -> None:
    settled.symbols("spy", "spy")
    done = settled.runs("check")
    assert (done.returncode, failed(done.stdout)) == (1, ["universe", "universe"])
    assert "ok   gateway" in done.stdout


# ---- status


def test_status_shows_what_redis_holds_without_markup(operator: Operator, redis_server: EmbeddedRedis) -> None:
    operator.symbols("SPY")
    operator.env["REDIS_URL"] = redis_server.url
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset(last_key("SPY"), mapping={"ts": "1", "venue": "[/x][bold]"})
    done = operator.runs("status")
    assert (done.returncode, done.stderr) == (1, "")
    assert "[/x][bold]" in done.stdout


# ---- run


def test_run_of_some_seconds_stores_snapshots_and_exits_with_0(settled: Operator, shared_redis_url: str) -> None:
    done = settled.runs("run", "--duration", "3", "--symbol", "AAPL")
    assert done.returncode == 0, done.stderr
    with redis.Redis.from_url(shared_redis_url) as client:
        stored = client.xlen(stream_key("AAPL"))
        assert client.xlen(stream_key("SPY")) == 0
    assert stored > 0
    assert done.stdout == f"{stored} snapshots of 1 symbols stored\n"
    events = [line["event"] for line in log_lines(done.stderr)]
    assert {"connected", "symbol_resolved", "subscribed", "unsubscribed", "stopped"} <= set(events)


def test_log_level_applies_to_a_run(settled: Operator) -> None:
    settled.env["IBKR_LOG_LEVEL"] = "error"
    done = settled.runs("run", "--duration", "2")
    assert (done.returncode, done.stderr) == (0, "")


def test_run_without_a_gateway_fails_with_one_line(operator: Operator, shared_redis_url: str) -> None:
    with GatewayThread(GatewayOptions(port=free_port())) as gone:
        operator.points_at(gone, shared_redis_url)
    operator.env["IBKR_CONNECT_TIMEOUT_SECS"] = "0.5"
    done = operator.runs("run", "--once")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {gone.host}:{gone.port}")
    assert "IBKR_PORT" in last
    assert "Traceback" not in done.stderr


def test_run_without_redis_fails_and_never_shows_the_password(
    operator: Operator, shared_gateway: GatewayThread
) -> None:
    with EmbeddedRedis() as gone:
        operator.points_at(shared_gateway, gone.url.replace("//", f"//user:{SECRET}@"))
    done = operator.runs("run")
    assert done.returncode == 1
    assert "error: Redis" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_run_with_nothing_to_record_names_each_symbol_and_the_reason(settled: Operator) -> None:
    settled.env["IBKR_START_TIMEOUT_SECS"] = "2"
    done = settled.runs("run", "--symbol", "NOSUCH", "--symbol", "ZZTOP")
    assert done.returncode == 1
    assert "NOSUCH, ZZTOP: the gateway knows no such contract" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_ends_a_run_with_0_and_leaves_no_subscription(
    operator: Operator, shared_redis_url: str, number: signal.Signals
) -> None:
    with GatewayThread(GatewayOptions()) as gateway, redis.Redis.from_url(shared_redis_url) as client:
        operator.points_at(gateway, shared_redis_url)
        with operator.starts("run") as process:
            assert wait_until(
                lambda: all(client.xlen(stream_key(symbol)) > 10 for symbol in ("SPY", "AAPL")), PATIENCE_SECS
            )
            process.send_signal(number)
            _, stderr = process.communicate(timeout=PATIENCE_SECS)
        assert process.returncode == 0, stderr
        gateway.wait_for(lambda simulated: simulated.journal.entries("closed"))
        subscribed = {entry.detail["request_id"] for entry in gateway.journal.entries("subscribed")}
        cancelled = {int(entry.detail["reqId"]) for entry in gateway.journal.requests("cancelMktDepth")}
        assert subscribed
        assert cancelled == subscribed
        assert not gateway.journal.errors(310)
        last = {
            key.decode().rpartition(":")[2]: client.hget(key, "seq") for key in client.scan_iter(f"{PREFIX}:last:*")
        }
        assert set(last) == {"SPY", "AAPL"}
        for symbol, seq in last.items():
            assert int(seq or 0) == client.xlen(stream_key(symbol))
    assert log_lines(stderr)[-1]["event"] == "stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_run_while_the_gateway_is_silent(
    operator: Operator, shared_redis_url: str, number: signal.Signals
) -> None:
    with GatewayThread(GatewayOptions()) as gateway:
        operator.points_at(gateway, shared_redis_url)
        operator.env["IBKR_CONNECT_TIMEOUT_SECS"] = "300"
        gateway.do(lambda simulated: simulated.mute_new_connections())
        with operator.starts("run") as process:
            gateway.wait_for(lambda simulated: simulated.journal.entries("opened"), PATIENCE_SECS)
            process.send_signal(number)
            _, stderr = process.communicate(timeout=PATIENCE_SECS)
    assert process.returncode == 0, stderr


def test_log_without_a_reader_does_not_end_a_run(settled: Operator, shared_redis_url: str) -> None:
    with settled.starts("run", "--symbol", "SPY") as process, redis.Redis.from_url(shared_redis_url) as client:
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()
        assert wait_until(lambda: client.xlen(stream_key("SPY")) > 50, PATIENCE_SECS)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECS) == 0


def test_module_runs_like_the_console_script(operator: Operator) -> None:
    command = [sys.executable, "-m", "ibkr_depth_pipeline.cli.ingest_run", "--help"]
    done = subprocess.run(
        command, cwd=operator.folder, env=operator.env, capture_output=True, text=True, timeout=PATIENCE_SECS
    )
    assert (done.returncode, "check" in done.stdout) == (0, True)


def test_closed_terminal_drains_a_run_like_sigterm(operator: Operator, shared_redis_url: str) -> None:
    with GatewayThread(GatewayOptions()) as gateway, redis.Redis.from_url(shared_redis_url) as client:
        operator.points_at(gateway, shared_redis_url)
        ours, terminal = pty.openpty()
        command = [COMMAND, "run"]
        with subprocess.Popen(
            command,
            cwd=operator.folder,
            env=operator.env,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        ) as process:
            os.close(terminal)
            assert wait_until(lambda: client.xlen(stream_key("SPY")) > 10 and bool(os.read(ours, 65536)), PATIENCE_SECS)
            os.close(ours)
            assert process.wait(PATIENCE_SECS) == 0
        gateway.wait_for(lambda simulated: simulated.journal.entries("closed"))
        subscribed = {entry.detail["request_id"] for entry in gateway.journal.entries("subscribed")}
        assert {int(entry.detail["reqId"]) for entry in gateway.journal.requests("cancelMktDepth")} == subscribed
        assert int(client.hget(last_key("SPY"), "seq")) == client.xlen(stream_key("SPY"))


def test_daemon_reads_its_universe_anew_on_sighup_and_shows_what_is_in_force(
    operator: Operator, shared_redis_url: str
) -> None:
    with GatewayThread(GatewayOptions()) as gateway, redis.Redis.from_url(shared_redis_url) as client:
        operator.points_at(gateway, shared_redis_url)
        before = operator.runs("universe")
        assert before.returncode == 1
        assert "no ingest runs" in before.stdout
        with (
            (operator.folder / "run.log").open("w") as log,
            subprocess.Popen(
                [COMMAND, "run"], cwd=operator.folder, env=operator.env, stderr=log, start_new_session=True
            ) as process,
        ):
            try:
                assert wait_until(lambda: client.xlen(stream_key("AAPL")) > 10, PATIENCE_SECS)
                process.send_signal(signal.SIGHUP)
                operator.symbols("AAPL", "MSFT")
                process.send_signal(signal.SIGHUP)
                assert wait_until(lambda: client.xlen(stream_key("MSFT")) > 10, PATIENCE_SECS)

                def in_force() -> dict[str, Any]:
                    shown: dict[str, Any] = json.loads(operator.runs("universe", "--json").stdout)
                    return shown

                assert wait_until(lambda: set(in_force()["instruments"]) == {"AAPL", "MSFT"}, PATIENCE_SECS)
                aapl = in_force()["instruments"]["AAPL"]
                assert (aapl["con_id"], aapl["venue"], aapl["share"], aapl["subscribed"]) == (
                    265598,
                    "ISLAND",
                    1.0,
                    True,
                )
                shown = operator.runs("universe")
                assert shown.returncode == 0
                assert "MSFT" in shown.stdout
                operator.symbols("AAPL", "aapl")
                assert wait_until(lambda: operator.runs("universe").returncode == 1, PATIENCE_SECS)
                assert "aapl" in operator.runs("universe").stdout
                assert "the newest is not in force" in operator.runs("status").stdout
            finally:
                process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECS) == 0
        assert len(gateway.journal.entries("opened")) == 1, "no connection was made anew"


def test_focus_is_refused_with_a_reason_or_sets_a_key_that_expires(settled: Operator, shared_redis_url: str) -> None:
    nobody = settled.runs("focus", "SPY")
    assert (nobody.returncode, "no ingest runs" in nobody.stderr) == (1, True)
    assert settled.runs("focus", "SPY", "--for", "soon").returncode == 2
    settled.symbols("SPY", "AAPL", "QQQ")
    with settled.starts("run"), redis.Redis.from_url(shared_redis_url) as client:
        assert wait_until(lambda: settled.runs("focus", "SPY", "--for", "10m").returncode == 0, PATIENCE_SECS)
        assert 0 < client.pttl(focus_key("SPY")) <= 600_000
        other = settled.runs("focus", "NOSUCH")
        assert (other.returncode, "NOSUCH" in other.stderr) == (1, True)
        assert settled.runs("focus", "SPY", "--for", "0").returncode == 0
        assert not client.exists(focus_key("SPY"))


def test_too_many_pins_are_an_error_before_anything_runs(operator: Operator) -> None:
    pinned = [{"symbol": symbol, "pin": True} for symbol in ("SPY", "QQQ", "IWM")]
    operator.symbols(*pinned, "AAPL")  # type: ignore[arg-type]
    done = operator.runs("run")
    assert done.returncode == 2
    assert "SPY, QQQ, IWM" in done.stderr
    assert "SPY, QQQ, IWM" in operator.runs("check").stdout
    assert "IBKR_MAX_CONCURRENT_DEPTH" in done.stderr


def test_run_under_nohup_outlives_its_terminal(settled: Operator, shared_redis_url: str) -> None:
    with redis.Redis.from_url(shared_redis_url) as client:
        with subprocess.Popen(
            ["nohup", COMMAND, "run", "--symbol", "SPY"],
            cwd=settled.folder,
            env=settled.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert wait_until(lambda: client.xlen(stream_key("SPY")) > 10, PATIENCE_SECS)
            process.send_signal(signal.SIGHUP)
            stored = client.xlen(stream_key("SPY"))
            assert wait_until(lambda: client.xlen(stream_key("SPY")) > stored + 50, PATIENCE_SECS)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECS) == 0


def test_init_writes_settings_and_a_universe_and_overwrites_nothing(operator: Operator) -> None:
    for file in (operator.folder / "config").glob("*"):
        file.unlink()
    (operator.folder / ".env").unlink(missing_ok=True)
    missing = operator.runs("run")
    assert missing.returncode == 2
    for expected in ("SYMBOL_CONFIG_PATH", str(operator.folder), "ibkr_ingest_run init"):
        assert expected in missing.stderr
    first = operator.runs("init")
    assert first.returncode == 0, first.stderr
    assert "ibkr_ingest_run check" in first.stdout
    assert load_universe(operator.folder / "config" / "ibkr_symbols.yaml").symbols
    assert (operator.folder / ".env").read_text() == (REPOSITORY / ".env.example").read_text()
    (operator.folder / ".env").write_text("IBKR_PORT=4002\n")
    second = operator.runs("init")
    assert (second.returncode, "wrote" in second.stdout) == (0, False)
    assert (operator.folder / ".env").read_text() == "IBKR_PORT=4002\n"


def test_line_of_env_that_sets_nothing_is_named_by_check_and_run(settled: Operator) -> None:
    (settled.folder / ".env").write_text("# ours\n\nIBKR_PORT: 4999\nREDIS_URL: redis://:hush@host\n")
    checked = settled.runs("check").stdout
    assert "line 3: 'IBKR_PORT' sets nothing; write NAME=value" in checked
    run = settled.runs("run", "--symbol", "SPY", "--duration", "0.2")
    told = [line["text"] for line in log_lines(run.stderr) if line["event"] == "env_line_ignored"]
    assert [text.partition(".env, ")[2].split(":")[0] for text in told] == ["line 3", "line 4"]
    assert "hush" not in checked + run.stderr


@pytest.mark.faults
def test_installed_wheel_writes_settings_and_a_universe_into_an_empty_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(REPOSITORY)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    empty = tmp_path / "empty"
    empty.mkdir()
    code = (
        f"import ibkr_depth_pipeline as package; assert package.__file__.startswith({str(tmp_path)!r}); "
        "from ibkr_depth_pipeline.cli.ingest_run import app; app(['init'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    subprocess.run([sys.executable, "-c", code], cwd=empty, env=environment, check=True, timeout=PATIENCE_SECS)
    assert (empty / ".env").read_text() == (REPOSITORY / ".env.example").read_text()
    for name in ("ibkr_symbols.yaml", "gateways.example.yaml"):
        assert (empty / "config" / name).read_text() == (REPOSITORY / "config" / name).read_text()
