"""What a whole deployment costs: the memory and processor time of all of its processes, at rest and while it records.

The processes are those of deploy/systemd; gateway and Redis do not count. Memory is PSS, so that what processes share
counts once. Beside them Dagster's own floor: the same servers with a code location that defines nothing.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import psutil
import redis

from bench.dagster_run import instance
from bench.processes import PATIENCE_SECS, BenchmarkFailed, Child
from bench.recorder import CLI, Stage, environment
from bench.start import SIZES, Start, symbols_of
from ibkr_depth_pipeline.box.dagster_api import DagsterApi
from ibkr_depth_pipeline.box.embedded_redis import free_port
from ibkr_depth_pipeline.box.trading_day import INGEST_JOB, LOCATION
from ibkr_depth_pipeline.hours.trading import TradingHours
from ibkr_depth_pipeline.orchestration.health import check_server
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.simulation import gateway_process

SYMBOLS = ("AAPL", "MSFT", "NVDA", "SPY", "QQQ", "IWM", "AMZN", "META", "GOOGL", "TSLA")
ROWS_PER_SECOND = 20
"""Of each symbol: rows enough to record, and too few to matter."""

SETTLING_SECS = 45.0
"""Imports, first ticks and the first read of the calendar are over."""

_CALENDARS = ("XNYS", "XTKS", "XASX", "XLON")
_PYTHON = (sys.executable, "-m")
_UNITS = {"MALLOC_ARENA_MAX": "2", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""As the units set it: threads share two arenas of malloc, where each core has eight by default, and Arrow has none."""

BESIDE: Mapping[str, Sequence[str]] = {
    "archiver": (*_PYTHON, "ibkr_depth_pipeline.cli.depth_archive", "run"),
    "web page": (*_PYTHON, "ibkr_depth_pipeline.cli.depth_web", "--port", "0"),
}


@dataclass(frozen=True)
class Cost:
    """Of one kind of process: its PSS in MB, and CPU seconds a second."""

    name: str
    pss_mb: float
    cores: float


