"""A real PostgreSQL server for one test, as Debian's package has it: in a folder that goes with it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from ibkr_depth_pipeline.box.embedded_redis import HOST, free_port, port_is_free
from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

USER, PASSWORD, DATABASE = "dagster", "secret", "dagster"


def postgres_folder() -> Path:
    """The folder of initdb and postgres; the test is skipped where there is none."""
    pytest.importorskip(
        "dagster_postgres", reason="dagster-postgres is not installed: make venv, with its extra `test`"
    )
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("no PostgreSQL server here (apt-get install postgresql)")
    return found[-1].parent if found else Path(str(on_path)).parent


def _server_user() -> list[str]:
    """What to put before a command: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


class PostgresServer:
    """One server with an empty database DATABASE, which may be killed, paused and started anew.

    It listens on `host`, for clients of the same network; `within` stands before its command: on which host it runs.
    """

    def __init__(self, host: str = HOST, within: Sequence[str] = ()) -> None:
        self.host, self._within = host, within
        self._bin = postgres_folder()
        self._as_user = _server_user()
        self.port = free_port()
        # Not below pytest's own folder: that is closed to the server's user.
        self._folder = tempfile.TemporaryDirectory(prefix="ibkr_depth_postgres_", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self.data, self._log, password = folder / "data", folder / "postgres.log", folder / "password"
        password.write_text(PASSWORD)
        if self._as_user:
            owner = int(self._as_user[1].partition("=")[2])
            for path in (folder, password):
                os.chown(path, owner, -1)
        initdb = [self._bin / "initdb", "-D", self.data, "-U", USER, "-A", "scram-sha-256", "--no-sync"]
        self._run(*initdb, "--pwfile", password)
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")
        self.process = self.start()
        self._run(self._bin / "createdb", "-h", self.host, "-p", self.port, "-U", USER, DATABASE)

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@{self.host}:{self.port}/{DATABASE}"

    def start(self) -> GuardedProcess:
        """Starts it, for the first time or after `kill`, and waits until it accepts connections."""
        options = ["-D", self.data, "-h", self.host, "-p", str(self.port), "-k", "", "-c", "fsync=off"]
        command = [*self._within, *self._as_user, self._bin / "postgres", *options]
        self.process = GuardedProcess(command, log_path=self._log, cwd=self.data.parent)
        ready = [self._bin / "pg_isready", "-q", "-h", self.host, "-p", str(self.port)]
        assert wait_until(lambda: subprocess.run(ready).returncode == 0, PATIENCE_SECS), self._log.read_text()
        return self.process

    def stop(self) -> None:
        """Ends it without a shutdown, as a lost host does; `start` brings it back with its data."""
        children = self._processes()[1:]
        self.process.end()
        psutil.wait_procs(children, PATIENCE_SECS)  # each leads a session of its own
        assert wait_until(lambda: port_is_free(self.port), PATIENCE_SECS)

    def pause(self) -> None:
        """It accepts connections, by the kernel, and answers nothing."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # a connection's own process may end at any time
                process.suspend()

    def resume(self) -> None:
        """After `pause`."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # a connection's own process may end at any time
                process.resume()

    def remove(self) -> None:
        """Ends it and removes its data."""
        if not self.process.running:
            self.process.end()
        else:
            self.stop()
        self._folder.cleanup()

    def _processes(self) -> list[psutil.Process]:
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    def query(self, statement: str) -> str:
        """The answer of psql, unaligned, without a header."""
        psql = [self._bin / "psql", "-h", self.host, "-p", self.port, "-U", USER, "-d", DATABASE, "-Atc", statement]
        return self._run(*psql).strip()

    def size(self) -> int:
        """Bytes of the database on disk."""
        return int(self.query(f"SELECT pg_database_size('{DATABASE}')"))

    def _run(self, *command: object) -> str:
        words = [*self._as_user, *map(str, command)]
        env = {"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD, "LC_ALL": "C"}
        done = subprocess.run(words, capture_output=True, text=True, env=env, cwd="/")
        assert done.returncode == 0, done.stderr
        return done.stdout
