"""The New York calendar around Thanksgiving 2026, DST changes, and what a schedule's tick makes of them. Pure."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.hours.trading import OutsideSession, Skip, Start, TradingHours, judge_tick

NEW_YORK = ZoneInfo("America/New_York")
LEAD = timedelta(minutes=5)


def new_york(day: int, hour: int, minute: int = 0, *, month: int = 11) -> datetime:
    """A wall-clock moment of 2026."""
    return datetime(2026, month, day, hour, minute, tzinfo=NEW_YORK)


@pytest.fixture(scope="module")
def hours() -> TradingHours:
    return TradingHours("XNYS", new_york(26, 12))


def test_session_is_open_from_its_first_moment_until_just_before_its_close(hours: TradingHours) -> None:
    session = hours.session_at(new_york(25, 9, 30))
    assert session is not None
    assert session.day == date(2026, 11, 25)
    assert (session.open, session.close) == (new_york(25, 9, 30), new_york(25, 16))
    assert session.open.tzinfo is timezone.utc
    assert hours.session_at(new_york(25, 9, 29)) is None
    assert hours.session_at(new_york(25, 16)) is None


def test_day_after_thanksgiving_closes_early(hours: TradingHours) -> None:
    session = hours.session_at(new_york(27, 12))
    assert session is not None
    assert session.close == new_york(27, 13)


def test_next_session_after_a_holiday_eve_is_the_day_after(hours: TradingHours) -> None:
    assert hours.next_session(new_york(25, 16)).open == new_york(27, 9, 30)


def test_open_follows_the_wall_clock_over_the_change_to_winter_time() -> None:
    hours = TradingHours("XNYS", new_york(1, 0))
    opens = {day: hours.session_opening_on(date(2026, month, day)) for month, day in ((10, 30), (11, 2))}
    assert [session.open.hour for session in opens.values() if session] == [13, 14]


@pytest.mark.parametrize(
    ("day", "reason"), [(date(2026, 11, 26), "Thanksgiving"), (date(2026, 11, 28), "not a weekday of trading")]
)
def test_closed_day_has_a_reason(hours: TradingHours, day: date, reason: str) -> None:
    assert reason in hours.why_closed(day)


def test_unscheduled_closure_is_explained_as_the_exchanges() -> None:
    mourning = date(2025, 1, 9)
    hours = TradingHours("XNYS", datetime(2025, 1, 9, 12, tzinfo=NEW_YORK))
    assert hours.session_opening_on(mourning) is None
    assert hours.why_closed(mourning) == "closed by the exchange"


def test_calendar_that_never_closes_is_always_in_session() -> None:
    hours = TradingHours("24/7", new_york(28, 12))
    assert hours.session_at(new_york(28, 12)) is not None


@pytest.mark.parametrize(
    ("calendar", "start", "end"),
    [
        ("XNYS", new_york(18, 9, 30), new_york(18, 16)),
        ("CMES", new_york(15, 18), new_york(20, 18)),  # from Sunday evening to Friday
        ("24/7", new_york(7, 19), new_york(18, 19, month=12)),  # as far as its days are known
    ],
)
def test_sessions_without_a_break_are_recorded_as_one(calendar: str, start: datetime, end: datetime) -> None:
    now = new_york(18, 12)
    hours = TradingHours(calendar, now)
    session = hours.session_at(now)
    assert session is not None
    unbroken = hours.unbroken(session)
    assert (unbroken.day, unbroken.open, unbroken.close) == (session.day, start, end)


def test_unknown_calendar_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="'XNYZ' is not allowed"):
        TradingHours("XNYZ", new_york(26, 12))


def test_run_may_start_a_little_before_the_session(hours: TradingHours) -> None:
    session = hours.session_to_record(new_york(27, 9, 20), early=timedelta(minutes=15))
    assert session.day == date(2026, 11, 27)
    assert hours.session_to_record(new_york(27, 12, 59), early=timedelta(0)) == session


def test_error_outside_a_session_names_the_next_open(hours: TradingHours) -> None:
    with pytest.raises(OutsideSession, match=r"XNYS is closed; it opens next on Fri 2026-11-27 09:30 EST"):
        hours.session_to_record(new_york(26, 12), early=timedelta(minutes=15))


def test_usual_open_is_known_on_a_holiday(hours: TradingHours) -> None:
    assert hours.usual_open == time(9, 30)
    assert str(hours.zone) == "America/New_York"


def test_tick_in_time_starts_its_session(hours: TradingHours) -> None:
    tick = new_york(27, 9, 25)
    verdict = judge_tick(hours, tick, tick, LEAD, after_open=True)
    assert isinstance(verdict, Start)
    assert verdict.session.close == new_york(27, 13)


def test_tick_on_a_holiday_is_skipped_with_the_holidays_name_and_the_next_open(hours: TradingHours) -> None:
    tick = new_york(26, 9, 25)
    verdict = judge_tick(hours, tick, tick, LEAD, after_open=True)
    assert verdict == Skip("XNYS is closed on Thu 2026-11-26: Thanksgiving. It opens next on Fri 2026-11-27 09:30 EST.")


def test_late_tick_still_starts_the_rest_of_the_session(hours: TradingHours) -> None:
    verdict = judge_tick(hours, new_york(25, 9, 25), new_york(25, 14), LEAD, after_open=True)
    assert isinstance(verdict, Start)


def test_tick_after_the_close_is_too_late(hours: TradingHours) -> None:
    verdict = judge_tick(hours, new_york(27, 9, 25), new_york(27, 13), LEAD, after_open=True)
    assert verdict == Skip("This tick comes too late: the session closed at Fri 2026-11-27 13:00 EST.")


def test_tick_of_the_probe_is_too_late_after_the_open(hours: TradingHours) -> None:
    verdict = judge_tick(hours, new_york(25, 8, 45), new_york(25, 9, 31), timedelta(minutes=45), after_open=False)
    assert verdict == Skip("This tick comes too late: the session opened at Wed 2026-11-25 09:30 EST.")
