"""One round of each sensor: look, judge, tell. Blocking, bounded in time; what a runner calls with its own facts.

Redis is asked here and nowhere else among the alerts. Each takes the memory of the round before as text, and returns
the text for the next one.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.monitoring.alert import Alert, Kind
from ibkr_depth_pipeline.monitoring.checks import Finding, findings, to_tell
from ibkr_depth_pipeline.monitoring.delivery import tell
from ibkr_depth_pipeline.monitoring.diagnosis import Look, Unreachable, running_since
from ibkr_depth_pipeline.monitoring.incidents import Rules, watch
from ibkr_depth_pipeline.monitoring.run_failures import Ending, News, tell_endings, tell_problem
from ibkr_depth_pipeline.monitoring.state import HeartbeatMemory, NewsMemory, WatchdogMemory, recall, remember
from ibkr_depth_pipeline.monitoring.supervision import Launch, Phase, Run, Span, dead, missing, sights
from ibkr_depth_pipeline.schema.status import RunIdentity
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.status import read_health
from ibkr_depth_pipeline.trading_hours import TradingHours, TradingSession

LOOK_SECS = 12.0
"""The longest that Redis is waited for."""


def look_at(settings: Settings, symbols: Sequence[str]) -> Look:
    """What Redis shows now. Never raises on its account."""
    asked = Future[Look]()
    # A resolver that hangs can't be cancelled, and asyncio.run would wait for it: its thread may be left behind.
    threading.Thread(target=_ask, args=(asked, settings, symbols), name="look", daemon=True).start()
    try:
        return asked.result(LOOK_SECS)
    except SinkUnavailable as error:
        return Unreachable(now_ms(), str(error))
    except _TOO_LATE:
        return Unreachable(now_ms(), f"Redis at {settings.redis_url_masked} did not answer in {LOOK_SECS:.0f} s")


def _ask(asked: Future[Look], settings: Settings, symbols: Sequence[str]) -> None:
    try:
        asked.set_result(asyncio.run(_read(settings, symbols)))
    except BaseException as error:  # whatever it is, it is for the one who asked
        asked.set_exception(error)


async def _read(settings: Settings, symbols: Sequence[str]) -> Look:
    report = read_health(settings.redis_target, settings.ibkr_gateway_name, symbols)
    return await asyncio.wait_for(report, LOOK_SECS)


_TOO_LATE = (asyncio.TimeoutError, TimeoutError, FutureTimeout)
"""Three of a kind until Python 3.11."""


# ---- heartbeats


@dataclass(frozen=True, slots=True)
class HeartbeatRound:
    """`quiet` says why nothing was looked at; "" where it was."""

    memory: str
    findings: tuple[Finding, ...] = ()
    alerts: tuple[Alert, ...] = ()
    quiet: str = ""


def heartbeat_round(settings: Settings, symbols: Sequence[str], memory: str | None) -> HeartbeatRound:
    """See the module."""
    before, now = recall(HeartbeatMemory, memory), now_ms()
    session = session_now(settings.ibkr_calendar, now)
    if session is None:
        outbox = tell(before.outbox, (), settings.alert_targets, now)
        quiet = f"{settings.ibkr_calendar} is closed."
        return HeartbeatRound(remember(HeartbeatMemory(outbox=outbox)), quiet=quiet)
    look, rules, opened = look_at(settings, symbols), _rules(settings, len(symbols)), _ms(session.open)
    after, alerts = watch(before.watch, look, opened, rules)
    early = look.ts < max(opened, running_since(look)) + rules.grace_ms
    found = list(findings(look, tuple(symbols), early=early))
    news, told = to_tell(before.told, found, look.ts)
    outbox = tell(before.outbox, alerts, settings.alert_targets, now_ms())
    return HeartbeatRound(remember(HeartbeatMemory(after, told, outbox)), tuple(news), alerts)


def findings_now(settings: Settings, symbols: Sequence[str]) -> list[Finding]:
    """What the checks say at this moment, for one who asks; outside a session nothing counts for certain."""
    look = look_at(settings, symbols)
    return list(findings(look, tuple(symbols), early=session_now(settings.ibkr_calendar, look.ts) is None))


def _rules(settings: Settings, symbols: int) -> Rules:
    rotation = math.ceil(symbols / settings.ibkr_max_concurrent_depth) * settings.ibkr_rotation_secs
    grace = settings.ibkr_alert_grace_secs + rotation
    return Rules(settings.ibkr_gateway_name, int(settings.ibkr_alert_after_secs * 1000), int(grace * 1000))


# ---- the watchdog


@dataclass(frozen=True, slots=True)
class WatchdogRound:
    """What to do: runs to fail (id -> why), and a launch or why there is none.

    `newest` is the run that told its figures last, with its process; None where that is not known.
    """

    memory: str
    dead: dict[str, str]
    newest: RunIdentity | None
    launch: Launch | str
    session: Span | None
    alerts: tuple[Alert, ...] = ()


def watchdog_round(
    settings: Settings, runs: Sequence[Run], probe: Phase | None, session: Span | None, memory: str | None
) -> WatchdogRound:
    """See the module. `runs` are the newest of the ingest, newest first; `probe`: how the session's last one ended."""
    before = recall(WatchdogMemory, memory)
    needed = session is not None or any(run.phase is Phase.STARTED for run in runs)
    look = look_at(settings, ()) if needed else Unreachable(now_ms(), "not asked")
    alive = _alive(look)
    now = now_ms()
    here = [run for run in runs if run.redis_url in ("", settings.redis_url)]  # another Redis is not looked into
    seen = sights(before.sights, here, alive, now)
    doomed = dead(runs, seen, now, lease_wait_ms=int(settings.ibkr_lease_wait_secs * 1000))
    failed = session is not None and probe is Phase.FAILED
    hold = HELD if failed and settings.ibkr_probe_failed == "hold" else ""
    launch = missing(runs, session, now, alive=alive, hold=hold)
    alerts: tuple[Alert, ...] = ()
    told = before.probe_told
    if failed and session is not None and told != session.day:
        told, alerts = session.day, (*alerts, _probe_failed(settings, hold, now))
    outbox = tell(before.outbox, alerts, settings.alert_targets, now)
    return WatchdogRound(remember(WatchdogMemory(seen, told, outbox)), doomed, _newest(look), launch, session, alerts)


