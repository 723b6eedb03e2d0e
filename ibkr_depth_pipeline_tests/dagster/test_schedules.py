"""The schedule's ticks on a normal day, an early close, a holiday, after downtime; and runs that follow the hours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from ibkr_depth_pipeline.definitions import defs
from ibkr_depth_pipeline.hours.trading import OutsideSession
from ibkr_depth_pipeline.orchestration.ingest.asset import IngestConfig
from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import TrackedJob
from ibkr_depth_pipeline.orchestration.resources import ExchangeHours
from ibkr_depth_pipeline.orchestration.scheduling import opening_schedule
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline_tests.dagster.conftest import closed_now, execute, failure_of

JOB = "ibkr_depth_ingest_job"
NEW_YORK = ZoneInfo("America/New_York")


def new_york(day: int, hour: int, minute: int = 0) -> datetime:
    """A wall-clock moment of November 2026."""
    return datetime(2026, 11, day, hour, minute, tzinfo=NEW_YORK)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("instance"))) as instance:
        yield instance


def tick(instance: dg.DagsterInstance, due: datetime, now: datetime | None = None) -> dg.RunRequest | str:
    """What the schedule asks for at the tick that is due then and fires at `now`: a run, or the reason for none."""
    schedule = opening_schedule(
        "before_open",
        TrackedJob(JOB),
        lead=timedelta(minutes=5),
        after_open=True,
        run_config={},
        clock=lambda: now or due,
    )
    with dg.build_schedule_context(instance=instance, scheduled_execution_time=due) as context:
        answer = schedule(context)
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    return (answer.skip_message or "") if isinstance(answer, dg.SkipReason) else answer


@pytest.mark.parametrize("day", [25, 27], ids=["a normal day", "an early close"])
def test_session_gets_one_run_however_often_the_schedule_fires(instance: dg.DagsterInstance, day: int) -> None:
    first, again = (tick(instance, new_york(day, 9, 25)) for _ in range(2))
    assert isinstance(first, dg.RunRequest)
    assert isinstance(again, dg.RunRequest)
    assert first.run_key == again.run_key
    assert first.tags["ibkr_depth/session"] == f"2026-11-{day}"


def test_schedule_skips_a_holiday_with_its_name(instance: dg.DagsterInstance) -> None:
    assert "Thanksgiving" in str(tick(instance, new_york(26, 9, 25)))


def test_tick_missed_until_after_the_close_is_skipped(instance: dg.DagsterInstance) -> None:
    assert "too late" in str(tick(instance, new_york(25, 9, 25), now=new_york(28, 8)))


def test_tick_during_an_active_run_is_skipped_with_that_runs_id(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(defs.resolve_job_def(JOB), status=dg.DagsterRunStatus.STARTED)
    assert run.run_id in str(tick(instance, new_york(25, 9, 25)))
    instance.report_run_canceled(run)
    assert isinstance(tick(instance, new_york(25, 9, 25)), dg.RunRequest)


def test_schedule_of_the_location_fires_by_the_exchanges_clock_and_follows_its_calendar() -> None:
    schedule = defs.resolve_schedule_def("ibkr_depth_ingest_before_open")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("25 9 * * *", "America/New_York")


@pytest.mark.parametrize(("day", "close"), [(25, 16), (27, 13)], ids=["a normal day", "an early close"])
def test_run_that_follows_the_calendar_ends_at_the_close(day: int, close: int) -> None:
    config, hours, start = IngestConfig(stop_at_close=True), ExchangeHours(), new_york(day, 9, 25)
    assert config.seconds_to_record(hours, start) == (new_york(day, close) - start).total_seconds()
    shorter = IngestConfig(stop_at_close=True, duration=60.0)
    assert shorter.seconds_to_record(hours, start) == 60.0


def test_run_goes_on_into_a_session_that_follows_without_a_break() -> None:
    evening, friday = new_york(17, 17, 59), new_york(20, 18)
    left = IngestConfig(stop_at_close=True).seconds_to_record(ExchangeHours(calendar="CMES"), evening)
    assert left == (friday - evening).total_seconds()


def test_run_that_ignores_the_calendar_starts_at_any_time() -> None:
    assert IngestConfig(stop_at_close=False).seconds_to_record(ExchangeHours(), new_york(26, 3)) is None
    assert IngestConfig().seconds_to_record(ExchangeHours(), new_york(26, 3), by_default=False) is None


def test_run_follows_the_calendar_unless_config_or_setting_differs() -> None:
    with pytest.raises(OutsideSession, match="stop_at_close: false in the run config, or IBKR_STOP_AT_CLOSE=false"):
        IngestConfig().seconds_to_record(ExchangeHours(), new_york(26, 3))
    with pytest.raises(OutsideSession):
        IngestConfig(stop_at_close=True).seconds_to_record(ExchangeHours(), new_york(26, 3), by_default=False)


def test_run_that_follows_the_calendar_refuses_a_closed_day() -> None:
    with pytest.raises(OutsideSession, match="Fri 2026-11-27 09:30 EST"):
        IngestConfig(stop_at_close=True).seconds_to_record(ExchangeHours(), new_york(26, 12))


def test_run_outside_the_session_fails_at_once_with_the_next_open_and_connects_nowhere(
    instance: dg.DagsterInstance, environment: dict[str, str], gateway: GatewayThread
) -> None:
    exchange = {"exchange": {"config": {"calendar": closed_now()}}}
    result = execute(instance, stop_at_close=True, resources=exchange)
    assert "it opens next on" in failure_of(result)
    assert not gateway.journal.entries("opened")


def test_run_inside_the_session_records(instance: dg.DagsterInstance, environment: dict[str, str]) -> None:
    exchange = {"exchange": {"config": {"calendar": "24/7"}}}
    assert execute(instance, stop_at_close=True, duration=1.0, resources=exchange).success
