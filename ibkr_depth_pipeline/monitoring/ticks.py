"""One tick of each sensor: read Redis, decide, deliver. Blocking, bounded in time; the runner passes its own facts.

Only this module of the monitoring reads Redis. Each tick takes the state of the one before as text, and returns the
text for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache, partial
from typing import Any, TypeVar

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.formatting import utc
from ibkr_depth_pipeline.hours.exchange_days import TradingSession
from ibkr_depth_pipeline.hours.instruments import calendar_hours
from ibkr_depth_pipeline.hours.trading import TradingHours
from ibkr_depth_pipeline.hours.universe import UniverseHours, UniverseSessions
from ibkr_depth_pipeline.monitoring.deadman import ping
from ibkr_depth_pipeline.monitoring.delivery import Record, deliver, redis_record
from ibkr_depth_pipeline.monitoring.diagnosis import (
    HeartbeatCheck,
    Reading,
    Unreachable,
    due_checks,
    heartbeat_checks,
    running_since,
)
from ibkr_depth_pipeline.monitoring.incidents import IncidentRules, track_incidents
from ibkr_depth_pipeline.monitoring.run_failures import (
    FailedRun,
    FailureHistory,
    alert_failed_runs,
    alert_settings_problem,
)
from ibkr_depth_pipeline.monitoring.state import (
    AlertOutbox,
    HeartbeatState,
    RunAlertState,
    WatchdogState,
    dump_state,
    load_state,
)
from ibkr_depth_pipeline.monitoring.supervision import (
    LAST_CALL_MS,
    Launch,
    Phase,
    RecordingWindow,
    StandbyAbsence,
    TrackedRun,
    dead_runs,
    launch_decision,
    observe_heartbeats,
    track_standby,
)
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind
from ibkr_depth_pipeline.schema.health import HealthReport
from ibkr_depth_pipeline.schema.status import RunIdentity
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.status import read_health, read_hours_of

PATIENCE_SECS = 12.0
"""How long Redis is waited for."""

HOURS_PATIENCE_SECS = 3.0
"""How long it is waited for if it is asked for the hours of the markets alone."""

_T = TypeVar("_T")


def read_redis(settings: Settings, symbols: Sequence[str], *, patience: float = PATIENCE_SECS) -> Reading:
    """The health of `symbols` that Redis shows now, or Unreachable after `patience` seconds."""
    try:
        return _bounded(lambda: _read_session(settings, symbols), patience)
    except SinkUnavailable as error:
        return Unreachable(unix_ms(), str(error))
    except _TOO_LATE:
        return Unreachable(unix_ms(), f"Redis at {settings.redis_url_masked} did not answer in {patience:.0f} s")


def _bounded(read: Callable[[], Coroutine[Any, Any, _T]], patience: float) -> _T:
    """What `read` returns. Raises what is in _TOO_LATE after `patience` seconds."""
    answer = Future[_T]()

    def run() -> None:
        try:
            answer.set_result(asyncio.run(asyncio.wait_for(read(), patience)))
        except BaseException as error:  # any error is the caller's
            answer.set_exception(error)

    # A resolver that hangs can't be cancelled, and asyncio.run would wait for it: its thread may be left behind.
    threading.Thread(target=run, name="look", daemon=True).start()
    return answer.result(patience)


async def _read_session(settings: Settings, symbols: Sequence[str]) -> HealthReport:
    """The health of `symbols` and of what the running session records besides, as the file had it at its start."""
    read = partial(read_health, settings.redis_target, settings.ibkr_gateway_name)
    report = await read(symbols)
    figures = report.feed.figures
    recorded = figures.symbols if symbols and figures is not None and report.feed.running else ()
    more = [symbol for symbol in recorded if symbol not in symbols]
    return await read([*symbols, *more]) if more else report


_TOO_LATE = (asyncio.TimeoutError, TimeoutError, FutureTimeout)
"""Three different classes before Python 3.11."""


# ---- heartbeats


@dataclass(frozen=True, slots=True)
class HeartbeatTick:
    """Checks to publish and alerts raised. `quiet` says why nothing was read, or is alerted; "" otherwise."""

    state: str
    checks: tuple[HeartbeatCheck, ...] = ()
    alerts: tuple[Alert, ...] = ()
    quiet: str = ""


def heartbeat_tick(
    settings: Settings,
    symbols: Sequence[str],
    state: str | None,
    why_stopped: Callable[[RecordingWindow], str] = lambda window: "",
) -> HeartbeatTick:
    """Check every heartbeat during a session, and alert incidents.

    why_stopped(window), asked if no ingest runs, says that a person wants it so, "" if that is not known: the end of
    its run has been alerted, and that it is gone needs no alert besides.
    """
    before, now = load_state(HeartbeatState, state), unix_ms()
    opened = _opened(settings, now)
    if opened is None:
        outbox = _deliver(settings, before.outbox, (), now)
        quiet = f"{_whose_hours(settings)} closed."
        deadman = ping(settings.deadman_target, before.deadman, well=not outbox.pending, now=unix_ms())
        return HeartbeatTick(dump_state(HeartbeatState(outbox=outbox, deadman=deadman)), quiet=quiet)
    reading = read_redis(settings, symbols)
    rules = _rules(settings, reading, len(symbols))
    stopped = _why_stopped(settings, reading, why_stopped)
    incidents, alerts = track_incidents(before.incidents, reading, None if stopped else opened, rules)
    early = reading.ts < max(opened, running_since(reading)) + rules.grace_ms
    checks = list(heartbeat_checks(reading, tuple(symbols), early=early))
    due, published = due_checks(before.published, checks, reading.ts)
    outbox = _deliver(settings, before.outbox, alerts, unix_ms())
    well = incidents.incident is None and not outbox.pending
    deadman = ping(settings.deadman_target, before.deadman, well=well, now=unix_ms())
    after = dump_state(HeartbeatState(incidents, published, outbox, deadman))
    return HeartbeatTick(after, tuple(due), alerts, stopped and f"Nothing is alerted: {stopped}.")


def _why_stopped(settings: Settings, reading: Reading, why_stopped: Callable[[RecordingWindow], str]) -> str:
    if isinstance(reading, Unreachable) or reading.feed.running:
        return ""
    window = recording_window(settings, reading.ts)
    return "" if window is None else why_stopped(window)


def heartbeat_checks_now(settings: Settings, symbols: Sequence[str]) -> list[HeartbeatCheck]:
    """The checks at this moment, for a person who asks; outside a session none is certain."""
    reading = read_redis(settings, symbols)
    early = _opened(settings, reading.ts) is None
    return list(heartbeat_checks(reading, tuple(symbols), early=early))


def _rules(settings: Settings, reading: Reading, symbols: int) -> IncidentRules:
    grace = settings.ibkr_alert_grace_secs + settings.ibkr_rotation_secs * _turns_to_wait(settings, reading, symbols)
    return IncidentRules(settings.ibkr_gateway_name, int(settings.ibkr_alert_after_secs * 1000), int(grace * 1000))


def _turns_to_wait(settings: Settings, reading: Reading, symbols: int) -> int:
    """How many turns it takes until each symbol had one: by the shares of those that take turns, if they are known.

    Pins hold their slots, a weight of 3 comes three times as often, and closed markets take no turn.
    """
    figures = None if isinstance(reading, Unreachable) or not reading.feed.running else reading.feed.figures
    shares = [] if figures is None else [each.share for each in figures.symbols.values() if each.share]
    return math.ceil(1 / min(shares)) if shares else math.ceil(symbols / settings.ibkr_max_concurrent_depth)


# ---- the watchdog


@dataclass(frozen=True, slots=True)
class WatchdogTick:
    """Runs to fail (id -> why), and a launch or the reason against one.

    `newest` is the run that published its figures last, with its process; None if that is not known.
    """

    state: str
    dead: dict[str, str]
    newest: RunIdentity | None
    launch: Launch | str
    window: RecordingWindow | None
    alerts: tuple[Alert, ...] = ()


def watchdog_tick(
    settings: Settings,
    runs: Sequence[TrackedRun],
    probe: Phase | None,
    window: RecordingWindow | None,
    state: str | None,
    others: Collection[str] = (),
) -> WatchdogTick:
    """Find dead runs, and decide on a launch. `runs` are newest first; probe: how the session's last one ended.

    others: the runs of the job beside which these run, as one stands by for the other.
    """
    before = load_state(WatchdogState, state)
    needed = window is not None or any(run.phase is Phase.STARTED for run in runs)
    reading = read_redis(settings, ()) if needed else Unreachable(unix_ms(), "not asked")
    alive, now = _alive(reading), unix_ms()
    in_this_redis = [run for run in runs if run.redis_url in ("", settings.redis_url)]
    heartbeats = observe_heartbeats(before.heartbeats, in_this_redis, alive, now, _standing_by(reading))
    dead = dead_runs(runs, heartbeats, now, lease_wait_ms=int(settings.ibkr_lease_wait_secs * 1000))
    failed = window is not None and probe is Phase.FAILED
    hold = HELD if failed and settings.ibkr_probe_failed == "hold" else ""
    if settings.ibkr_standby != "off" and alive:
        others = {*others, alive}  # beside a recorder that Dagster does not know the run stands by
    launch = launch_decision(runs, window, now, alive=alive, hold=hold, others=others)
    alerts: tuple[Alert, ...] = ()
    alerted = before.alerted_probe
    if failed and window is not None and alerted != window.day:
        alerted, alerts = window.day, (_probe_failed(settings, hold, now),)
    outbox = _deliver(settings, before.outbox, alerts, now)
    after = dump_state(WatchdogState(heartbeats, alerted, outbox, before.absence))
    return WatchdogTick(after, dead, _newest(reading), launch, window, alerts)


def standby_tick(
    settings: Settings,
    runs: Sequence[TrackedRun],
    window: RecordingWindow | None,
    state: str | None,
    recorders: Collection[str],
) -> WatchdogTick:
    """As watchdog_tick, for the standby's runs beside those of the ingest; a standby that is missing is alerted."""
    done = watchdog_tick(settings, runs, None, window, state, recorders)
    after, now, own = load_state(WatchdogState, done.state), unix_ms(), {run.run_id for run in runs}
    if window is None or now >= window.close_ts - LAST_CALL_MS:
        return done
    reading = read_redis(settings, ())
    ready = _ready_standbys(reading)
    absence, kind = track_standby(after.absence, None if ready is None else bool(ready), now)
    alerts = (_standby_alert(settings, kind, absence, now),) if kind is not None else ()
    outbox = _deliver(settings, after.outbox, alerts, now)
    beside = [run_id for run_id in ready or () if run_id not in own]
    launch = f"another one stands by: run {beside[0]}" if beside and isinstance(done.launch, Launch) else done.launch
    state = dump_state(replace(after, absence=absence, outbox=outbox))
    return replace(done, state=state, launch=launch, alerts=alerts)