def measure(stage: Stage, secs: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Each deployment over `secs` seconds. Raises BenchmarkFailed."""
    found: dict[str, list[Cost]] = {}
    with _dagster(stage, "floor", "bench.nothing", _UNITS) as (floor, _):
        found["Dagster with nothing in it"] = _costs(floor, secs)
    with _deployment(stage, "rest", SYMBOLS, {"IBKR_CALENDAR": _closed_calendar()}) as (children, _):
        found["at rest"] = _costs(children, secs)
    with _deployment(stage, "recording", SYMBOLS, {"IBKR_CALENDAR": "24/7"}) as (children, _):
        _until_recorded(stage, SYMBOLS, children["code server"])
        found["recording"] = _costs(children, secs)
    with _without_dagster(stage) as children:
        _until_recorded(stage, SYMBOLS, children["recorder"])
        found["recording without Dagster"] = _costs(children, secs, settling=5.0)
    for name, costs in found.items():
        total = sum(cost.pss_mb for cost in costs)
        say(f"  {name}: {total:.0f} MB, {100 * sum(cost.cores for cost in costs):.1f} % of a core")
    return {name: [asdict(cost) for cost in costs] for name, costs in found.items()}


def launched(stage: Stage, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Seconds from the launch of a run in Dagster to the first stored row: with an empty Redis, and once more."""
    found = []
    for count in SIZES:
        symbols = symbols_of(count)
        settings = {"IBKR_CALENDAR": "24/7", "IBKR_AUTOMATION": "off"}  # so that no other run waits for the slot
        with _deployment(stage, f"launched_{count}", symbols, settings, {}) as (children, dagster):
            first = _secs_to_first_row(stage, symbols, children, dagster)
            again = _secs_to_first_row(stage, symbols, children, dagster)
        say(f"  {count} symbols, launched in Dagster: {first:.2f} s, again {again:.2f} s")
        found.append(asdict(Start(count, first, again)))
    return found


# ---- deployments


@contextmanager
def _deployment(
    stage: Stage,
    name: str,
    symbols: Sequence[str],
    settings: Mapping[str, str],
    beside: Mapping[str, Sequence[str]] = BESIDE,
) -> Iterator[tuple[dict[str, Child], DagsterApi]]:
    """Everything that the units start."""
    stage.redis.flush()
    folder = stage.folder / name
    folder.mkdir()
    with ExitStack() as stack:
        simulated = ("--rows-per-second", str(ROWS_PER_SECOND), "--latency", "0.05")
        _, port = stack.enter_context(gateway_process(*simulated))
        env = environment(stage, port, symbols, IBKR_ROTATION_SECS=15, IBKR_AUTOMATION="on", IBKR_SESSION="calendar")
        env |= {"ARCHIVE_URL": str(folder / "archive"), "IBKR_STREAM_MAXLEN": "100000", **_UNITS, **settings}
        children, dagster = stack.enter_context(_dagster(stage, name, "ibkr_depth_pipeline.definitions", env))
        for kind, command in beside.items():
            children[kind] = stack.enter_context(Child(command, env, folder))
        yield children, dagster
        _end_runs(children, dagster)  # they outlive their code server


@contextmanager
def _without_dagster(stage: Stage) -> Iterator[dict[str, Child]]:
    """The recorder by its command, with metrics, archiver and web page."""
    stage.redis.flush()
    folder = stage.folder / "without"
    folder.mkdir()
    with ExitStack() as stack:
        _, port = stack.enter_context(gateway_process("--rows-per-second", str(ROWS_PER_SECOND)))
        env = environment(stage, port, SYMBOLS, IBKR_ROTATION_SECS=15, IBKR_METRICS_PORT=free_port())
        env |= {"ARCHIVE_URL": str(folder / "archive"), **_UNITS}
        commands = {"recorder": CLI, **BESIDE}
        yield {kind: stack.enter_context(Child(command, env, folder)) for kind, command in commands.items()}


@contextmanager
def _dagster(
    stage: Stage, name: str, module: str, env: Mapping[str, str]
) -> Iterator[tuple[dict[str, Child], DagsterApi]]:
    """Code server, daemon and webserver, as the units start them; once the webserver knows the code location."""
    port, page = free_port(), free_port()
    home = instance(stage.folder / f"{name}_home")
    workspace = stage.folder / f"{name}_workspace.yaml"
    server = f"{{host: 127.0.0.1, port: {port}, location_name: {LOCATION}}}"
    workspace.write_text(f"load_from:\n  - grpc_server: {server}\n")
    serve = ("dagster", "code-server", "start", "--host", "127.0.0.1", "--port", str(port))
    where = ("--location-name", LOCATION, "--module-name", module, "--attribute", "defs")
    commands = {
        "daemon": (*_PYTHON, "dagster._daemon", "run", "--workspace", str(workspace)),
        "webserver": (*_PYTHON, "dagster_webserver", "--port", str(page), "--workspace", str(workspace)),
    }
    with ExitStack() as stack:
        code = stack.enter_context(Child((*_PYTHON, *serve, *where), {**env, **home}, stage.folder))
        children = {"code server": code}
        _until(lambda: _serves(port), code)
        for kind, command in commands.items():
            children[kind] = stack.enter_context(Child(command, {**env, **home}, stage.folder))
        dagster = DagsterApi("127.0.0.1", page)
        _until(lambda: dagster.serves(Path(home["DAGSTER_HOME"]), LOCATION), children["webserver"])
        yield children, dagster


def _serves(port: int) -> bool:
    try:
        check_server("127.0.0.1", port)
    except (grpc.RpcError, RuntimeError):
        return False
    return True


def _closed_calendar() -> str:
    """A calendar whose exchange is closed, and does not open soon."""
    now = datetime.now(timezone.utc)
    for name in _CALENDARS:
        hours = TradingHours(name, now)
        if hours.session_at(now) is None and hours.next_session(now).open - now > timedelta(hours=2):
            return name
    raise BenchmarkFailed(f"all of {', '.join(_CALENDARS)} are open, or open soon")


def _secs_to_first_row(
    stage: Stage, symbols: Sequence[str], children: Mapping[str, Child], dagster: DagsterApi
) -> float:
    """From the launch of a run, in place of one that runs."""
    _end_runs(children, dagster)
    before = _rows(stage, symbols)
    began = time.monotonic()
    dagster.launch(LOCATION, INGEST_JOB)
    _until(lambda: _rows(stage, symbols) > before, children["code server"])
    return time.monotonic() - began


def _end_runs(children: Mapping[str, Child], dagster: DagsterApi) -> None:
    _until(lambda: not _terminated(dagster), children["code server"])


def _terminated(dagster: DagsterApi) -> list[str]:
    """Those that are not over yet. One that has just been launched refuses to end, so it is asked again and again."""
    running = [run.id for run in dagster.runs(INGEST_JOB) if not run.ended]
    for run_id in running:
        dagster.terminate(run_id)
    return running


def _until_recorded(stage: Stage, symbols: Sequence[str], child: Child) -> None:
    _until(lambda: _rows(stage, symbols) > 0, child)


def _rows(stage: Stage, symbols: Sequence[str]) -> int:
    """Of the first symbols in the ring."""
    with redis.Redis.from_url(stage.redis.url) as store:
        return sum(int(store.xlen(stream_key(symbol))) for symbol in symbols[:3])


def _until(condition: Callable[[], bool], child: Child) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not condition():
        if child.process.poll() is not None or time.monotonic() > deadline:
            raise child.failed("did not come so far")
        time.sleep(0.01)


# ---- costs


def _costs(children: Mapping[str, Child], secs: float, settling: float = SETTLING_SECS) -> list[Cost]:
    """Of each kind of process: the mean of PSS at the beginning and the end, and CPU time between the two."""
    time.sleep(settling)
    before = _look(children)
    time.sleep(secs)
    after = _look(children)
    return [
        Cost(kind, (before.get(kind, (mb, 0.0))[0] + mb) / 2, max(0.0, cpu - before.get(kind, (mb, 0.0))[1]) / secs)
        for kind, (mb, cpu) in after.items()
    ]


def _look(children: Mapping[str, Child]) -> dict[str, tuple[float, float]]:
    """PSS in MB and CPU seconds by kind; the code server's own children are told apart."""
    found: dict[str, tuple[float, float]] = {}
    for kind, child in children.items():
        for process in child.tree():
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                name = kind if kind != "code server" else _part_of_code_server(process.cmdline())
                mb, cpu = found.get(name, (0.0, 0.0))
                times = process.cpu_times()
                found[name] = mb + _pss_mb(process.pid), cpu + times.user + times.system
    return found


def _part_of_code_server(command: Sequence[str]) -> str:
    words = " ".join(command)
    if "multiprocessing" in words:
        return "run"
    return "code server's proxy" if "code-server" in words else "code server"


def _pss_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1000
