"""Dagster's own parts on Postgres, killed and stopped while a session records: what goes on, and what comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import port_is_free
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline_tests.dagster.deployment import Deployment, deployment, environment_of
from ibkr_depth_pipeline_tests.deploy.postgres import PostgresServer
from ibkr_depth_pipeline_tests.deploy.test_postgres import CREDENTIALS, write_instance

PATIENCE_SECS = 180.0
AWAY_SECS = float(os.environ.get("POSTGRES_AWAY", "40"))


class Watched:
    """The stream of SPY: how many snapshots, by which run, and whether any is missing or there twice."""

    def __init__(self, url: str) -> None:
        self.store = redis.Redis.from_url(url)

    def rows(self) -> int:
        return int(self.store.xlen(stream_key("SPY")))

    def grows(self) -> bool:
        before = self.rows()
        return wait_until(lambda: self.rows() > before + 20, PATIENCE_SECS)

    def run_id(self) -> str:
        return str(json.loads(self.store.get("raw:ibkr:depth:ingest:default") or "{}").get("run", {}).get("run_id"))

    def each_once(self) -> bool:
        numbers = [int(fields[b"seq"]) for _, fields in self.store.xrange(stream_key("SPY"))]
        return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def measured(what: str, condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    assert wait_until(condition, PATIENCE_SECS), what
    print(f"MEASURED {what}: {time.monotonic() - began:.1f} s")


def restart_what_ended(deployed: Deployment) -> list[str]:
    """As systemd does: what has ended is started anew. Returns its names."""
    ended = [name for name, server in deployed.servers.items() if not server.process.running]
    for name in ended:
        deployed.servers[name].start()
    return ended


@pytest.mark.faults
@pytest.mark.timeout(1500)
def test_recording_goes_on_whatever_becomes_of_dagsters_own_parts(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    postgres = PostgresServer()
    with GatewayThread(GatewayOptions(rows_per_second=50)) as gateway:
        write_instance(tmp_path / "written", postgres.port)
        environment = environment_of(
            tmp_path,
            gateway,
            redis_url,
            ("SPY", "QQQ"),
            GATEWAYS_CONFIG_PATH="config/gateways.yaml",
            IBKR_AUTOMATION="on",
            IBKR_STREAM_MAXLEN="1000000",
            **CREDENTIALS,
        )
        seen = Watched(redis_url)
        try:
            with deployment(tmp_path, environment, tmp_path / "written" / "dagster.yaml") as deployed:
                measured("watchdog's first run records", lambda: seen.rows() > 100)
                first = seen.run_id()

                postgres.stop()
                until = time.monotonic() + AWAY_SECS
                while time.monotonic() < until:
                    assert seen.grows()
                postgres.start()
                print("MEASURED ended while the database was away:", restart_what_ended(deployed) or "nothing")
                ticks = int(postgres.query("SELECT count(*) FROM job_ticks"))
                counted = "SELECT count(*) FROM job_ticks"
                measured("sensors tick again", lambda: int(postgres.query(counted)) > ticks + 2)
                restart_what_ended(deployed)
                assert seen.run_id() == first
                assert deployed.status(first) == "STARTED"

                postgres.pause()
                assert seen.grows()
                postgres.resume()

                deployed.worker(first).kill()
                measured("killed worker replaced", lambda: seen.run_id() not in (first, "None") and seen.grows())
                second = seen.run_id()

                deployed.servers["code"].kill()
                assert seen.grows()
                deployed.servers["code"].start()
                assert seen.grows()
                assert seen.run_id() == second

                for name in ("daemon", "web"):
                    deployed.servers[name].kill()
                    assert seen.grows()
                    deployed.servers[name].start()
                measured("webserver back", lambda: not port_is_free(deployed.port))
                assert seen.each_once()
            _wipe(postgres, tmp_path / "dagster_home")
        finally:
            seen.store.close()
            postgres.remove()


def _wipe(postgres: PostgresServer, home: Path) -> None:
    before = postgres.size()
    command = [sys.executable, "-m", "dagster", "run", "wipe", "--force"]
    environment = {"PATH": os.environ["PATH"], "DAGSTER_HOME": str(home), **CREDENTIALS}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wiped = postgres.size()
    postgres.query("VACUUM FULL")
    left = {
        table: int(postgres.query(f"SELECT count(*) FROM {table}"))
        for table in ("runs", "event_logs", "job_ticks", "asset_keys")
    }
    print(f"MEASURED wipe: {before} bytes, then {wiped}, after VACUUM FULL {postgres.size()}; rows left: {left}")
    assert (left["runs"], left["event_logs"]) == (0, 0)
    assert left["job_ticks"] > 0
