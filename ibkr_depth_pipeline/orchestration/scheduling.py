"""Whether schedules and sensors run by themselves, with which settings, and the schedules around an exchange's open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.hours.exchange_days import TradingSession
from ibkr_depth_pipeline.hours.trading import Skip, Start, TradingHours, judge_tick
from ibkr_depth_pipeline.hours.universe import UniverseSessions
from ibkr_depth_pipeline.monitoring.supervision import Phase, TrackedRun
from ibkr_depth_pipeline.monitoring.ticks import open_session
from ibkr_depth_pipeline.orchestration.gateway_assets import GatewayAssets
from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import TrackedJob, active_runs, fail_run
from ibkr_depth_pipeline.settings import Settings, load_settings

DEFAULT_CALENDAR = "XNYS"
SESSION_TAG = "ibkr_depth/session"
"""On scheduled runs: the session's date."""

_REDIS_SETTINGS = frozenset(
    ("redis_url", "redis_tls_ca_file", "redis_tls_cert_file", "redis_tls_key_file", "ibkr_gateway_name")
)
_LIVENESS_SETTINGS = _REDIS_SETTINGS | {"ibkr_lease_wait_secs"}
"""With another value of these, a run that is alive would look dead."""


# ---- settings, even if some of them can't be read


@dataclass(frozen=True, slots=True)
class ReadableSettings:
    """The settings, a bad one as its default. `problem` names each bad one and why; empty if there is none.

    `blind`: what Redis shows is then not of the gateway that is meant, so no run may be judged by it.
    """

    settings: Settings
    problem: str = ""
    blind: bool = False


def settings_at_load() -> Settings:
    """The settings, a bad one as its default: one bad line must not unload what monitors a running session.

    Never raises ConfigurationError. What runs later reads the settings again, and says what is wrong.
    """
    return read_settings(load_settings).settings


def has_standby(assets: GatewayAssets) -> bool:
    """Whether a standby is configured for that gateway, as the settings are now."""
    return read_settings(assets.gateway.settings).settings.ibkr_standby != "off"


def read_settings(load: Callable[..., Settings]) -> ReadableSettings:
    """The settings as far as `load`, which takes overrides, can read them now. Never raises ConfigurationError."""
    try:
        return ReadableSettings(load())
    except ConfigurationError as error:
        return _with_defaults(load, error)


def _with_defaults(load: Callable[..., Settings], error: ConfigurationError) -> ReadableSettings:
    blamed = {problem.partition("=")[0].lower() for problem in error.problems} & set(Settings.model_fields)
    for names in (blamed, blamed | _REDIS_SETTINGS):  # the latter if some of them don't fit together
        defaults = {name: Settings.model_fields[name].default for name in names}
        try:
            return ReadableSettings(load(**defaults), str(error), blind=bool(names & _LIVENESS_SETTINGS))
        except ConfigurationError:
            continue
    return ReadableSettings(Settings.model_construct(), str(error), blind=True)


def read_settings_and_calendar(load: Callable[..., Settings]) -> ReadableSettings:
    """Like read_settings; an unknown calendar counts as a bad setting, too."""
    readable = read_settings(load)
    try:
        open_session(readable.settings.ibkr_calendar, unix_ms())
    except ConfigurationError as error:
        default = Settings.model_fields["ibkr_calendar"].default
        usable = readable.settings.model_copy(update={"ibkr_calendar": default})
        problem = "; ".join(filter(None, (readable.problem, f"IBKR_CALENDAR: {error}")))
        return replace(readable, settings=usable, problem=problem)
    return readable


def sensor_status(settings: Settings) -> dg.DefaultSensorStatus:
    """Whether a sensor runs until somebody switches it."""
    on = settings.ibkr_automation == "on"
    return dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED


def schedule_status(settings: Settings) -> dg.DefaultScheduleStatus:
    """Whether a schedule runs until somebody switches it."""
    on = settings.ibkr_automation == "on"
    return dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED


