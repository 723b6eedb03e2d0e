"""What years of recording leave behind: Dagster's database a session, Redis a symbol, archive and report a million.

A session is 6.5 hours of ten symbols: 97 rounds of observations and 98 of the heartbeats' checks, with the real events
of a real run and the real sensor, in fast motion.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickData, TickStatus

from bench import verify
from bench.dagster_run import JOB, instance
from bench.processes import REPOSITORY, BenchmarkFailed, Child
from bench.recorder import Stage, environment, play
from ibkr_depth_pipeline.box.embedded_redis import HOST
from ibkr_depth_pipeline.orchestration.gateway_assets import FEED_KEY
from ibkr_depth_pipeline.orchestration.purging import purge
from ibkr_depth_pipeline.schema.keys import heartbeat_key
from ibkr_depth_pipeline.simulation import gateway_process
from ibkr_depth_pipeline_tests.deploy.postgres import DATABASE, PASSWORD, USER, PostgresServer

SYMBOLS = ("AAPL", "AMZN", "GOOGL", "IWM", "META", "MSFT", "NVDA", "QQQ", "SPY", "TSLA")
OBSERVATIONS, CHECKS = 97, 98
"""Rounds in 6.5 hours, one every IBKR_OBSERVE_SECS and one every 240 s."""
MAXLEN = 10_000
TICKS_A_DAY = {"heartbeats": 5_760, "others": 20_160}
"""One of each 15 s, and two more sensors every 15 s and the watchdog every 10 s, whose state is short."""
_TICKS = 1_000
_PATIENCE_SECS = 300.0

Say = Callable[[str], None]


def measure(stage: Stage, rows: int, say: Say) -> dict[str, Any]:
    """Raises BenchmarkFailed, also if sqlite3 or PostgreSQL is not installed."""
    if shutil.which("sqlite3") is None:
        raise BenchmarkFailed("no sqlite3 here (apt-get install sqlite3)")
    found: dict[str, Any] = {"redis": _redis(stage, rows), "millions": _millions()}
    say(f"  {found}")
    for name, storage in (("SQLite", _Sqlite), ("Postgres", _Postgres)):
        with storage(stage.folder / f"years_{name}") as database:
            found[name] = _session(stage, database)
            say(f"  {name}: {found[name]}")
    return found


def _redis(stage: Stage, rows: int) -> dict[str, float]:
    """A stream that was cut at MAXLEN, by the bytes of Redis' whole data."""
    cost = play(stage, ("AAPL",), rows, slots=1, IBKR_STREAM_MAXLEN=MAXLEN)
    return {"bytes_a_snapshot": cost.redis_bytes / MAXLEN, "rows": rows, "maxlen": MAXLEN}


def _millions() -> list[str]:
    """The archive's bytes and the report's seconds, as the tests' own measurement has them."""
    command = [sys.executable, "-m", "ibkr_depth_pipeline_tests.report.measure", "1"]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout.splitlines()


# ---- Dagster's storages


class _Sqlite:
    """An instance with the repository's own settings."""

    def __init__(self, folder: Path) -> None:
        self.home = instance(folder)["DAGSTER_HOME"]
        self.environment = {"DAGSTER_HOME": self.home}

    def __enter__(self) -> _Sqlite:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.home)

    def size(self) -> int:
        """Without what still stands in write-ahead logs, which have a bound."""
        for path in Path(self.home).rglob("*.db"):
            _sqlite(path, "PRAGMA wal_checkpoint(PASSIVE)")
        return sum(path.stat().st_size for path in Path(self.home).rglob("*.db"))

    def vacuum(self) -> None:
        """As wipe.sh does it."""
        for path in Path(self.home, "history", "runs").glob(".db*"):
            path.unlink()
        for path in Path(self.home).rglob("*.db"):
            _sqlite(path, "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")


def _sqlite(path: Path, statements: str) -> None:
    subprocess.run(["sqlite3", path, statements], check=True, capture_output=True)


