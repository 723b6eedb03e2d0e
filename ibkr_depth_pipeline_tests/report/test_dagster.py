"""The page of a day under Dagster: made with the compaction, every night, by itself."""

from __future__ import annotations

import base64
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ibkr_depth_pipeline.definitions import build_definitions, defs
from ibkr_depth_pipeline.orchestration.archive.archiver import DAY_JOB, DAY_KEY
from ibkr_depth_pipeline.orchestration.archive.report import DAY_SCHEDULE, REPORT_KEY
from ibkr_depth_pipeline.orchestration.gateway_assets import load_gateway_assets
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity
from ibkr_depth_pipeline_tests.archive.conftest import DAY, Desk, Mirror, parts_of
from ibkr_depth_pipeline_tests.report.conftest import OPEN, Page
from ibkr_depth_pipeline_tests.report.made_up import keep_figures

NIGHT = datetime(2026, 1, 6, 0, 30, tzinfo=timezone.utc)
RUN = RunIdentity("run-1", "a-host", 77, OPEN)


@pytest.fixture(autouse=True)
def _environment(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The desk's settings in the environment; nothing of the machine's own gets in between."""
    monkeypatch.chdir(tmp_path)
    for name, value in desk.environment.items():
        if name not in ("PATH", "HOME"):
            monkeypatch.setenv(name, value)


def run_day(instance: dg.DagsterInstance, day: date = DAY, **config: Any) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(DAY_JOB).execute_in_process(
        instance=instance,
        partition_key=day.isoformat(),
        run_config={"ops": {"raw__ibkr__depth__archive_report": {"config": config}}},
        raise_on_error=False,
    )


def pages(instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
    records = instance.fetch_materializations(REPORT_KEY, limit=10).records
    return [record.asset_materialization for record in records if record.asset_materialization is not None]


def test_date_is_compacted_and_its_page_made(mirror: Mirror, desk: Desk, tmp_path: Path) -> None:
    mirror.write("SPY", range(1, 3602), start=OPEN, every=1000)
    mirror.write("QQQ", range(1, 11), start=OPEN, every=1000)
    desk.keep()
    keep_figures(desk.store, [FeedFigures(RUN, OPEN), FeedFigures(RUN, OPEN + 2000, refused_309=3, reconnects=1)])
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert run_day(instance, symbols=["QQQ"]).success
        (made,) = pages(instance)
        assert instance.get_latest_materialization_event(DAY_KEY) is not None
    metadata = {name: value.value for name, value in made.metadata.items()}
    page = Path(str(metadata["page"]))
    assert page == Path(desk.settings.archive_url) / "reports" / "2026-01-05.html"
    assert made.partition == "2026-01-05"
    assert metadata["page_bytes"] == page.stat().st_size
    assert (metadata["symbols"], metadata["snapshots"], metadata["missing_snapshots"]) == (2, 3611, 0)
    assert metadata["coverage"] == pytest.approx((3600 + 9) / 2 / 3600, abs=1e-3)
    assert metadata["verdict"].startswith("Not a good day: only 15% of the session of XNYS was recorded")
    picture = base64.b64decode(metadata["slots"].partition("base64,")[2].rstrip(")")).decode()
    assert [f">{symbol}</text>" in picture for symbol in ("SPY", "QQQ")] == [True, True]
    assert "data:image/png;base64," in picture
    assert metadata["market_now"] == "http://127.0.0.1:3080/"
    assert metadata["page_on_the_web"] == "http://127.0.0.1:3080/reports/2026-01-05"
    assert (metadata["refused_309"], metadata["reconnects"]) == (3, 1)
    assert parts_of(desk.store) == [], "the page is of the compacted day"
    read = Page(page.read_text())
    assert read.fact("snapshots")[0] == "3,611"
    assert "The book of QQQ" in read.text


def test_page_without_figures_has_no_count_of_309s(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1, 2], start=OPEN)
    desk.keep()
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_day(instance).success
        (made,) = pages(instance)
    assert "refused_309" not in made.metadata


def test_date_without_snapshots_has_no_page_and_no_failure(desk: Desk) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_day(instance).success
        assert pages(instance) == []
    assert not (Path(desk.settings.archive_url) / "reports").exists()


def test_unknown_symbol_fails_with_a_clear_message(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1, 2], start=OPEN)
    desk.keep()
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_day(instance, symbols=["SPX"])
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert failed.step_failure_data.error is not None
    assert (
        "nothing is kept of 'SPX' on 2026-01-05; of that date there are SPY" in failed.step_failure_data.error.message
    )


# ---- every night


def tick(at: datetime = NIGHT) -> dg.RunRequest | dg.SkipReason:
    schedule = defs.resolve_schedule_def(DAY_SCHEDULE)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=at, repository_def=defs.get_repository_def()
        )
        told = schedule.evaluate_tick(context)
    if told.skip_message:
        return dg.SkipReason(told.skip_message)
    (request,) = told.run_requests or []
    return request


def test_schedule_runs_for_the_date_that_is_over(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1, 2], start=OPEN)
    desk.keep()
    request = tick()
    assert isinstance(request, dg.RunRequest)
    assert (request.partition_key, request.run_key) == ("2026-01-05", f"{DAY_SCHEDULE} 2026-01-05")
    schedule = defs.resolve_schedule_def(DAY_SCHEDULE)
    assert (schedule.cron_schedule, schedule.execution_timezone, schedule.job_name) == ("30 0 * * *", "UTC", DAY_JOB)


def test_schedule_runs_also_after_the_archiver_was_away(mirror: Mirror, desk: Desk) -> None:
    mirror.write("SPY", [1, 2], start=OPEN)
    desk.keep()
    assert isinstance(tick(NIGHT.replace(day=9)), dg.RunRequest)


def test_schedule_is_skipped_with_the_reason_if_nothing_archives(mirror: Mirror, desk: Desk) -> None:
    skipped = tick()
    assert isinstance(skipped, dg.SkipReason)
    assert "Nothing is archived" in (skipped.skip_message or "")
    mirror.write("SPY", [1, 2], start=OPEN)
    desk.keep()
    assert isinstance(tick(NIGHT.replace(day=14)), dg.SkipReason)


def test_schedule_is_skipped_with_the_reason_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ibkr_depth_pipeline.orchestration.archive.report.find_spec", lambda name: None)
    skipped = tick()
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "There is no archive: the extra `archive` is not installed."


def test_wrong_settings_fail_the_run_that_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE_URL", "carrier-pigeon://loft")
    assert isinstance(tick(), dg.RunRequest)


@pytest.mark.parametrize(("switch", "status"), [("on", "RUNNING"), ("off", "STOPPED")])
def test_automation_setting_switches_the_nightly_schedule(
    monkeypatch: pytest.MonkeyPatch, switch: str, status: str
) -> None:
    monkeypatch.setenv("IBKR_AUTOMATION", switch)
    schedules = list(build_definitions(load_gateway_assets()).schedules or ())
    assert {each.name for each in schedules} >= {DAY_SCHEDULE, "ibkr_depth_probe_before_open"}
    assert {each.default_status.value for each in schedules} == {status}  # type: ignore[union-attr]