# ---- schedules around the open


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def _never_held(instance: dg.DagsterInstance, opens: datetime) -> str:
    return ""


def opening_schedule(
    name: str,
    tracked: TrackedJob,
    *,
    lead: timedelta,
    after_open: bool,
    run_config: Mapping[str, Any],
    calendar: str = DEFAULT_CALENDAR,
    status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.STOPPED,
    hold: Callable[[dg.DagsterInstance, datetime], str] = _never_held,
    longest: timedelta | None = None,
    sessions: Callable[[int], UniverseSessions | None] = lambda now: None,
    clock: Callable[[], datetime] = utc_now,
) -> dg.ScheduleDefinition:
    """Start that job once a session, `lead` before the exchange's usual open, by the exchange's own clock.

    It fires every day; closed days are skipped with their reason. With `after_open` a late tick still starts the job
    as long as the session lasts, else only until its open. `hold` says why the session that opens then gets no run; an
    empty text if it gets one. sessions(unix ms) are those of the instruments, which count in the calendar's place where
    they are known. A run that takes longer than `longest` is dead and is failed, so that it does not hold
    the pool. Each tick reports an unknown calendar; until then New York's hours count.
    """
    usual = _hours_to_show(calendar, clock())
    at = datetime.combine(clock().date(), usual.usual_open) - lead

    @dg.schedule(
        name=name,
        job_name=tracked.job,
        cron_schedule=f"{at.minute} {at.hour} * * *",
        execution_timezone=str(usual.zone),
        default_status=status,
        description=f"Starts {tracked.job} {lead} before {calendar} opens; closed days are skipped with the reason.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        scheduled = context.scheduled_execution_time
        verdict = _judge_by_universe(sessions, calendar, scheduled, clock(), lead)
        if verdict is None:
            verdict = judge_tick(TradingHours(calendar, scheduled), scheduled, clock(), lead, after_open=after_open)
        if isinstance(verdict, Skip):
            return dg.SkipReason(verdict.reason)
        if active := _still_active(context.instance, tracked, longest, clock()):
            return dg.SkipReason(f"Run {active[0].run_id} of {tracked.job} is under way already.")
        if reason := hold(context.instance, verdict.session.open):
            return dg.SkipReason(reason)
        day = verdict.session.day.isoformat()
        return dg.RunRequest(run_key=f"{name} {day}", run_config=run_config, tags={SESSION_TAG: day})

    return tick


def _judge_by_universe(
    sessions: Callable[[int], UniverseSessions | None],
    calendar: str,
    scheduled: datetime,
    now: datetime,
    lead: timedelta,
) -> Start | Skip | None:
    """As judge_tick, by the hours of the instruments; None if they are not known."""
    now_ms = int(now.timestamp() * 1000)
    if (known := sessions(now_ms)) is None:
        return None
    session = known.at(now_ms, int(lead.total_seconds() * 1000))
    if session is None:
        return Skip(f"{known.why_closed(now_ms)}.")
    day = (scheduled + lead).astimezone(_hours_to_show(calendar, now).zone).date()
    opened, close = (datetime.fromtimestamp(at / 1000, timezone.utc) for at in (session.opened, session.close))
    return Start(TradingSession(day, opened, close))


def _hours_to_show(calendar: str, now: datetime) -> TradingHours:
    try:
        return TradingHours(calendar, now)
    except ConfigurationError:
        return TradingHours(DEFAULT_CALENDAR, now)


def _still_active(
    instance: dg.DagsterInstance, tracked: TrackedJob, longest: timedelta | None, now: datetime
) -> list[TrackedRun]:
    """The active runs, after those that are dead were failed: their alert is that of a failed run."""
    alive = []
    for run in active_runs(instance, tracked):
        lasted = timedelta(milliseconds=now.timestamp() * 1000 - run.started_ts)
        if longest is None or run.phase is not Phase.STARTED or lasted <= longest:
            alive.append(run)
        else:
            fail_run(instance, run.run_id, f"It is under way for more than {longest}: its process is dead or stuck.")
    return alive
