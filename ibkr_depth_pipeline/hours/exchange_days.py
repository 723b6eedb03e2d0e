"""The days of an exchange around a date, from exchange_calendars.

That library brings pandas: 60 MB in each process that imports it, for a table of forty days. So a process of its own
reads them once per calendar and day: `python -m ibkr_depth_pipeline.hours.exchange_days NAME FIRST LAST` prints them as
JSON.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timezone
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from ibkr_depth_pipeline.errors import ConfigurationError, DepthPipelineError

LONGEST_READING_SECS = 120.0
"""After so long the process that reads a calendar is given up."""

_UNKNOWN_CALENDAR = 3  # exit code


class CalendarUnreadable(DepthPipelineError):
    """The process that reads a calendar failed. The message has its last words."""


@dataclass(frozen=True)
class TradingSession:
    """One session. `day` is its date by the exchange's calendar; `open` and `close` are in UTC."""

    day: date
    open: datetime
    close: datetime


@dataclass(frozen=True)
class ExchangeDays:
    """A calendar between two dates. weekdays_off: 0 is Monday; usual_open: wall-clock time in `zone`, a name."""

    zone: str
    usual_open: time
    weekdays_off: tuple[int, ...]
    holidays: dict[date, str]
    sessions: tuple[TradingSession, ...]


_JSON = TypeAdapter(ExchangeDays)


@lru_cache(maxsize=16)
def exchange_days(calendar: str, first: date, last: date) -> ExchangeDays:
    """The days of `calendar`, a name of exchange_calendars such as XNYS, between two dates.

    Raises ConfigurationError for an unknown calendar, CalendarUnreadable if the process that reads it fails.
    """
    if "exchange_calendars" in sys.modules:  # this process has paid for it already
        return read_days(calendar, first, last)
    command = [sys.executable, "-m", __name__, calendar, str(first), str(last)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LONGEST_READING_SECS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise CalendarUnreadable(f"calendar {calendar}: {error}") from None
    if done.returncode == _UNKNOWN_CALENDAR:
        raise unknown(calendar)
    if done.returncode:
        last_words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CalendarUnreadable(f"calendar {calendar}: reading it ended with {done.returncode}: {last_words}")
    days = _JSON.validate_json(done.stdout)
    return replace(days, sessions=tuple(_in_utc(session) for session in days.sessions))


def _in_utc(session: TradingSession) -> TradingSession:
    """With Python's own UTC in place of the one that pydantic reads."""
    opens, closes = session.open.astimezone(timezone.utc), session.close.astimezone(timezone.utc)
    return TradingSession(session.day, opens, closes)


def unknown(calendar: str) -> ConfigurationError:
    """The error for a name that exchange_calendars does not know."""
    allowed = "a calendar of exchange_calendars, such as XNYS, XNAS or 24/7"
    return ConfigurationError("trading hours", [f"{calendar!r} is not allowed; {allowed}"])


def read_days(calendar: str, first: date, last: date) -> ExchangeDays:
    """As exchange_days, in this process."""
    import exchange_calendars  # type: ignore[import-untyped]

    try:
        with warnings.catch_warnings():  # newer pandas' warnings to exchange_calendars do not concern our users
            warnings.filterwarnings("ignore", message="Series.values")
            found = exchange_calendars.get_calendar(calendar, start=first, end=last)
    except exchange_calendars.errors.InvalidCalendarName:
        raise unknown(calendar) from None
    return ExchangeDays(
        zone=str(found.tz),
        usual_open=found.open_times[-1][1],
        weekdays_off=tuple(day for day, mark in enumerate(found.weekmask) if mark == "0"),
        holidays=_holidays(found),
        sessions=tuple(
            TradingSession(label.date(), _utc(row.open), _utc(row.close))
            for label, row in zip(found.schedule.index, found.schedule.itertuples(), strict=True)
        ),
    )


def _holidays(found: Any) -> dict[date, str]:
    rules = found.regular_holidays
    if rules is None:
        return {}
    named = rules.holidays(found.first_session, found.last_session, return_name=True)
    return {label.date(): str(name) for label, name in named.items()}


def _utc(stamp: Any) -> datetime:
    moment: datetime = stamp.to_pydatetime().astimezone(timezone.utc)
    return moment


def main() -> int:
    """Print the days that the arguments name."""
    name, first, last = sys.argv[1:]
    try:
        days = read_days(name, date.fromisoformat(first), date.fromisoformat(last))
    except ConfigurationError:
        return _UNKNOWN_CALENDAR
    sys.stdout.buffer.write(_JSON.dump_json(days))
    return 0


if __name__ == "__main__":
    sys.exit(main())
