"""The market in a box: Redis, the simulated gateway, the web page, Dagster and a trading day; all ends with the box."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ibkr_depth_pipeline.box.alerts import AlertReceiver
from ibkr_depth_pipeline.box.dagster_api import DagsterApi, DagsterUnavailable
from ibkr_depth_pipeline.box.embedded_redis import HOST, EmbeddedRedis, find_redis_binary, free_port, port_is_free
from ibkr_depth_pipeline.box.fault_player import KEYS, FaultPlayer
from ibkr_depth_pipeline.box.faults import BY_KEY, Page, PlannedFault
from ibkr_depth_pipeline.box.keyboard import Keyboard, keyboard
from ibkr_depth_pipeline.box.processes import BoxError, GuardedProcess, wait_until
from ibkr_depth_pipeline.box.run_folder import LogFollower, RotationLines, RunFolder, parse_line
from ibkr_depth_pipeline.box.script import check_symbols
from ibkr_depth_pipeline.box.trading_day import LOCATION, TradingDay
from ibkr_depth_pipeline.box.watching import MarketWatcher, RowsToRecord
from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline.universe import load_universe

DEFINITIONS = "ibkr_depth_pipeline.definitions"
WEB = "ibkr_depth_web"
UI_PORT, WEB_PORT, GATEWAY_PORT, REDIS_PORT = 3000, 3080, 7497, 6379
START_TIMEOUT_SECS = 120.0
DRAIN_TIMEOUT_SECS = 30.0
STOP_GRACE_SECS = 10.0
LOOK_SECS = 0.25
RUNS_POLL_SECS = 2.0
_JOURNAL_ENTRIES = 1000
_PYTHON = (sys.executable, "-m")
_INSTALL = "install the project (make run does, or pip install -e .)"


@dataclass(frozen=True, slots=True)
class BoxOptions:
    """`port` None: 3000, or the next free one. `duration_secs` counts from the launch of the ingest; None: no end.

    `faults` are played by their times; quiet: no line per rotation.
    """

    port: int | None = None
    symbols: tuple[str, ...] = ()
    duration_secs: float | None = None
    keep: bool = False
    config: Path | None = None
    faults: tuple[PlannedFault, ...] = ()
    quiet: bool = False


class _StopAsked(Exception):
    """Somebody asked the box to stop: the way out of any wait."""


def open_market(options: BoxOptions, say: Callable[[str], None]) -> bool:
    """Runs a box until a stop signal or the end of the duration.

    Whether the newest run of the ingest held, and the market recovered from every fault that was played.

    Call it from the main thread: it takes signals. Raises BoxError if something can't be started or dies;
    everything is down by then. A second signal raises KeyboardInterrupt, after everything was killed.
    """
    _check_installed(options)
    folder = RunFolder(options.config)
    say(f"Logs         {folder.logs}")
    if options.symbols:
        folder.limit_universe(options.symbols)
    try:
        universe = load_universe(folder.universe).symbols
        check_symbols(options.faults, universe)
    except (BoxError, ConfigurationError) as problem:
        folder.remove()
        raise BoxError(str(problem)) from None
    held = MarketBox(options, folder, universe, say).run()
    if held and not options.keep:
        folder.remove()
    return held


class MarketBox:
    """One box in its folder. `say` gets each line for the person at the terminal."""

    def __init__(
        self, options: BoxOptions, folder: RunFolder, symbols: Sequence[str], say: Callable[[str], None]
    ) -> None:
        self._options, self._folder, self._symbols = options, folder, tuple(symbols)
        self._terminal = say
        self._stop_asked = False
        self._children: dict[str, GuardedProcess | EmbeddedRedis] = {}  # in the order of their start
        self._held = ExitStack()
        """What lives in this process: threads, and the terminal's modes."""
        self._alerts = self._held.enter_context(AlertReceiver())
        self._follower = LogFollower(folder.home, "storage/*/compute_logs/*.err")
        self._lines = RotationLines()
        self._day: TradingDay | None = None
        self._player: FaultPlayer | None = None
        self._watcher: MarketWatcher | None = None

    def run(self) -> bool:
        """See `open_market`."""
        self._take_signals()
        try:
            with contextlib.suppress(_StopAsked):
                self._watch(self._bring_up())
        finally:
            self._take_down()
        recovered = self._player is None or self._player.recovered
        return recovered and (self._day is None or self._day.held)

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

    def _bring_up(self) -> FaultPlayer:
        ui_port = self._options.port or _first_free(UI_PORT)
        redis = self._start_redis()
        gateway = self._start_gateway()
        env = self._folder.environment((gateway.host, gateway.port), redis.url, self._alerts.url)
        page = self._start_web(env)  # whose port the links in Dagster have
        workspace = self._start_code_server(env)
        dagster = self._start_webserver(env, workspace, ui_port)
        base = f"http://{HOST}:{ui_port}"
        day = TradingDay(dagster, base, self._folder.archive, self._say, lambda: gateway.do(_open_markets))
        day.hold_sensors()
        self._start("daemon", [*_PYTHON, "dagster._daemon", "run", "--workspace", str(workspace)], env)
        self._day = day
        probe = day.start_probe()
        self._await(lambda: day.is_probed(probe), "the probe", pause=0.5)
        sent = RowsToRecord(gateway.journal.row_counts.total, lambda: day.is_probing)
        self._watcher = self._held.enter_context(MarketWatcher(redis.url, self._symbols, sent))
        pages = {**day.pages, Page.MARKET: page}
        self._player = FaultPlayer(gateway, redis, self._say, self._options.faults, pages, day.on_close)
        day.open_session()
        return self._player

    def _start_redis(self) -> EmbeddedRedis:
        redis = EmbeddedRedis(port=_first_free(REDIS_PORT), directory=self._folder.redis)
        self._children["redis"] = redis
        redis.start()
        self._say(f"Redis        {redis.url}")
        return redis

    def _start_gateway(self) -> GatewayThread:
        """In this process, so that faults can be played on it, and its rows be counted."""
        port = _first_free(GATEWAY_PORT)
        options = GatewayOptions(host=HOST, port=port, keep_rows=False, journal_entries=_JOURNAL_ENTRIES)
        gateway = self._held.enter_context(GatewayThread(options))
        self._say(f"Gateway      {gateway.host}:{gateway.port} (simulated)")
        return gateway

    def _start_web(self, env: dict[str, str]) -> str:
        port = _first_free(WEB_PORT)
        env |= {"IBKR_WEB_HOST": HOST, "IBKR_WEB_PORT": str(port)}
        self._start("web", [_console_script(WEB)], env)
        self._await(lambda: _listens(port), "the web page to be served")
        self._say(f"Market       http://{HOST}:{port}/   the books, live")
        return f"http://{HOST}:{port}/"

    def _start_code_server(self, env: dict[str, str]) -> Path:
        port = free_port()
        command = [*_PYTHON, "dagster", "api", "grpc", "--host", HOST, "--port", str(port)]
        command += ["--module-name", DEFINITIONS, "--attribute", "defs", "--location-name", LOCATION]
        self._start("code-server", command, env)
        self._await(lambda: _listens(port), "Dagster's code server to load the definitions")
        return self._folder.write_workspace(LOCATION, HOST, port)

    def _start_webserver(self, env: dict[str, str], workspace: Path, port: int) -> DagsterApi:
        command = [*_PYTHON, "dagster_webserver", "--host", HOST, "--port", str(port), "--workspace", str(workspace)]
        self._start("webserver", command, env)
        dagster = DagsterApi(HOST, port)
        self._await(lambda: dagster.serves(self._folder.home, LOCATION), "the Dagster webserver to answer")
        return dagster

    def _start(self, name: str, command: list[str], env: dict[str, str]) -> None:
        log_path = self._folder.logs / f"{name}.log"
        self._children[name] = GuardedProcess(command, log_path=log_path, env=env, cwd=self._folder.path)

    def _await(self, condition: Callable[[], bool], what: str, *, pause: float = 0.0) -> None:
        """`pause`: seconds between two checks, for a condition that costs something."""

        def settled() -> bool:
            self._check()
            if condition():
                return True
            time.sleep(pause)
            return False

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

    def _watch(self, player: FaultPlayer) -> None:
        started = monotonic()
        limit = self._options.duration_secs
        next_poll = started
        with keyboard() as keys:
            self._say(f"Faults       {KEYS}" if keys.there else "Faults       --fault NAME --at SECS, --script FILE")
            self._say("Ctrl-C stops everything.")
            while limit is None or monotonic() < started + limit:
                self._check()
                self._show_news(keys, player)
                if monotonic() >= next_poll:
                    self._show_runs(player)
                    next_poll = monotonic() + RUNS_POLL_SECS
                time.sleep(LOOK_SECS)

    def _show_news(self, keys: Keyboard, player: FaultPlayer) -> None:
        self._show_log()
        for alert in self._alerts.new():
            player.on_alert(alert)
            for line in alert.lines():
                self._say(line)
        for state in self._watcher.new() if self._watcher else ():
            self._lines.stale = state.stale
            player.on_state(state)
        for key in keys.pressed():
            if key in BY_KEY:
                player.ask(PlannedFault(BY_KEY[key]))
            elif key in "?h":
                self._say(f"Faults       {KEYS}")
        player.tick()

    def _show_log(self) -> None:
        for raw in self._follower.new_lines():
            event = parse_line(raw)
            if event.name and self._player is not None:
                self._player.on_event(event.name, event.at, event.fields)
            if (line := self._lines.line_for(raw)) is not None and not (self._options.quiet and event.is_rotation):
                self._say(line)
            if event.is_rotation and self._day is not None:
                self._day.on_rotation()

    def _show_runs(self, player: FaultPlayer) -> None:
        """Report which runs of the ingest have ended."""
        for run in self._day.tick() if self._day else ():
            player.on_event(f"run_{run.status.lower()}", run.ended_ts, {})
            if run.status == "FAILURE":
                self._say(f"Why: in the UI, or {self._folder.home}/storage/{run.id}/compute_logs")

    # Down

    def _take_down(self) -> None:
        """The daemon first, so that nothing new is launched; then the runs drain; then the rest, newest first."""
        self._say("Stopping: the ingest drains, then everything ends. Ctrl-C again kills at once.")
        try:
            if self._player is not None:
                self._player.close()
            self._end("daemon")
            self._drain()
            for name in reversed(self._children):
                self._end(name)
            self._show_log()
        finally:
            for child in self._children.values():
                child.stop() if isinstance(child, EmbeddedRedis) else child.end()
            self._held.close()
        self._say(f"Stopped. {self._lines.snapshots:,} snapshots in {self._lines.rotations} rotations.")

    def _drain(self) -> None:
        """Terminate the active runs and wait for the ingest's. If Dagster can't, `_end` does it by SIGTERM."""
        day = self._day
        if day is None or not self._children["code-server"].running:
            return
        with contextlib.suppress(DagsterUnavailable):
            day.terminate()
            if not wait_until(day.is_drained, DRAIN_TIMEOUT_SECS):
                self._say(f"The ingest has not drained within {DRAIN_TIMEOUT_SECS:.0f} s; it is killed.")
        self._show_log()
        day.newly_ended()

    def _end(self, name: str) -> None:
        child = self._children.get(name)
        if isinstance(child, EmbeddedRedis):
            child.stop()
        elif child is not None:
            child.end(grace_secs=STOP_GRACE_SECS)


def _open_markets(gateway: SimulatedGateway) -> None:
    gateway.open_markets()


def _first_free(usual: int) -> int:
    """The usual port, or the next one that is free."""
    return next(port for port in range(usual, 65536) if port_is_free(port))


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
        return True
    return False


def _check_installed(options: BoxOptions) -> None:
    find_redis_binary()
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