HELD = "held, as IBKR_PROBE_FAILED says: the session's last probe found depth for no symbol"


def _alive(look: Look) -> str | None:
    if isinstance(look, Unreachable):
        return None
    if not look.feed.running:
        return ""
    return look.feed.figures.run.run_id if look.feed.figures is not None else "unknown"


def _newest(look: Look) -> RunIdentity | None:
    if isinstance(look, Unreachable) or look.feed.figures is None:
        return None
    return look.feed.figures.run


def _probe_failed(settings: Settings, hold: str, now: int) -> Alert:
    done = "The scheduled ingest is held" if hold else "The scheduled ingest starts all the same"
    more = "Run the probe again once the cause is mended, or launch the ingest by hand." if hold else ""
    text = f"The session's last probe failed for the whole universe. {done} (IBKR_PROBE_FAILED). {more}".strip()
    title = f"IBKR depth {settings.ibkr_gateway_name}: probe failed, ingest {'held' if hold else 'started'}"
    return Alert(now, Kind.TROUBLE, "probe_failed", title, text)


# ---- runs


@dataclass(frozen=True, slots=True)
class NewsRound:
    memory: str
    alerts: tuple[Alert, ...]


def news_since(memory: str | None) -> int:
    """From when on (unix ms) endings are news: that of the first round, which tells nothing older."""
    return recall(NewsMemory, memory).news.since_ts or now_ms()


def news_round(settings: Settings, endings: Sequence[Ending], memory: str | None, problem: str = "") -> NewsRound:
    """See the module. `endings` are those of the runs since `news_since`, known ones included.

    `problem` says what is wrong with the settings, of which these are what can be read.
    """
    before, now = recall(NewsMemory, memory), now_ms()
    news = before.news if before.news.since_ts else News(now)
    news, bad = tell_problem(news, problem, now, settings.ibkr_gateway_name)
    after, ended = tell_endings(news, endings, now, settings.ibkr_gateway_name)
    alerts = (*bad, *ended)
    outbox = tell(before.outbox, alerts, settings.alert_targets, now)
    return NewsRound(remember(NewsMemory(after, outbox)), alerts)


# ---- the session


def session_now(calendar: str, now: int) -> TradingSession | None:
    """The session that is open at `now` (unix ms), with those around it that no break parts from it.

    Raises ConfigurationError for an unknown calendar.
    """
    moment = _moment(now)
    hours = _hours(calendar, moment.date())
    session = hours.session_at(moment)
    return hours.unbroken(session) if session is not None else None


def span_to_record(settings: Settings, now: int) -> Span | None:
    """The session that is open at `now`, or that the ingest's lead before its open has begun of; None outside both.

    Where no break parts it from the next one, it closes as the last of them: a run goes on from one to the other.
    """
    moment, lead = _moment(now), timedelta(minutes=settings.ibkr_ingest_lead_minutes)
    hours = _hours(settings.ibkr_calendar, moment.date())
    session = hours.session_at(moment) or hours.next_session(moment)
    start = session.open - lead
    close = hours.unbroken(session).close
    return Span(session.day.isoformat(), _ms(start), _ms(close)) if start <= moment else None


@lru_cache(maxsize=8)
def _hours(calendar: str, day: date) -> TradingHours:
    # A day's, so that it is not built at every look, nor kept until its dates run out.
    return TradingHours(calendar, datetime(day.year, day.month, day.day, tzinfo=timezone.utc))


def _moment(now: int) -> datetime:
    return datetime.fromtimestamp(now / 1000, timezone.utc)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def now_ms() -> int:
    """This machine's clock."""
    return time.time_ns() // 1_000_000
