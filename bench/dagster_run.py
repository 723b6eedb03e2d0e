"""What Dagster costs: the same recording inside a run of the job on its own instance, and the event log's growth."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.figures import Measured
from bench.processes import REPOSITORY, Child
from bench.recorder import Stage, environment, play
from bench.recording import RECORDED
from bench.slots import SLOTS, SYMBOLS
from ibkr_depth_pipeline.simulation import gateway_process

JOB = (
    *(sys.executable, "-m", "dagster", "job", "execute"),
    *("-m", "ibkr_depth_pipeline.definitions", "-j", "ibkr_depth_ingest_job"),
)
TURNS_OF_A_SESSION = 1_560
"""6.5 hours of 15 s."""

DWELL_SECS = 0.1
"""The shortest that the settings allow: a session in fast motion."""


def measure(stage: Stage, rows: int, runs: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The CLI and the Dagster job in turn, `runs` times each. Raises BenchmarkFailed."""
    found: dict[str, list[Any]] = {"CLI": [], "Dagster": []}
    home = instance(stage.folder / "dagster_home")
    for number in range(1, runs + 1):
        found["CLI"].append(play(stage, RECORDED, rows))
        found["Dagster"].append(play(stage, RECORDED, rows, command=JOB, extra=home, stopped_well=None))
        say(f"  round {number}: " + ", ".join(f"{name} {costs[-1].rate:,.0f}" for name, costs in found.items()))
    return {
        name: {
            "rate": Measured.of([cost.rate for cost in costs]).as_json(),
            "cpu": Measured.of([cost.cpu_secs_per_million for cost in costs]).as_json(),
            "rss_mb": Measured.of([cost.peak_rss_mb for cost in costs]).as_json(),
        }
        for name, costs in found.items()
    }


def instance(home: Path) -> dict[str, str]:
    """A new instance with this repository's settings, as environment variables."""
    home.mkdir()
    shutil.copy(REPOSITORY / "config" / "dagster.yaml", home)
    return {"DAGSTER_HOME": str(home)}


def event_log(stage: Stage, turns: int, patience: float) -> dict[str, Any]:
    """How much the instance's databases grow while `turns` turns of the rotation go by, and at the run's end."""
    stage.redis.flush()
    folder = stage.folder / "session"
    folder.mkdir()
    home, journal = instance(folder / "home"), folder / "journal.jsonl"
    arguments = ["--first-row-delay", 0, "--slots", SLOTS, "--rows-per-second", 20, "--journal", journal]
    with ExitStack() as stack:
        _, port = stack.enter_context(gateway_process(*map(str, arguments)))
        env = environment(stage, port, SYMBOLS, IBKR_ROTATION_SECS=DWELL_SECS, IBKR_LOG_LEVEL="INFO")
        run = stack.enter_context(Child(JOB, {**env, **home}, folder))
        _until(lambda: _turns(journal) >= 1, 60.0, run)
        at_start = _database_bytes(folder)
        reached = _until(lambda: _turns(journal) >= turns, patience, run)
        run.stop()
        log_bytes = len(run.stderr().encode())
    return {
        "turns": _turns(journal),
        "wanted": turns,
        "reached": reached,
        "grown_bytes": _database_bytes(folder) - at_start,
        "stderr_bytes": log_bytes,
    }


def _turns(journal: Path) -> int:
    return journal.read_text().count('"kind": "subscribed"') // SLOTS if journal.exists() else 0


def _database_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.db*"))


def _until(condition: Callable[[], bool], secs: float, run: Child) -> bool:
    deadline = time.monotonic() + secs
    while not condition():
        if run.process.poll() is not None:
            raise run.failed("ended early")
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True
