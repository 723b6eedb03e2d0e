"""The market in a box: Redis, the simulated gateway, Dagster, one run of the ingest; all of it ends with the box."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ibkr_depth_pipeline.box.dagster_api import DagsterApi, DagsterUnavailable, LaunchedRun
from ibkr_depth_pipeline.box.embedded_redis import HOST, EmbeddedRedis, find_redis_binary, free_port, port_is_free
from ibkr_depth_pipeline.box.processes import BoxError, GuardedProcess, wait_until
from ibkr_depth_pipeline.box.run_folder import LogFollower, RotationLines, RunFolder
from ibkr_depth_pipeline.clock import monotonic

LOCATION = "ibkr_depth_pipeline"
DEFINITIONS = "ibkr_depth_pipeline.definitions"
GATEWAY = "ibkr_gateway_sim"
WEB = "ibkr_depth_web"
INGEST_JOB = "ibkr_depth_ingest_job"
UI_PORT, WEB_PORT, GATEWAY_PORT, REDIS_PORT = 3000, 3080, 7497, 6379
START_TIMEOUT_SECS = 120.0
DRAIN_TIMEOUT_SECS = 30.0
STOP_GRACE_SECS = 10.0
LOOK_SECS = 0.25
RUNS_POLL_SECS = 2.0
_PYTHON = (sys.executable, "-m")
_INSTALL = "install the project (make run does, or pip install -e .)"


@dataclass(frozen=True, slots=True)
class BoxOptions:
    """`port` None: 3000, or the next free one. `duration_secs` counts from the launch of the ingest; None: no end."""

    port: int | None = None
    symbols: tuple[str, ...] = ()
    duration_secs: float | None = None
    keep: bool = False
    config: Path | None = None


class _StopAsked(Exception):
    """Somebody asked the box to stop: the way out of any wait."""


def open_market(options: BoxOptions, say: Callable[[str], None]) -> bool:
    """Runs a box until a stop signal or the end of the duration. Whether the newest run of the ingest held.

    Call it from the main thread: it takes signals. Raises BoxError if something can't be started or dies;
    everything is down by then. A second signal raises KeyboardInterrupt, after everything was killed.
    """
    _check_installed(options)
    folder = RunFolder(options.config)
    say(f"Logs         {folder.logs}")
    if options.symbols:
        folder.limit_universe(options.symbols)
    held = MarketBox(options, folder, say).run()
    if held and not options.keep:
        folder.remove()
    return held


class MarketBox:
    """One box in its folder. `say` gets each line for the person at the terminal."""

    def __init__(self, options: BoxOptions, folder: RunFolder, say: Callable[[str], None]) -> None:
        self._options = options
        self._folder = folder
        self._terminal = say
        self._stop_asked = False
        self._children: dict[str, GuardedProcess | EmbeddedRedis] = {}  # in the order of their start
        self._dagster: DagsterApi | None = None
        self._follower = LogFollower(folder.home, "storage/*/compute_logs/*.err")
        self._lines = RotationLines()
        self._runs: dict[str, LaunchedRun] = {}  # newest first

    def run(self) -> bool:
        """See `open_market`."""
        self._take_signals()
        try:
            with contextlib.suppress(_StopAsked):
                self._bring_up()
                self._watch()
        finally:
            self._take_down()
        return not any(run.status == "FAILURE" for run in list(self._runs.values())[:1])

    def _say(self, line: str) -> None:
        """A terminal or pipe that has gone cannot stop the box later, so its end counts as a request to stop."""
        try:
            self._terminal(line)
        except OSError:
            self._stop_asked = True

    def _take_signals(self) -> None:
        def take(signum: int, frame: FrameType | None) -> None:
            if self._stop_asked:
                raise KeyboardInterrupt
            self._stop_asked = True

        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, take)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(signal.SIGHUP, take)

    # Up

    def _bring_up(self) -> None:
        ui_port = self._options.port or _first_free(UI_PORT)
        redis = self._start_redis()
        gateway = self._start_gateway()
        env = self._folder.environment(gateway, redis.url)
        self._start_web(env)
        workspace = self._start_code_server(env)
        self._dagster = self._start_dagster(env, workspace, ui_port)
        run_id = self._dagster.launch(LOCATION, INGEST_JOB)
        self._say(f"Dagster UI   http://{HOST}:{ui_port}/runs/{run_id}")
        self._say("Ctrl-C stops everything.")

    def _start_redis(self) -> EmbeddedRedis:
        redis = EmbeddedRedis(port=_first_free(REDIS_PORT), directory=self._folder.redis)
        self._children["redis"] = redis
        redis.start()
        self._say(f"Redis        {redis.url}")
        return redis

    def _start_gateway(self) -> tuple[str, int]:
        ready = self._folder.path / "gateway.json"
        where = ["--host", HOST, "--port", str(_first_free(GATEWAY_PORT)), "--ready-file", str(ready)]
        self._start("gateway", [_console_script(GATEWAY), *where], self._folder.environment())
        self._await(ready.exists, "the simulated gateway to listen")
        listening = json.loads(ready.read_text())
        self._say(f"Gateway      {listening['host']}:{listening['port']} (simulated)")
        return listening["host"], listening["port"]

    def _start_web(self, env: dict[str, str]) -> None:
        port = _first_free(WEB_PORT)
        self._start("web", [_console_script(WEB), "--host", HOST, "--port", str(port)], env)
        self._await(lambda: _listens(port), "the web page to be served")
        self._say(f"Market       http://{HOST}:{port}/")

    def _start_code_server(self, env: dict[str, str]) -> Path:
        port = free_port()
        command = [*_PYTHON, "dagster", "api", "grpc", "--host", HOST, "--port", str(port)]
        command += ["--module-name", DEFINITIONS, "--attribute", "defs", "--location-name", LOCATION]
        self._start("code-server", command, env)
        self._await(lambda: _listens(port), "Dagster's code server to load the definitions")
        return self._folder.write_workspace(LOCATION, HOST, port)

    def _start_dagster(self, env: dict[str, str], workspace: Path, port: int) -> DagsterApi:
        where = ["--workspace", str(workspace)]
        web = [*_PYTHON, "dagster_webserver", "--host", HOST, "--port", str(port), *where]
        self._start("webserver", web, env)
        self._start("daemon", [*_PYTHON, "dagster._daemon", "run", *where], env)
        dagster = DagsterApi(HOST, port)
        self._await(lambda: dagster.serves(self._folder.home, LOCATION), "the Dagster webserver to answer")
        return dagster

    def _start(self, name: str, command: list[str], env: dict[str, str]) -> None:
        log_path = self._folder.logs / f"{name}.log"
        self._children[name] = GuardedProcess(command, log_path=log_path, env=env, cwd=self._folder.path)

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        def settled() -> bool:
            self._check()
            return condition()

        if not wait_until(settled, START_TIMEOUT_SECS):
            raise BoxError(f"waited {START_TIMEOUT_SECS:.0f} s in vain for {what}; see {self._folder.logs}")

    def _check(self) -> None:
        """Raises if the box must not go on: asked to stop, or a child has died."""
        if self._stop_asked:
            raise _StopAsked
        for name, child in self._children.items():
            if not child.running:
                raise BoxError(f"{name} has ended by itself. The end of its log:\n{child.log_tail()}")

    # While it runs

    def _watch(self) -> None:
        started = monotonic()
        limit = self._options.duration_secs
        next_poll = started
        while limit is None or monotonic() < started + limit:
            self._check()
            self._show_rotations()
            if monotonic() >= next_poll:
                self._show_runs()
                next_poll = monotonic() + RUNS_POLL_SECS
            time.sleep(LOOK_SECS)

    def _show_rotations(self) -> None:
        for raw in self._follower.new_lines():
            if (line := self._lines.line_for(raw)) is not None:
                self._say(line)

    def _show_runs(self) -> None:
        """Say which runs of the ingest have ended; a busy webserver is asked again later."""
        known, self._runs = self._runs, self._current_runs(otherwise=self._runs)
        for run in self._runs.values():
            if run.ended and run != known.get(run.id):
                self._say(f"Ingest run {run.id[:8]} has ended: {run.status}")
                if run.status == "FAILURE":
                    self._say(f"Why: in the UI, or {self._folder.home}/storage/{run.id}/compute_logs")

    def _current_runs(self, otherwise: dict[str, LaunchedRun]) -> dict[str, LaunchedRun]:
        if self._dagster is None:
            return {}
        try:
            return {run.id: run for run in self._dagster.runs(INGEST_JOB)}
        except DagsterUnavailable:
            return otherwise

    # Down

    def _take_down(self) -> None:
        """The daemon first, so that nothing new is launched; then the runs drain; then the rest, newest first."""
        self._say("Stopping: the ingest drains, then everything ends. Ctrl-C again kills at once.")
        try:
            self._end("daemon")
            self._drain()
            for name in reversed(self._children):
                self._end(name)
            self._show_rotations()
        finally:
            for child in self._children.values():
                child.stop() if isinstance(child, EmbeddedRedis) else child.end()
        self._say(f"Stopped. {self._lines.snapshots:,} snapshots in {self._lines.rotations} rotations.")

    def _drain(self) -> None:
        """Terminate the active runs and wait for their end. Where Dagster can't, `_end` does it by SIGTERM."""
        if self._dagster is None or not self._children["code-server"].running:
            return
        with contextlib.suppress(DagsterUnavailable):
            for run in self._active_runs():
                self._dagster.terminate(run.id)
            if not wait_until(lambda: not self._active_runs(), DRAIN_TIMEOUT_SECS):
                self._say(f"The ingest has not drained within {DRAIN_TIMEOUT_SECS:.0f} s; it is killed.")
        self._show_rotations()
        self._show_runs()

    def _active_runs(self) -> list[LaunchedRun]:
        return [run for run in self._dagster.runs(INGEST_JOB) if not run.ended] if self._dagster else []

    def _end(self, name: str) -> None:
        child = self._children.get(name)
        if isinstance(child, EmbeddedRedis):
            child.stop()
        elif child is not None:
            child.end(grace_secs=STOP_GRACE_SECS)


def _first_free(usual: int) -> int:
    """The usual port, or the next one that is free."""
    return next(port for port in range(usual, 65536) if port_is_free(port))


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
        return True
    return False


def _check_installed(options: BoxOptions) -> None:
    find_redis_binary()
    _console_script(GATEWAY)
    _console_script(WEB)
    for package in ("dagster", "dagster_webserver"):
        if importlib.util.find_spec(package) is None:
            raise BoxError(f"the Python package {package} is missing: {_INSTALL}")
    if options.port is not None and not port_is_free(options.port):
        raise BoxError(f"port {options.port} is taken: choose another with --port")


def _console_script(name: str) -> str:
    script = Path(sysconfig.get_path("scripts")) / name
    if not script.is_file():
        raise BoxError(f"{script} is missing: {_INSTALL}")
    return str(script)
