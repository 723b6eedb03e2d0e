"""When an exchange is open: sessions, early closes, the reason for a closed day. Pure: the moment is an argument.

Moments are aware datetimes; those handed out are in UTC. The dates come from exchange_calendars (exchange_days.py); it
knows about a year ahead from the day it is asked: make a TradingHours when it is needed, don't keep one for days.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from ibkr_depth_pipeline.errors import DepthPipelineError
from ibkr_depth_pipeline.hours.exchange_days import TradingSession, exchange_days

_BEFORE, _AFTER = timedelta(days=10), timedelta(days=30)
"""The days searched around a moment: more than any number of closed days in a row."""


class OutsideSession(DepthPipelineError):
    """The exchange is closed and does not open within the allowed lead. The message holds the next open."""


class TradingHours:
    """The sessions of `calendar` (a name of exchange_calendars, such as XNYS) in the weeks around a moment.

    Raises what exchange_days raises. Methods take moments up to a week from `around`.
    """

    def __init__(self, calendar: str, around: datetime) -> None:
        self.calendar = calendar
        day = around.astimezone(timezone.utc).date()
        days = exchange_days(calendar, day - _BEFORE, day + _AFTER)
        self.zone = ZoneInfo(days.zone)
        """The exchange's own time zone."""
        self.usual_open = days.usual_open
        """The wall-clock time, in `zone`, at which a session opens on a day like any other."""
        self._weekdays_off = days.weekdays_off
        self._holidays = days.holidays
        self._sessions = list(days.sessions)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Open and close of every session that is known, in unix milliseconds."""
        return [(_unix_ms(session.open), _unix_ms(session.close)) for session in self._sessions]

    def session_at(self, now: datetime) -> TradingSession | None:
        """The session that is open at `now`: from its open on, until just before its close."""
        return next((session for session in self._sessions if session.open <= now < session.close), None)

    def next_session(self, now: datetime) -> TradingSession:
        """The first session that opens after `now`."""
        return next(session for session in self._sessions if session.open > now)

    def session_opening_on(self, day: date) -> TradingSession | None:
        """The session that opens on that day of the exchange's own wall calendar."""
        return next((each for each in self._sessions if each.open.astimezone(self.zone).date() == day), None)

    def why_closed(self, day: date) -> str:
        """Why no session opens on `day`: the holiday's name if it has one."""
        if (named := self._holidays.get(day)) is not None:
            return named
        return "not a weekday of trading" if day.weekday() in self._weekdays_off else "closed by the exchange"

    def session_to_record(self, now: datetime, early: timedelta) -> TradingSession:
        """The open session, or the next one if it opens within `early`. Raises OutsideSession for all other times."""
        session = self.session_at(now) or self.next_session(now)
        if session.open - now <= early:
            return session
        raise OutsideSession(f"{self.calendar} is closed; it opens next on {self.wall_clock(session.open)}")

    def unbroken(self, session: TradingSession) -> TradingSession:
        """`session` extended to the sessions before and after it that follow without a break.

        Those of CMES end as the next one opens, until Friday; those of 24/7 never end, and are known 30 days ahead.
        """
        at = self._sessions.index(session)
        first = last = at
        while first > 0 and self._sessions[first - 1].close >= self._sessions[first].open:
            first -= 1
        while last + 1 < len(self._sessions) and self._sessions[last].close >= self._sessions[last + 1].open:
            last += 1
        return replace(session, open=self._sessions[first].open, close=self._sessions[last].close)

    def wall_clock(self, moment: datetime) -> str:
        """The moment in the exchange's zone, in text: `Fri 2026-11-27 09:30 EST`."""
        return moment.astimezone(self.zone).strftime("%a %Y-%m-%d %H:%M %Z")


@dataclass(frozen=True, slots=True)
class Start:
    """The tick is to start this session's run."""

    session: TradingSession


@dataclass(frozen=True, slots=True)
class Skip:
    """The tick is to start nothing; the reason is for the operator."""

    reason: str


def judge_tick(
    hours: TradingHours, scheduled: datetime, now: datetime, lead: timedelta, *, after_open: bool
) -> Start | Skip:
    """Decide what a daily tick does that is due `lead` before the usual open and fires at `now`.

    A tick can fire late, after a stop of the scheduler: it counts until the close, or only until the open if
    `after_open` is false.
    """
    day = (scheduled + lead).astimezone(hours.zone).date()
    session = hours.session_opening_on(day)
    if session is None:
        opens = hours.wall_clock(hours.next_session(scheduled).open)
        return Skip(
            f"{hours.calendar} is closed on {day:%a %Y-%m-%d}: {hours.why_closed(day)}. It opens next on {opens}."
        )
    last_call = session.close if after_open else session.open
    if now >= last_call:
        event = "closed" if after_open else "opened"
        return Skip(f"This tick comes too late: the session {event} at {hours.wall_clock(last_call)}.")
    return Start(session)


def _unix_ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000
