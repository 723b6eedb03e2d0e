"""IBKR_DAGSTER_KEEP_DAYS: older checks and observations are deleted, nothing else is; the database stops growing."""

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ibkr_depth_pipeline.definitions import defs
from ibkr_depth_pipeline.orchestration.purging import PURGE_JOB, PURGE_SCHEDULE, Purged, purge
from ibkr_depth_pipeline_tests.conftest import REPOSITORY
from ibkr_depth_pipeline_tests.deploy.postgres import PostgresServer
from ibkr_depth_pipeline_tests.deploy.test_postgres import CREDENTIALS, write_instance

SYMBOLS = ("AAPL", "MSFT")
CHECK = "heartbeat"
PADDING = "x" * 2_000
"""Metadata as long as that of the heartbeats' checks."""


def key_of(symbol: str) -> dg.AssetKey:
    return dg.AssetKey(["raw", symbol])


class History:
    """A real instance, and what sensors and runs leave in it."""

    def __init__(self, instance: dg.DagsterInstance, size: Callable[[], int]) -> None:
        self.instance = instance
        self.size = size

    def sensor_ticks(self, count: int) -> datetime:
        """So many checks and observations of each symbol, of no run. Returns a moment behind them."""
        for number in range(count):
            for symbol in SYMBOLS:
                told = {"number": number, "text": PADDING}
                check = dg.AssetCheckEvaluation(key_of(symbol), CHECK, passed=number % 2 == 0, metadata=told)
                self.instance.report_runless_asset_event(check)
                self.instance.report_runless_asset_event(dg.AssetObservation(key_of(symbol), metadata=told))
        return datetime.now(timezone.utc)

    def session(self, *, observations: int) -> str:
        """A run that observes, materializes and is over. Returns its id."""

        @dg.asset(key=key_of("AAPL"), check_specs=[dg.AssetCheckSpec("of_the_run", asset=key_of("AAPL"))])
        def feed(context: dg.AssetExecutionContext) -> Iterator[Any]:
            for number in range(observations):
                context.log_event(dg.AssetObservation(key_of("AAPL"), metadata={"number": number, "text": PADDING}))
            yield dg.MaterializeResult()
            yield dg.AssetCheckResult(passed=True, check_name="of_the_run")

        return dg.materialize([feed], instance=self.instance).run_id

    def observations(self, symbol: str = "AAPL") -> int:
        return len(self.instance.fetch_observations(key_of(symbol), limit=10_000).records)

    def checks(self, symbol: str = "AAPL", name: str = CHECK) -> list[Any]:
        storage: Any = self.instance.event_log_storage
        return list(storage.get_asset_check_execution_history(dg.AssetCheckKey(key_of(symbol), name), 10_000))

    def kinds(self, run_id: str) -> set[Any]:
        return {entry.dagster_event_type for entry in self.instance.all_logs(run_id)}


def files_below(home: Path) -> int:
    """Bytes of Dagster's SQLite files."""
    return sum(path.stat().st_size for path in (home / "history").rglob("*.db"))


def vacuumed(server: PostgresServer) -> int:
    """Bytes of the database, after what autovacuum does in the background."""
    server.query("VACUUM")
    return server.size()


STORAGES = ["sqlite", pytest.param("postgres", marks=pytest.mark.faults)]


@pytest.fixture(params=STORAGES)
def history(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    home = tmp_path / "dagster_home"
    home.mkdir()
    if request.param == "sqlite":
        shutil.copy(REPOSITORY / "config" / "dagster.yaml", home)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield History(instance, lambda: files_below(home))
        return
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    server = PostgresServer()
    try:
        write_instance(home, server.port)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield History(instance, lambda: vacuumed(server))
    finally:
        server.remove()


def test_older_checks_and_observations_go_and_later_ones_stay(history: History) -> None:
    before = history.sensor_ticks(5)
    history.sensor_ticks(3)
    done = purge(history.instance, before)
    assert done == Purged(checks=10, events=20)
    for symbol in SYMBOLS:
        assert history.observations(symbol) == 3
        assert len(history.checks(symbol)) == 3
    assert purge(history.instance, before) == Purged(0, 0)


def test_newest_of_each_check_and_of_each_asset_stays_however_old_it_is(history: History) -> None:
    history.sensor_ticks(4)
    purge(history.instance, datetime.now(timezone.utc) + timedelta(days=1))
    for symbol in SYMBOLS:
        assert history.observations(symbol) == 1
        (newest,) = history.checks(symbol)
        assert newest.event.dagster_event.event_specific_data.metadata["number"].value == 3
    assert history.instance.get_latest_materialization_event(key_of("AAPL")) is None


def test_run_that_is_over_keeps_all_but_its_observations_and_old_results(history: History) -> None:
    first = history.session(observations=50)
    second = history.session(observations=5)
    before = history.kinds(first)
    purge(history.instance, datetime.now(timezone.utc) + timedelta(days=1))
    assert history.observations() == 1
    assert len(history.checks(name="of_the_run")) == 1
    assert history.instance.get_runs_count() == 2
    for run_id in (first, second):
        kinds = history.kinds(run_id)
        assert {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.RUN_SUCCESS} <= kinds
    gone = {dg.DagsterEventType.ASSET_OBSERVATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
    assert gone <= before - history.kinds(first)


def test_run_that_is_not_over_is_not_touched(history: History) -> None:
    @dg.asset(key=key_of("AAPL"))
    def feed(context: dg.AssetExecutionContext) -> None:
        for number in range(3):
            context.log_event(dg.AssetObservation(key_of("AAPL"), metadata={"number": number}))
        purge(context.instance, datetime.now(timezone.utc) + timedelta(days=1))

    history.sensor_ticks(2)
    run_id = dg.materialize([feed], instance=history.instance).run_id
    assert history.observations() == 3
    assert dg.DagsterEventType.ASSET_OBSERVATION in history.kinds(run_id)
    assert len(history.checks()) == 1


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_database_stops_growing(history: History) -> None:
    sizes = []
    for _ in range(6):  # days
        since = datetime.now(timezone.utc)
        history.sensor_ticks(25)
        purge(history.instance, since)
        sizes.append(history.size())
    print("MEASURED bytes after each purge:", sizes)
    assert sizes[-1] < 1.05 * sizes[2], sizes


def test_schedule_runs_the_purge_only_if_it_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    schedule = defs.get_repository_def().get_schedule_def(PURGE_SCHEDULE)
    at = datetime(2026, 1, 5, 0, 45, tzinfo=timezone.utc)
    with dg.build_schedule_context(scheduled_execution_time=at) as context:
        monkeypatch.setenv("IBKR_DAGSTER_KEEP_DAYS", "0")
        assert "keeps everything" in str(schedule.evaluate_tick(context).skip_message)
        monkeypatch.setenv("IBKR_DAGSTER_KEEP_DAYS", "30")
        (request,) = schedule.evaluate_tick(context).run_requests or ()
        assert request.run_key == f"{PURGE_SCHEDULE} 2026-01-05"


@pytest.mark.parametrize(("days", "left"), [("0", 4), ("1", 4)])
def test_job_deletes_nothing_younger_than_the_setting(
    history: History, monkeypatch: pytest.MonkeyPatch, days: str, left: int
) -> None:
    history.sensor_ticks(4)
    monkeypatch.setenv("IBKR_DAGSTER_KEEP_DAYS", days)
    job = defs.get_job_def(PURGE_JOB)
    assert job.execute_in_process(instance=history.instance).success
    assert history.observations() == left