def _ready_standbys(reading: Reading) -> list[str] | None:
    """Their runs; None if nothing records either, which is another alert, or if Redis can't be asked."""
    if isinstance(reading, Unreachable) or not reading.feed.running:
        return None
    return [each.run.run_id for each in reading.feed.standbys if each.is_ready]


def _standby_alert(settings: Settings, kind: AlertKind, absence: StandbyAbsence, now: int) -> Alert:
    missing = kind is AlertKind.TROUBLE
    title = f"IBKR depth {settings.ibkr_gateway_name}: {'no standby' if missing else 'a standby again'}"
    text = (
        f"No standby has been ready since {utc(absence.since_ts)}, though IBKR_STANDBY is on. The recording is well."
        if missing
        else "A standby is ready to take over."
    )
    return Alert(now, kind, "standby_missing", title, text)


HELD = "held, as IBKR_PROBE_FAILED says: the session's last probe found depth for no symbol"


def _alive(reading: Reading) -> str | None:
    if isinstance(reading, Unreachable):
        return None
    if not reading.feed.running:
        return ""
    return reading.feed.figures.run.run_id if reading.feed.figures is not None else "unknown"


def _standing_by(reading: Reading) -> list[str]:
    return [] if isinstance(reading, Unreachable) else [each.run.run_id for each in reading.feed.standbys]


