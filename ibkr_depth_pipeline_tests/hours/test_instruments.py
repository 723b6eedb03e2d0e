"""Hours in contract details: both forms, zones, breaks, Sunday opens, half days, and changes of the clock."""

from __future__ import annotations

import warnings
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import exchange_calendars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.hours.instruments import (
    ALWAYS_OPEN,
    MarketHours,
    UnreadableHours,
    calendar_hours,
    hours_to_follow,
    merged,
    read_hours,
    time_zone,
)


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1000


def spans(text: str, zone: str) -> list[tuple[str, str]]:
    """What is read, in UTC."""
    read = read_hours("trading", text, zone).spans
    return [(_utc(opens), _utc(closes)) for opens, closes in read]


def _utc(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1000, timezone.utc).strftime("%m-%d %H:%M")


@pytest.mark.parametrize("text", ["20261126:CLOSED;20261127:0930-20261127:1300", "20261126:CLOSED;20261127:0930-1300"])
def test_half_day_after_a_holiday_is_read_in_both_forms(text: str) -> None:
    assert spans(text, "US/Eastern") == [("11-27 14:30", "11-27 18:00")]
    hours = read_hours("liquid", text, "US/Eastern")
    assert not hours.is_open(ms("2026-11-26T15:00", "America/New_York"))
    assert hours.closed_until(ms("2026-11-26T15:00", "America/New_York")) == ms("2026-11-27T14:30")
    assert hours.is_open(ms("2026-11-27T14:30"))
    assert hours.closed_until(ms("2026-11-27T17:59")) == 0
    assert not hours.is_open(ms("2026-11-27T18:00"))
    assert hours.is_open(ms("2026-11-28T12:00")), "nothing is known of that day, and nothing is to be missed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "20261129:1800-20261130:1700;20261201:1800-20261201:1700",
            None,  # ends before it begins
        ),
        (
            "20261129:1700-20261130:1600;20261130:1700-20261201:1600",
            [("11-29 23:00", "11-30 22:00"), ("11-30 23:00", "12-01 22:00")],
        ),
        (
            "20261130:1700-1515,1530-1600;20261201:1700-1515,1530-1600",  # the old form: 1700 of the day before
            [
                ("11-29 23:00", "11-30 21:15"),
                ("11-30 21:30", "11-30 22:00"),
                ("11-30 23:00", "12-01 21:15"),
                ("12-01 21:30", "12-01 22:00"),
            ],
        ),
    ],
)
def test_sessions_of_futures_begin_on_the_evening_before(text: str, expected: list[tuple[str, str]] | None) -> None:
    if expected is None:
        with pytest.raises(UnreadableHours):
            spans(text, "US/Central")
    else:
        assert spans(text, "US/Central") == expected


def test_break_at_noon_makes_two_spans_and_adjacent_spans_make_one() -> None:
    assert spans("20261126:0900-20261126:1130;20261126:1230-20261126:1530", "Japan") == [
        ("11-26 00:00", "11-26 02:30"),
        ("11-26 03:30", "11-26 06:30"),
    ]
    assert spans("20261126:0900-1130,1230-1530", "JST (Japan Standard Time)") == [
        ("11-26 00:00", "11-26 02:30"),
        ("11-26 03:30", "11-26 06:30"),
    ]
    assert spans("20261126:0400-0930,0930-1600", "EST (Eastern Standard Time)") == [("11-26 09:00", "11-26 21:00")]


def test_around_the_clock_is_one_span() -> None:
    text = ";".join(f"202611{day}:0000-202611{day + 1}:0000" for day in range(23, 28))
    assert spans(text, "UTC") == [("11-23 00:00", "11-28 00:00")]
    assert spans("20261126:0000-2400", "UTC") == [("11-26 00:00", "11-27 00:00")]


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("US/Eastern", "America/New_York"),
        ("EST (Eastern Standard Time)", "America/New_York"),
        ("EST5EDT", "America/New_York"),
        ("America/New_York", "America/New_York"),
        ("CST (Central Standard Time)", "America/Chicago"),
        ("CST (China Standard Time)", "Asia/Shanghai"),
        ("US/Central", "America/Chicago"),
        ("Japan", "Asia/Tokyo"),
        ("JST (Japan Standard Time)", "Asia/Tokyo"),
        ("MET", "Europe/Berlin"),
        ("MET (Middle Europe Time)", "Europe/Berlin"),
        ("GB-Eire", "Europe/London"),
        ("GMT (Greenwich Mean Time)", "Europe/London"),
        ("Hongkong", "Asia/Hong_Kong"),
        ("Australia/NSW", "Australia/Sydney"),
        ("IST (India Standard Time)", "Asia/Kolkata"),
    ],
)
def test_zones_are_read_as_ibkr_names_them_and_keep_summer_time(name: str, zone: str) -> None:
    for year in (2026, 2027):
        for month in (1, 7):
            moment = datetime(year, month, 5, 12)
            found = time_zone(name).utcoffset(moment)
            assert found == ZoneInfo(zone).utcoffset(moment)


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("", "US/Eastern"),
        (";", "US/Eastern"),
        ("20261126:0930-20261126:1600", "Nowhere/Land"),
        ("20261126:0930-20261126:1600", ""),
        ("20261326:0930-1600", "US/Eastern"),
        ("20261126:2530-20261126:2600", "US/Eastern"),
        ("tomorrow", "US/Eastern"),
        ("20261126:OPEN", "US/Eastern"),
        ("20261126:0930", "US/Eastern"),
        ("20261127:0930-20261126:1600", "US/Eastern"),
    ],
)
def test_hours_that_cannot_be_read_raise_and_name_the_text(text: str, zone: str) -> None:
    with pytest.raises(UnreadableHours):
        read_hours("trading", text, zone)


