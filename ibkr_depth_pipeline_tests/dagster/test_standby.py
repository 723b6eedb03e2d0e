"""A hot standby under Dagster: a run of its own, which takes over from a killed one and is replaced in its turn."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.definitions import build_definitions
from ibkr_depth_pipeline.orchestration.gateway_assets import STANDBY_JOB, load_gateway_assets
from ibkr_depth_pipeline.schema.health import standbys_of
from ibkr_depth_pipeline.schema.keys import heartbeat_key, ingest_heartbeat_key, standby_key, stream_key
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline_tests.dagster.conftest import SYMBOLS
from ibkr_depth_pipeline_tests.dagster.deployment import JOB, Deployment, deployment, environment_of
from ibkr_depth_pipeline_tests.faults.ingest_process import SCRIPT, ingest_process

PATIENCE_SECS = 150.0


def test_standby_has_a_job_and_a_watchdog_of_its_own_only_if_it_is_configured(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment
    without = build_definitions(load_gateway_assets())
    assert STANDBY_JOB not in {job.name for job in without.resolve_all_job_defs()}
    monkeypatch.setenv("IBKR_STANDBY", "on")
    found = build_definitions(load_gateway_assets())
    job = found.resolve_job_def(STANDBY_JOB)
    op = job.graph.node_named("ibkr_depth_standby").definition
    assert isinstance(op, dg.OpDefinition)
    assert (job.executor_def.name, op.pool, op.retry_policy) == ("in_process", "ibkr_depth_standby", None)
    assert found.resolve_sensor_def("ibkr_depth_standby_watchdog").job_name == STANDBY_JOB
    dg.Definitions.validate_loadable(found)


class StandbyDeployment:
    """A deployment with a standby, in a market that never closes, and what its Redis shows."""

    def __init__(self, dagster: Deployment, environment: dict[str, str]) -> None:
        self.dagster = dagster
        self.environment = environment
        self.store = redis.Redis.from_url(environment["REDIS_URL"])

    def recorder(self) -> str:
        """The run whose heartbeat stands."""
        return (self.store.get(ingest_heartbeat_key("default")) or b"").decode()

    def standby(self) -> str:
        """The run that stands by, ready."""
        return next(
            (each.run.run_id for each in standbys_of(self.store.get(standby_key("default"))) if each.is_ready), ""
        )

    def has_both(self, *but: str) -> bool:
        both = {self.recorder(), self.standby()}
        return len(both) == 2 and "" not in both and not both & set(but)

    def waits_for_both(self, *but: str) -> tuple[str, str]:
        assert wait_until(lambda: self.has_both(*but), PATIENCE_SECS), (self.recorder(), self.standby())
        return self.recorder(), self.standby()

    def is_live(self, since_ms: int) -> bool:
        """Whether three symbols, a full batch, have had a row since."""
        return sum(int(self.store.get(heartbeat_key(symbol)) or 0) > since_ms for symbol in SYMBOLS) >= 3

    def live_again_after(self, recorder: str, kill: Callable[[], None]) -> float:
        """Seconds from then until another one records and a full batch is live."""
        began = time.monotonic()
        kill()
        assert wait_until(lambda: self.recorder() not in ("", recorder), PATIENCE_SECS)
        taken_ms = time.time_ns() // 1_000_000
        assert wait_until(lambda: self.is_live(taken_ms), PATIENCE_SECS)
        return time.monotonic() - began

    def hand_over(self) -> None:
        """By the command."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("IBKR_")} | self.environment
        subprocess.run([SCRIPT, "handover"], env=env, check=True, capture_output=True)

    def active(self, job: str) -> list[str]:
        runs = self.dagster.instance.get_runs(dg.RunsFilter(job_name=job))
        return [run.run_id for run in runs if not run.is_finished]

    def assert_whole(self) -> None:
        for symbol in SYMBOLS:
            stored = [int(fields[b"seq"]) for _, fields in self.store.xrange(stream_key(symbol))]
            assert stored == list(range(1, len(stored) + 1)), symbol


@pytest.fixture
def with_standby(tmp_path: Path, redis_server: EmbeddedRedis, gateway: GatewayThread) -> Iterator[StandbyDeployment]:
    environment = environment_of(
        tmp_path,
        gateway,
        redis_server.url,
        SYMBOLS,
        IBKR_ROTATION_SECS="1",
        IBKR_STREAM_MAXLEN="1000000",
        IBKR_AUTOMATION="on",
        IBKR_STANDBY="on",
    )
    with deployment(tmp_path, environment) as dagster:
        found = StandbyDeployment(dagster, environment)
        yield found
        found.store.close()


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_standby_takes_over_from_killed_runs_in_turn_and_each_is_replaced_once(with_standby: StandbyDeployment) -> None:
    gone: list[str] = []
    for _ in range(5):
        recorder, standby = with_standby.waits_for_both(*gone)
        secs = with_standby.live_again_after(recorder, with_standby.dagster.worker(recorder).kill)
        print(f"\nMEASURED a full batch live again after the kill of a run, Dagster with a standby: {secs:.2f} s")
        assert with_standby.recorder() == standby
        gone.append(recorder)
    with_standby.waits_for_both(*gone)
    assert [len(with_standby.active(job)) for job in (JOB, STANDBY_JOB)] == [1, 1]
    with_standby.assert_whole()


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_killed_standby_is_replaced_and_a_run_hands_over_asked_or_terminated(with_standby: StandbyDeployment) -> None:
    recorder, standby = with_standby.waits_for_both()
    with_standby.dagster.worker(standby).kill()
    assert with_standby.waits_for_both(standby)[0] == recorder
    with_standby.hand_over()
    assert with_standby.dagster.wait_for_end(recorder) == "SUCCESS"
    recorder, successor = with_standby.waits_for_both(standby, recorder)
    with_standby.dagster.terminate(recorder)
    assert with_standby.dagster.wait_for_end(recorder) == "CANCELED"
    assert wait_until(lambda: with_standby.recorder() == successor, PATIENCE_SECS)
    with_standby.dagster.terminate(successor)
    assert with_standby.dagster.wait_for_end(successor) == "CANCELED"
    assert with_standby.recorder() == "", "both were terminated by a person: none is launched"
    with_standby.assert_whole()


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_reserve_in_a_service_of_its_own_outlives_code_server_and_runs_and_gives_the_recording_back(
    with_standby: StandbyDeployment, tmp_path: Path
) -> None:
    recorder, standby = with_standby.waits_for_both()
    with ingest_process(tmp_path, "reserve", {**with_standby.environment, "IBKR_STANDBY": "reserve"}) as reserve:
        reserve.said("standby_ready")
        code = with_standby.dagster.servers["code"]
        workers = [with_standby.dagster.worker(run_id) for run_id in (standby, recorder)]

        def kill() -> None:
            """As systemd does with what is left of a service whose main process was killed."""
            code.kill()
            for worker in workers:
                worker.kill()

        secs = with_standby.live_again_after(recorder, kill)
        print(
            f"\nMEASURED a full batch live again after the kill of code server and runs, with a reserve: {secs:.2f} s"
        )
        assert reserve.lines("lease_acquired")
        code.start()
        assert reserve.ended() == 0
        assert reserve.lines("handing_over")
    assert wait_until(lambda: with_standby.recorder() not in ("", recorder, standby), PATIENCE_SECS)
    active = [*with_standby.active(JOB), *with_standby.active(STANDBY_JOB)]
    assert with_standby.recorder() in active
    with_standby.assert_whole()
