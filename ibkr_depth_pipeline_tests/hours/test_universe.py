"""The session of a universe is from its first open to its last close, by the hours that were published."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from ibkr_depth_pipeline.hours.instruments import ALWAYS_OPEN, MarketHours, calendar_hours, read_hours
from ibkr_depth_pipeline.hours.universe import UniverseHours, UniverseSessions

NEW_YORK = ZoneInfo("America/New_York")


def ms(text: str) -> int:
    """A wall-clock moment in New York."""
    return int(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp()) * 1000


def week(first: str, zone: str, *spans: tuple[str, str], evening: bool = False) -> MarketHours:
    """Hours from that day on for a fortnight, Monday to Friday; evening: each session begins on the evening before."""
    entries = []
    for at in (datetime.fromisoformat(first) + timedelta(days=offset) for offset in range(14)):
        if at.weekday() >= 5:
            entries.append(f"{at:%Y%m%d}:CLOSED")
            continue
        for opens, closes in spans:
            entries.append(f"{at - timedelta(days=evening):%Y%m%d}:{opens}-{at:%Y%m%d}:{closes}")
    return read_hours("trading", ";".join(entries), zone)


def four(first: str) -> dict[str, MarketHours]:
    return {
        "SPY": week(first, "US/Eastern", ("0930", "1600")),
        "ES": week(first, "US/Central", ("1700", "1600"), evening=True),
        "EUR.USD": week(first, "US/Eastern", ("1715", "1700"), evening=True),
        "7203": week(first, "Japan", ("0900", "1130"), ("1230", "1530")),
    }


def sessions(hours: dict[str, MarketHours], now: int, *symbols: str) -> UniverseSessions:
    stored = UniverseHours.of_json(UniverseHours.of(hours).to_json())
    found = stored.sessions(now, lambda at: calendar_hours("XNYS", at), symbols)
    assert found is not None
    return found


@pytest.mark.parametrize("first", ["2026-03-02", "2026-10-26", "2027-03-08", "2027-11-01"])
def test_session_of_four_markets_is_from_sunday_evening_to_friday(first: str) -> None:
    monday = datetime.fromisoformat(first).replace(tzinfo=NEW_YORK)
    wednesday = int((monday + timedelta(days=2, hours=12)).timestamp()) * 1000
    found = sessions(four(first), wednesday)
    sunday, friday = monday - timedelta(hours=6, minutes=45), monday + timedelta(days=4, hours=17)
    session = found.at(wednesday)
    assert session is not None
    assert session.close == int(friday.timestamp()) * 1000
    tuesday = monday + timedelta(days=1, hours=17, minutes=15)
    assert session.opened == int(tuesday.timestamp()) * 1000, "the last time that all had been closed"
    assert found.at(int(sunday.timestamp()) * 1000 - 1) is None
    assert found.at(int(sunday.timestamp()) * 1000 - 1, early_ms=1) is not None
    assert found.at(int(friday.timestamp()) * 1000) is None
    next_sunday = sunday + timedelta(days=7)
    assert f"{next_sunday.astimezone(ZoneInfo('UTC')):%Y-%m-%d %H:%M}" in found.why_closed(
        int(friday.timestamp()) * 1000
    )


def test_stock_in_new_york_has_a_session_a_day_and_one_in_tokyo_goes_on_over_lunch() -> None:
    hours = four("2026-11-30")
    spy = sessions(hours, ms("2026-12-01T12:00"), "SPY").at(ms("2026-12-01T12:00"))
    assert spy is not None
    assert (spy.opened, spy.close) == (ms("2026-12-01T09:30"), ms("2026-12-01T16:00"))
    lunch = ms("2026-12-01T22:00")
    tokyo = sessions(hours, lunch, "7203").at(lunch)
    assert tokyo is not None
    assert (tokyo.opened, tokyo.close) == (ms("2026-12-01T19:00"), ms("2026-12-02T01:30"))
    both = sessions(hours, lunch, "7203", "SPY", "NOT-YET-RESOLVED")
    assert both.at(ms("2026-12-01T17:00")) is None
    assert both.at(lunch) == tokyo


def test_half_day_ends_the_session_early() -> None:
    friday = read_hours("liquid", "20261126:CLOSED;20261127:0930-20261127:1300;20261130:0930-20261130:1600", "EST")
    found = sessions({"SPY": friday}, ms("2026-11-26T12:00"))
    assert found.at(ms("2026-11-26T12:00")) is None
    assert "2026-11-27 14:30" in found.why_closed(ms("2026-11-26T12:00"))
    session = found.at(ms("2026-11-27T10:00"))
    assert session is not None
    assert session.close == ms("2026-11-27T13:00")


def test_calendar_counts_for_hours_that_have_run_out_and_nothing_is_known_if_all_have() -> None:
    old = read_hours("liquid", "20261120:0930-20261120:1600", "EST")
    new = read_hours("trading", "20261129:1700-20261130:1600", "US/Central")
    monday = ms("2026-11-30T12:00")
    found = sessions({"SPY": old, "ES": new}, monday)
    assert ((ms("2026-11-30T09:30")), ms("2026-11-30T16:00")) not in found.spans, "ES is open all that time"
    assert found.at(ms("2026-12-01T12:00")) is not None
    assert sessions({"SPY": old, "ES": new}, monday, "ES").at(ms("2026-12-01T12:00")) is None
    assert UniverseHours.of({"SPY": old}).sessions(monday, lambda at: old) is None
    assert UniverseHours().sessions(monday, lambda at: old) is None
    assert UniverseHours.of_json(b"no json") == UniverseHours()


def test_instrument_that_is_always_recorded_has_a_session_without_an_end() -> None:
    saturday = ms("2026-11-28T12:00")
    session = sessions({"SPY": week("2026-11-23", "EST", ("0930", "1600")), "BTC": ALWAYS_OPEN}, saturday).at(saturday)
    assert session is not None
    assert session.opened <= saturday < session.close - 20 * 86_400_000
