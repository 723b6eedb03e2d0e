"""kill -9 of the run worker, of the code server, of both: live heartbeats again, and nobody had to do a thing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline_tests.dagster.conftest import SYMBOLS
from ibkr_depth_pipeline_tests.dagster.deployment import JOB, Deployment, deployment, environment_of
from ibkr_depth_pipeline_tests.monitoring.webhook import SECRET, Webhook

PATIENCE_SECS = 150.0


@dataclass
class MonitoredDeployment:
    """A deployment whose schedules and sensors are on, in a market that never closes."""

    dagster: Deployment
    redis: EmbeddedRedis
    webhook: Webhook
    gateway: GatewayThread

    def store(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis.url, decode_responses=True)

    def recorder(self) -> str:
        """The id of the run whose heartbeat stands; "" where none does."""
        with self.store() as store:
            return str(store.get("raw:ibkr:depth:ingest:default:hb") or "")

    def is_live(self, after: str = "") -> bool:
        """Whether a run other than `after` is alive and has recorded every symbol, whose heartbeats all stand."""
        with self.store() as store:
            figures = json.loads(store.get("raw:ibkr:depth:ingest:default") or "{}")
            stands = all(store.exists(f"raw:ibkr:depth:hb:{symbol}") for symbol in SYMBOLS)
        rows = [figures.get("symbols", {}).get(symbol, {}).get("rows", 0) for symbol in SYMBOLS]
        return stands and all(rows) and self.recorder() == figures["run"]["run_id"] != after

    def recording(self, after: str = "") -> str:
        """The run that records, once it does. How long that took is printed."""
        began = time.monotonic()
        assert wait_until(lambda: self.is_live(after), PATIENCE_SECS), "no heartbeats came"
        print(f"every heartbeat live after {time.monotonic() - began:.1f} s")
        return self.recorder()

    def alerts_runs(self) -> bool:
        """Whether the sensor for runs has looked: what ends from then on is news."""
        states = self.dagster.instance.all_instigator_state()
        data = [state.instigator_data for state in states if state.instigator_name == "ibkr_depth_run_alerts"]
        return any(getattr(each, "cursor", None) for each in data)

    def statuses(self) -> list[str]:
        """Of the ingest's runs, newest first."""
        return [run.status.value for run in self.dagster.instance.get_runs() if run.job_name == JOB]

    def sequences_are_whole(self) -> bool:
        """Whether each stream counts from 1 on without a gap or a double: never two writers."""
        with self.store() as store:
            streams = (store.xrange(f"raw:ibkr:depth:stream:{symbol}") for symbol in SYMBOLS)
            counts = [[int(fields["seq"]) for _, fields in stream] for stream in streams]
        return all(count == list(range(1, len(count) + 1)) for count in counts)


@pytest.fixture
def monitored(tmp_path: Path, redis_server: EmbeddedRedis, gateway: GatewayThread) -> Iterator[MonitoredDeployment]:
    with Webhook() as webhook:
        environment = environment_of(
            tmp_path,
            gateway,
            redis_server.url,
            SYMBOLS,
            IBKR_ROTATION_SECS="1",
            IBKR_STREAM_MAXLEN="1000000",
            IBKR_AUTOMATION="on",
            ALERT_URLS=webhook.url,
        )
        with deployment(tmp_path, environment) as dagster:
            yield MonitoredDeployment(dagster, redis_server, webhook, gateway)


def test_session_gets_its_run_and_a_killed_worker_is_replaced_and_alerted(
    monitored: MonitoredDeployment,
) -> None:
    first = monitored.recording()
    assert wait_until(monitored.alerts_runs, PATIENCE_SECS), "the sensor for runs has not looked yet"
    monitored.dagster.worker(first).kill()
    second = monitored.recording(after=first)
    assert monitored.statuses() == ["STARTED", "FAILURE"]
    assert wait_until(lambda: bool(monitored.webhook.received), PATIENCE_SECS), "no alert came"
    assert monitored.webhook.titles() == [f"IBKR depth default: {JOB} failed"]
    assert first in str(monitored.webhook.received[0]["message"])
    assert monitored.sequences_are_whole()
    monitored.dagster.terminate(second)
    assert monitored.dagster.wait_for_end(second) == "CANCELED"
    assert SECRET.encode() not in monitored.dagster.stored_text()


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_killed_code_server_costs_the_running_session_nothing(monitored: MonitoredDeployment) -> None:
    first = monitored.recording()
    worker = monitored.dagster.worker(first)
    code = monitored.dagster.servers["code"]
    code.kill()
    with monitored.store() as store:
        at_death = store.xlen("raw:ibkr:depth:stream:SPY")
        assert wait_until(lambda: store.xlen("raw:ibkr:depth:stream:SPY") > at_death + 500, PATIENCE_SECS)
    code.start()
    assert worker.is_running()
    worker.kill()
    monitored.recording(after=first)
    assert monitored.sequences_are_whole()


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_watchdog_replaces_the_run_if_code_server_and_worker_are_killed(
    monitored: MonitoredDeployment,
) -> None:
    first = monitored.recording()
    worker, code = monitored.dagster.worker(first), monitored.dagster.servers["code"]
    worker.suspend()
    code.kill()
    worker.kill()
    code.start()
    monitored.recording(after=first)
    assert monitored.dagster.status(first) == "FAILURE"
    assert monitored.statuses().count("STARTED") == 1
    assert monitored.sequences_are_whole()


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_stuck_worker_is_killed_and_replaced(monitored: MonitoredDeployment) -> None:
    first = monitored.recording()
    worker = monitored.dagster.worker(first)
    worker.suspend()
    monitored.recording(after=first)
    assert _is_gone(worker)
    assert monitored.dagster.status(first) == "FAILURE"
    assert monitored.sequences_are_whole()


def _is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
