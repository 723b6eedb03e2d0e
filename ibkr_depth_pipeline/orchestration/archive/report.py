"""The report of a date that is over, and the job and schedule that compact, check and report a date every night."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ibkr_depth_pipeline.archive import extra_needed
from ibkr_depth_pipeline.errors import DepthPipelineError, NothingKept
from ibkr_depth_pipeline.orchestration.archive.archiver import (
    ARCHIVE_JOB,
    ARCHIVE_KEY,
    DAY_JOB,
    DAY_KEY,
    DAYS,
    archive_settings,
)
from ibkr_depth_pipeline.orchestration.gateway_assets import GROUP, PREFIX
from ibkr_depth_pipeline.orchestration.monitoring.sensors import archive_alert_sensor
from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import TrackedJob
from ibkr_depth_pipeline.orchestration.purging import PURGE_JOB
from ibkr_depth_pipeline.orchestration.rendering import slots_markdown
from ibkr_depth_pipeline.orchestration.resources import ExchangeHours, RedisStore, errors_as_failures
from ibkr_depth_pipeline.orchestration.scheduling import schedule_status, sensor_status, settings_at_load
from ibkr_depth_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from ibkr_depth_pipeline.report.page import WrittenReport

REPORT_KEY = dg.AssetKey([*PREFIX, "archive_report"])
DAY_SCHEDULE = "ibkr_depth_archive_day_after_midnight"
_IN_USE_DAYS = 7
"""An archive that took nothing for so long is not in use: longer than any stretch of closed days."""


_REPORT = """One UTC date as one page of HTML: coverage, rates, spreads, depth, 309s, reconnects, latency, holes.

It stands in reports/ beside the archive. A date of which nothing is kept has none."""


class ReportConfig(dg.Config):
    """What the page shows beyond the usual."""

    symbols: list[str] = Field(default=[], description="Whose books to draw. Empty: all.")


@dg.asset(
    key=REPORT_KEY,
    group_name=GROUP,
    deps=[DAY_KEY],
    partitions_def=DAYS,
    output_required=False,
    description=_REPORT,
)
def ibkr_depth_archive_report(
    context: dg.AssetExecutionContext, config: ReportConfig, redis: RedisStore, exchange: ExchangeHours
) -> Iterator[dg.MaterializeResult[Any]]:
    with errors_as_failures(), extra_needed():
        from ibkr_depth_pipeline.report.page import make_report

        settings = archive_settings(redis)
        calendar = exchange.calendar or settings.ibkr_calendar
        now, day = datetime.now(timezone.utc), context.partition_key
        try:
            report = make_report(settings.archive_url, day, calendar=calendar, now=now, symbols=config.symbols)
        except NothingKept as nothing:
            context.log.info(f"no page: {nothing}")
            return
    yield dg.MaterializeResult(metadata=report_metadata(report, settings))


def report_metadata(report: "WrittenReport", settings: Settings) -> Mapping[str, Any]:
    from ibkr_depth_pipeline.report.lanes import slot_shares
    from ibkr_depth_pipeline.report.view import verdict

    day, names = report.day, [each.symbol for each in report.day.symbols]
    shown = dg.MetadataValue.url(report.path) if "://" in report.path else dg.MetadataValue.path(report.path)
    figures = {"refused_309": day.refused_309, "reconnects": day.reconnects} if day.ingests else {}
    market = f"http://{settings.ibkr_web_host}:{settings.ibkr_web_port}/"  # of ibkr_depth_web, if one serves it
    return {
        "page": shown,
        "page_on_the_web": dg.MetadataValue.url(f"{market}reports/{day.day}"),
        "market_now": dg.MetadataValue.url(market),
        "verdict": verdict(day)[1],
        "slots": dg.MetadataValue.md(slots_markdown(names, slot_shares(day), day.bins.start, day.bins.end)),
        "page_bytes": report.bytes,
        "symbols": len(day.symbols),
        "snapshots": day.snapshots,
        "coverage": round(day.coverage, 4),
        "missing_snapshots": day.missing,
        **figures,
    }


day_job = dg.define_asset_job(
    DAY_JOB,
    selection=dg.AssetSelection.assets(DAY_KEY, REPORT_KEY),
    description="Compact and check a date, one Parquet file per symbol, and make its page.",
    executor_def=dg.in_process_executor,
)


def build_day_schedule() -> dg.ScheduleDefinition:
    """Every night, if there is an archive: the date that is over. On by IBKR_AUTOMATION, as all schedules are."""

    @dg.schedule(
        name=DAY_SCHEDULE,
        job=day_job,
        cron_schedule="30 0 * * *",
        execution_timezone="UTC",
        default_status=schedule_status(settings_at_load()),
        description="Compacts, checks and reports the UTC date that is over. Skipped if nothing is being archived.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = (context.scheduled_execution_time.astimezone(timezone.utc) - timedelta(days=1)).date()
        if reason := _skip_reason(day):
            return dg.SkipReason(reason)
        return dg.RunRequest(run_key=f"{DAY_SCHEDULE} {day}", partition_key=day.isoformat())

    return tick


def _skip_reason(day: date) -> str:
    """Why that date needs no run: nobody archives here. Empty if somebody does, or if it can't be known."""
    if find_spec("pyarrow") is None or find_spec("fsspec") is None:
        return "There is no archive: the extra `archive` is not installed."
    try:
        settings = load_settings()
        in_use = _in_use(settings, day)
    except DepthPipelineError:
        return ""  # the run says what is wrong
    return (
        "" if in_use else f"Nothing is archived in {settings.archive_url}: no snapshot in the last {_IN_USE_DAYS} days."
    )


def _in_use(settings: Settings, day: date) -> bool:
    from ibkr_depth_pipeline.archive.reading import symbols
    from ibkr_depth_pipeline.archive.store import ArchiveStore

    store = ArchiveStore(settings.archive_url)
    return any(symbols(store, day - timedelta(days=back)) for back in range(_IN_USE_DAYS))


def build_archive_alerts() -> dg.SensorDefinition:
    """Alerts of the runs of the archiver, of the days, and of the purge of Dagster's history."""
    archiver = TrackedJob(ARCHIVE_JOB, frozenset({ARCHIVE_KEY}))
    days = TrackedJob(DAY_JOB, frozenset({DAY_KEY, REPORT_KEY}))
    return archive_alert_sensor(sensor_status(settings_at_load()), archiver, days, TrackedJob(PURGE_JOB))