@given(st.text(alphabet="0123456789:-;,CLOSED /", max_size=60), st.sampled_from(["US/Eastern", "MET", "x", ""]))
def test_any_text_is_read_or_refused(text: str, zone: str) -> None:
    try:
        hours = read_hours("trading", text, zone)
    except UnreadableHours:
        return
    assert hours.spans == merged(hours.spans)


@pytest.mark.parametrize(("calendar", "zone"), [("XNYS", "US/Eastern"), ("XTKS", "Japan"), ("XETR", "MET")])
@pytest.mark.parametrize("year", [2026, 2027])
def test_sessions_of_a_year_are_read_as_the_exchange_has_them(calendar: str, zone: str, year: int) -> None:
    """Days with changed clocks, half days and holidays among them, in both forms."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Series.values")
        known = exchange_calendars.get_calendar(calendar, start=f"{year}-01-01", end=f"{year}-12-31")
    local = time_zone(zone)
    sessions = {
        row.open.to_pydatetime().astimezone(local).date(): (row.open.to_pydatetime(), row.close.to_pydatetime())
        for row in known.schedule.itertuples()
    }
    for first in (date(year, 1, 1) + timedelta(days=5 * step) for step in range(72)):
        days = [first + timedelta(days=offset) for offset in range(6)]
        new, old = (";".join(_listed(day, sessions.get(day), local, form) for day in days) for form in ("new", "old"))
        expected = [sessions[day] for day in days if day in sessions]
        for text in (new, old):
            read = read_hours("liquid", text, zone)
            assert read.spans == tuple((int(a.timestamp() * 1000), int(b.timestamp() * 1000)) for a, b in expected)


def _listed(day: date, session: tuple[datetime, datetime] | None, zone: ZoneInfo, form: str) -> str:
    if session is None:
        return f"{day:%Y%m%d}:CLOSED"
    opens, closes = (moment.astimezone(zone) for moment in session)
    second = f"{closes:%Y%m%d}:" if form == "new" else ""
    return f"{day:%Y%m%d}:{opens:%H%M}-{second}{closes:%H%M}"


@pytest.mark.parametrize(
    ("sunday", "opens"),
    [
        ("2026-03-01", "23:00"),
        ("2026-03-08", "22:00"),  # summer time begins this Sunday
        ("2026-10-25", "22:00"),
        ("2026-11-01", "23:00"),  # and ends this one
        ("2027-03-14", "22:00"),
        ("2027-11-07", "23:00"),
    ],
)
def test_sunday_opens_of_futures_follow_the_change_of_the_clock(sunday: str, opens: str) -> None:
    day = date.fromisoformat(sunday)
    monday = day + timedelta(days=1)
    read = read_hours("trading", f"{day:%Y%m%d}:1700-{monday:%Y%m%d}:1600", "US/Central")
    assert read.spans[0][0] == ms(f"{sunday}T{opens}")
    assert read.closed_until(ms(f"{sunday}T12:00")) == ms(f"{sunday}T{opens}")


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 60)), max_size=12), st.integers(0, 600))
def test_open_and_closed_agree(raw: list[tuple[int, int]], now: int) -> None:
    hours = MarketHours("trading", merged((opens, opens + length) for opens, length in raw), 560)
    inside = any(opens <= now < opens + length for opens, length in raw)
    assert hours.is_open(now) == (inside or now >= 560)
    until = hours.closed_until(now)
    assert (until == 0) == hours.is_open(now)
    if until:
        assert until > now
        assert hours.is_open(until)
        assert not any(hours.is_open(moment) for moment in range(now, until))


def test_defaults_are_liquid_hours_for_stocks_and_trading_hours_for_all_else() -> None:
    assert hours_to_follow(None, "STK") == "liquid"
    assert {hours_to_follow(None, kind) for kind in ("FUT", "CASH", "IND", "OPT")} == {"trading"}
    assert hours_to_follow("always", "STK") == "always"
    assert ALWAYS_OPEN.is_open(0)


def test_calendar_stands_in_where_there_are_no_hours() -> None:
    holiday = calendar_hours("XNYS", ms("2026-11-26T15:00"))
    assert holiday.closed_until(ms("2026-11-26T15:00")) == ms("2026-11-27T14:30")
    assert holiday.label == "XNYS"
    assert calendar_hours("24/7", ms("2026-11-26T15:00")).is_open(ms("2026-11-26T15:00"))