def _newest(reading: Reading) -> RunIdentity | None:
    if isinstance(reading, Unreachable) or reading.feed.figures is None:
        return None
    return reading.feed.figures.run


def _probe_failed(settings: Settings, hold: str, now: int) -> Alert:
    action = "The scheduled ingest is held" if hold else "The scheduled ingest starts all the same"
    advice = "Run the probe again once the cause is mended, or launch the ingest by hand." if hold else ""
    text = f"The session's last probe failed for the whole universe. {action} (IBKR_PROBE_FAILED). {advice}".strip()
    title = f"IBKR depth {settings.ibkr_gateway_name}: probe failed, ingest {'held' if hold else 'started'}"
    return Alert(now, AlertKind.TROUBLE, "probe_failed", title, text)


# ---- failed runs


@dataclass(frozen=True, slots=True)
class RunAlertTick:
    """The alerts raised of failed runs and of the settings."""

    state: str
    alerts: tuple[Alert, ...]


def failures_since(state: str | None) -> int:
    """From when on (unix ms) failed runs are to be passed to `run_alert_tick`; now, for the first tick."""
    return load_state(RunAlertState, state).history.since_ts or unix_ms()


def run_alert_tick(
    settings: Settings, failed: Sequence[FailedRun], state: str | None, problem: str = "", *, blind: bool = False
) -> RunAlertTick:
    """Alert failed runs: `failed` has all since `failures_since`, known ones included.

    problem: what is wrong with the settings, if `settings` are only what can be read of them; `blind` if they do not
    say which Redis or ingest is meant.
    """
    before, now = load_state(RunAlertState, state), unix_ms()
    history = before.history if before.history.since_ts else FailureHistory(now)
    history, of_settings = alert_settings_problem(history, problem, now, settings.ibkr_gateway_name)
    history, of_runs = alert_failed_runs(history, failed, now, settings.ibkr_gateway_name)
    alerts = (*of_settings, *of_runs)
    outbox = _deliver(settings, before.outbox, alerts, now, _no_record if blind else None)
    return RunAlertTick(dump_state(RunAlertState(history, outbox)), alerts)