class _Postgres:
    """An instance with the image's settings, on a server of its own."""

    def __init__(self, folder: Path) -> None:
        try:
            self.server = PostgresServer()
        except pytest.skip.Exception as lacking:  # as it does for a test
            raise BenchmarkFailed(str(lacking)) from None
        self.home = instance(folder)["DAGSTER_HOME"]
        document = yaml.safe_load((REPOSITORY / "deploy" / "docker" / "dagster.yaml").read_text())
        document["storage"]["postgres"]["postgres_db"] |= {"hostname": HOST, "port": self.server.port}
        Path(self.home, "dagster.yaml").write_text(yaml.safe_dump(document))
        self.environment = {"DAGSTER_HOME": self.home, "DAGSTER_POSTGRES_USER": USER, "DAGSTER_POSTGRES_DB": DATABASE}
        self.environment["DAGSTER_POSTGRES_PASSWORD"] = PASSWORD

    def __enter__(self) -> _Postgres:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.remove()
        shutil.rmtree(self.home)

    def size(self) -> int:
        return self.server.size()

    def vacuum(self) -> None:
        self.server.query("VACUUM FULL")


def _session(stage: Stage, database: _Sqlite | _Postgres) -> dict[str, int]:
    """Bytes of the database at each step: what makes it grow, then purged, wiped and vacuumed."""
    os.environ.update(database.environment)
    with ExitStack() as stack:
        dagster = stack.enter_context(dg.DagsterInstance.from_config(database.home))
        arguments = ("--slots", "3", "--rows-per-second", "20", "--first-row-delay", "0")
        _, port = stack.enter_context(gateway_process(*arguments))
        fast: dict[str, object] = {"IBKR_ROTATION_SECS": 0.5, "IBKR_ALERT_GRACE_SECS": 0, "IBKR_CALENDAR": "24/7"}
        observing = {**environment(stage, port, SYMBOLS, IBKR_OBSERVE_SECS=0.5, **fast), **database.environment}
        quiet = {**observing, "IBKR_OBSERVE_SECS": "86400"}
        sizes = {"empty": database.size()}
        with Child(JOB, observing, stage.folder) as run:
            _wait(lambda: _observed(dagster) >= OBSERVATIONS, run)
        stage.redis.flush()
        sizes["run with observations"] = database.size()
        with Child(JOB, quiet, stage.folder) as run:
            _wait(lambda: _recorded(stage) == len(SYMBOLS), run)
            sizes["another run"] = database.size()
            with Child((sys.executable, "-m", "bench.dagster_session", str(CHECKS)), quiet) as checks:
                line = checks.line_with("checks", _PATIENCE_SECS)
            sizes["checks"] = database.size()
        for number in range(_TICKS):
            of_heartbeats = number < _TICKS * TICKS_A_DAY["heartbeats"] / sum(TICKS_A_DAY.values())
            dagster.create_tick(_tick(line["state_bytes"] if of_heartbeats else 50))
        sizes["ticks"] = database.size()
        purge(dagster, datetime.now(timezone.utc) + timedelta(seconds=1))
        sizes["purged"] = database.size()
    command = [sys.executable, "-m", "dagster", "run", "wipe", "--force"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **database.environment})
    sizes["wiped"] = database.size()
    database.vacuum()
    return {**sizes, "vacuumed": database.size(), "checks stored": line["checks"]}


def _observed(dagster: dg.DagsterInstance) -> int:
    return len(dagster.fetch_observations(FEED_KEY, limit=OBSERVATIONS).records)


def _recorded(stage: Stage) -> int:
    with verify.connect(stage.redis.url) as store:
        return len(list(store.scan_iter(f"{heartbeat_key('')}*")))


def _tick(state_bytes: int) -> TickData:
    """One as a sensor leaves it most of the time: skipped, with the sensor's state."""
    now = time.time()
    return TickData(
        instigator_origin_id="heartbeats",
        instigator_name="ibkr_depth_heartbeats",
        instigator_type=InstigatorType.SENSOR,
        status=TickStatus.SKIPPED,
        timestamp=now,
        selector_id="heartbeats",
        skip_reason="0 checks evaluated, 0 alerts raised.",
        cursor="x" * state_bytes,
        end_timestamp=now,
    )


def _wait(condition: Callable[[], bool], run: Child) -> None:
    deadline = time.monotonic() + _PATIENCE_SECS
    while not condition():
        if run.process.poll() is not None or time.monotonic() > deadline:
            raise run.failed("did not observe as often as a session does")
        time.sleep(1.0)
