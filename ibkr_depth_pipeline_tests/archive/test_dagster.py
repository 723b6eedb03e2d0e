"""The archive under Dagster: the long job, and a date that is compacted and checked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.definitions import defs
from ibkr_depth_pipeline.orchestration.archive.archiver import ARCHIVE_JOB, ARCHIVE_KEY, CHECKS, DAY_JOB, DAY_KEY
from ibkr_depth_pipeline_tests.archive.conftest import DAY, MS_PER_DAY, NOON, Desk, Mirror, compacted_of, parts_of
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.dagster.deployment import Deployment, deployment

OPEN = NOON + 9_000_000  # 14:30 UTC, when New York opens on that day


@pytest.fixture(autouse=True)
def environment(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """The desk's settings in the environment; nothing of the machine's own gets in between."""
    monkeypatch.chdir(tmp_path)
    wanted = {name: value for name, value in desk.environment.items() if name not in ("PATH", "HOME")}
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    return wanted


def metadata_of(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def test_run_with_a_duration_keeps_everything_and_reports_it(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 101))
    config = {"ops": {"raw__ibkr__depth__archive": {"config": {"duration": 1.0}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def(ARCHIVE_JOB).execute_in_process(instance=instance, run_config=config)
        metadata = metadata_of(instance, ARCHIVE_KEY)
    assert result.success
    assert desk.kept() == mirror.written
    assert (metadata["snapshots"], metadata["holes"], metadata["ended_by"]) == (100, 0, "itself")


def compact(instance: dg.DagsterInstance, day: date = DAY, **config: Any) -> dict[str, dg.AssetCheckEvaluation]:
    """Run the job of that date; its checks by name."""
    result = defs.resolve_job_def(DAY_JOB).execute_in_process(
        instance=instance,
        partition_key=day.isoformat(),
        run_config={"ops": {"raw__ibkr__depth__archive_day": {"config": config}}},
    )
    assert result.success
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def test_date_is_compacted_and_its_checks_pass(mirror: Mirror, desk: Desk) -> None:
    for symbol in ("SPY", "BRK B"):
        mirror.write(symbol, range(1, 601), start=OPEN, every=100)
    desk.keep()
    with dg.DagsterInstance.ephemeral() as instance:
        found = compact(instance)
        metadata = metadata_of(instance, DAY_KEY)
    assert {name: check.passed for name, check in found.items()} == dict.fromkeys(CHECKS, True)
    assert (metadata["snapshots"], metadata["symbols"]) == (1200, 2)
    assert parts_of(desk.store) == []
    assert len(compacted_of(desk.store)) == 2
    assert "| SPY |" in str(found["coverage"].metadata["figures"].value)


def test_fault_in_a_day_fails_its_own_check_and_no_other(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", range(1, 101), start=OPEN)
    desk.keep()
    mirror.write("SPY", range(101, 111), start=OPEN + 500)  # the archiver was away since
    with dg.DagsterInstance.ephemeral() as instance:
        found = compact(instance, least_coverage=0.9)
    assert {name for name, check in found.items() if not check.passed} == {"coverage", "row_counts"}
    assert "in Redis it is" in (found["row_counts"].description or "")


def test_session_of_which_nothing_is_kept_fails_coverage_and_a_holiday_does_not(desk: Desk) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert not compact(instance, DAY)["coverage"].passed
        assert all(check.passed for check in compact(instance, date(2026, 1, 1)).values())


def test_second_archiver_fails_with_a_clear_message(mirror: Mirror, desk: Desk) -> None:
    job = defs.resolve_job_def(ARCHIVE_JOB)
    with desk.store.alone("archiver"), dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert failed.step_failure_data.error is not None
    assert "another archiver is at work there" in failed.step_failure_data.error.message


@pytest.fixture
def deployed(tmp_path: Path, environment: dict[str, str]) -> Iterator[Deployment]:
    with deployment(tmp_path, environment) as running:
        yield running


def test_terminated_run_keeps_what_was_read_and_a_killed_worker_loses_nothing(
    mirror: Mirror, desk: Desk, deployed: Deployment
) -> None:
    mirror.write("SPY", range(1, 101))
    first = deployed.launch(job=ARCHIVE_JOB)
    assert wait_until(lambda: bool(parts_of(desk.store)), PATIENCE_SECS)
    deployed.worker(first).kill()
    assert deployed.wait_for_end(first) == "FAILURE"
    mirror.write("SPY", range(101, 201), start=NOON + 1000)
    assert wait_until(lambda: len(desk.kept()["SPY"]) == 200, PATIENCE_SECS), "another run has taken over, by itself"
    (second,) = deployed.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    mirror.write("SPY", range(201, 221), start=NOON + MS_PER_DAY)
    deployed.terminate(second.run_id)
    assert deployed.wait_for_end(second.run_id) == "CANCELED"
    desk.keep()
    assert desk.kept() == mirror.written