# ---- delivery


def _deliver(
    settings: Settings, outbox: AlertOutbox, alerts: Sequence[Alert], now: int, record: Record | None = None
) -> AlertOutbox:
    return deliver(outbox, alerts, settings.alert_targets, now, record=record or redis_record(settings))


def _no_record(alerts: Sequence[Alert]) -> None:
    raise SinkUnavailable("the settings do not say which Redis is meant")


# ---- the session


_hours_seen: dict[tuple[str, str], UniverseHours] = {}
"""By Redis and name of the ingest: what was read last, for when Redis can't be asked."""


def universe_sessions(
    settings: Settings, now: int, symbols: Collection[str] = (), *, patience: float = HOURS_PATIENCE_SECS
) -> UniverseSessions | None:
    """The sessions of the instruments that the ingest recorded last, by the hours that it published (unix ms).

    None if the calendar alone counts: IBKR_SESSION says so, or no hours are published, or those that are have run out.
    """
    if settings.ibkr_session == "calendar":
        return None
    key = settings.redis_target, settings.ibkr_gateway_name
    with contextlib.suppress(SinkUnavailable, *_TOO_LATE):
        _hours_seen[key] = _bounded(lambda: read_hours_of(*key), patience)
    published = _hours_seen.get(key, UniverseHours())
    return published.sessions(now, lambda at: calendar_hours(settings.ibkr_calendar, at), symbols)


def _opened(settings: Settings, now: int) -> int | None:
    """When the session that is open at `now` opened; None if none is."""
    if (sessions := universe_sessions(settings, now)) is not None:
        session = sessions.at(now)
        return None if session is None else session.opened
    found = open_session(settings.ibkr_calendar, now)
    return None if found is None else _ms(found.open)


def _whose_hours(settings: Settings) -> str:
    known = _hours_seen.get((settings.redis_target, settings.ibkr_gateway_name))
    return "The markets of the universe are" if known is not None and known.groups else f"{settings.ibkr_calendar} is"


def open_session(calendar: str, now: int) -> TradingSession | None:
    """The session that is open at `now` (unix ms), joined with those that follow or precede it without a break.

    Raises ConfigurationError for an unknown calendar.
    """
    moment = _moment(now)
    hours = _hours(calendar, moment.date())
    session = hours.session_at(moment)
    return hours.unbroken(session) if session is not None else None


def recording_window(settings: Settings, now: int) -> RecordingWindow | None:
    """The window of the session that is open at `now` or opens within the ingest's lead; None outside both.

    It closes with the last of the sessions that follow without a break: a run goes on from one to the next.
    """
    moment, lead = _moment(now), timedelta(minutes=settings.ibkr_ingest_lead_minutes)
    if (sessions := universe_sessions(settings, now)) is not None:
        lead_ms = settings.ibkr_ingest_lead_minutes * 60_000
        found = sessions.at(now, lead_ms)
        if found is None:
            return None
        return RecordingWindow(f"{_moment(found.opened):%Y-%m-%dT%H:%MZ}", found.opened - lead_ms, found.close)
    hours = _hours(settings.ibkr_calendar, moment.date())
    session = hours.session_at(moment) or hours.next_session(moment)
    start = session.open - lead
    close = hours.unbroken(session).close
    return RecordingWindow(session.day.isoformat(), _ms(start), _ms(close)) if start <= moment else None


@lru_cache(maxsize=8)
def _hours(calendar: str, day: date) -> TradingHours:
    # One per day: not built at every tick, and not kept until its dates run out.
    return TradingHours(calendar, datetime(day.year, day.month, day.day, tzinfo=timezone.utc))


def _moment(now: int) -> datetime:
    return datetime.fromtimestamp(now / 1000, timezone.utc)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
