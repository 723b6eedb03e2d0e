"""The exchange's hours in Dagster: the resource that names the calendar, and the schedules around its open."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
from pydantic import Field

from ibkr_depth_pipeline.alerts.supervision import Phase, Run
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.orchestration.run_records import Work, active_runs, fail_run
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.trading_hours import Skip, TradingHours, judge_tick

DEFAULT_CALENDAR = "XNYS"
SESSION_TAG = "ibkr_depth/session"
"""On scheduled runs: the session's date."""

EARLY = timedelta(minutes=15)
"""How long before the open a run that follows the calendar may start: books fill before it."""


class ExchangeHours(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Whose trading hours a run follows, where it follows any."""

    calendar: str | None = Field(
        default=None,
        description="A calendar of exchange_calendars, such as XNYS, XNAS or 24/7. Left out: IBKR_CALENDAR.",
    )

    def seconds_to_close(self, now: datetime) -> float:
        """From `now` to the close of the session that is open or about to open, and of those that follow unbroken.

        Raises OutsideSession, naming the next open, and ConfigurationError for an unknown calendar.
        """
        calendar = self.calendar or load_settings().ibkr_calendar
        hours = TradingHours(calendar, now)
        session = hours.unbroken(hours.session_to_record(now, EARLY))
        return (session.close - now).total_seconds()


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def _never_held(instance: dg.DagsterInstance, opens: datetime) -> str:
    return ""


def opening_schedule(
    name: str,
    work: Work,
    *,
    lead: timedelta,
    after_open: bool,
    run_config: Mapping[str, Any],
    calendar: str = DEFAULT_CALENDAR,
    status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.STOPPED,
    hold: Callable[[dg.DagsterInstance, datetime], str] = _never_held,
    longest: timedelta | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> dg.ScheduleDefinition:
    """Start that job once a session, `lead` before the exchange's usual open, by the exchange's own clock.

    It fires every day; closed days are skipped with their reason. With `after_open` a late tick still starts the job
    as long as the session lasts, else only until its open. `hold` says why the session that opens then gets no run; ""
    where it gets one. A run that is at it for more than `longest` is dead and is failed, so that it holds no pool for
    ever. A calendar that is not known is shown by each tick; until then New York's hours count.
    """
    usual = _hours_to_show(calendar, clock())
    at = datetime.combine(clock().date(), usual.usual_open) - lead

    @dg.schedule(
        name=name,
        job_name=work.job,
        cron_schedule=f"{at.minute} {at.hour} * * *",
        execution_timezone=str(usual.zone),
        default_status=status,
        description=f"Starts {work.job} {lead} before {calendar} opens; closed days are skipped with the reason.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        scheduled = context.scheduled_execution_time
        verdict = judge_tick(TradingHours(calendar, scheduled), scheduled, clock(), lead, after_open=after_open)
        if isinstance(verdict, Skip):
            return dg.SkipReason(verdict.reason)
        if active := _still_active(context.instance, work, longest, clock()):
            return dg.SkipReason(f"Run {active[0].run_id} of {work.job} is under way already.")
        if reason := hold(context.instance, verdict.session.open):
            return dg.SkipReason(reason)
        day = verdict.session.day.isoformat()
        return dg.RunRequest(run_key=f"{name} {day}", run_config=run_config, tags={SESSION_TAG: day})

    return tick


def _hours_to_show(calendar: str, now: datetime) -> TradingHours:
    try:
        return TradingHours(calendar, now)
    except ConfigurationError:
        return TradingHours(DEFAULT_CALENDAR, now)


def _still_active(instance: dg.DagsterInstance, work: Work, longest: timedelta | None, now: datetime) -> list[Run]:
    """The runs that are under way, those that are dead failed before: their alert is that of a failed run."""
    active, alive = active_runs(instance, work), []
    for run in active:
        lasted = timedelta(milliseconds=now.timestamp() * 1000 - run.started_ts)
        if longest is None or run.phase is not Phase.STARTED or lasted <= longest:
            alive.append(run)
        else:
            fail_run(instance, run.run_id, f"It is under way for more than {longest}: its process is dead or stuck.")
    return alive
