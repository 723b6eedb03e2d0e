"""When an instrument's market is open, from the hours in its contract details. Pure; moments are unix milliseconds.

`tradingHours` and `liquidHours` list some days, in the contract's own time zone (`timeZoneId`), in one of two forms:

    20261127:0930-20261127:1300;20261128:CLOSED;20261129:1800-20261130:1700      since TWS 970
    20261127:0400-0930,0930-1300;20261128:CLOSED;20261130:1700-1600              before; 1700 is of the day before

Spans of a day are parted by commas or stand as entries of their own. What is not listed is closed up to the last day
listed, and unknown from then on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

from ibkr_depth_pipeline.hours.trading import TradingHours

LIQUID, TRADING, ALWAYS = "liquid", "trading", "always"

_ZONES = {
    "EST": "America/New_York",
    "EST5EDT": "America/New_York",
    "EDT": "America/New_York",
    "US/Eastern": "America/New_York",
    "CST": "America/Chicago",
    "CDT": "America/Chicago",
    "CST6CDT": "America/Chicago",
    "US/Central": "America/Chicago",
    "MST": "America/Denver",
    "US/Mountain": "America/Denver",
    "PST": "America/Los_Angeles",
    "PST8PDT": "America/Los_Angeles",
    "US/Pacific": "America/Los_Angeles",
    "GMT": "Europe/London",
    "BST": "Europe/London",
    "GB": "Europe/London",
    "GB-Eire": "Europe/London",
    "MET": "Europe/Berlin",
    "MEZ": "Europe/Berlin",
    "CET": "Europe/Berlin",
    "CEST": "Europe/Berlin",
    "EET": "Europe/Helsinki",
    "WET": "Europe/Lisbon",
    "MSK": "Europe/Moscow",
    "JST": "Asia/Tokyo",
    "Japan": "Asia/Tokyo",
    "HKT": "Asia/Hong_Kong",
    "Hongkong": "Asia/Hong_Kong",
    "SGT": "Asia/Singapore",
    "Singapore": "Asia/Singapore",
    "KST": "Asia/Seoul",
    "ROK": "Asia/Seoul",
    "CTT": "Asia/Shanghai",
    "PRC": "Asia/Shanghai",
    "IST": "Asia/Kolkata",
    "Asia/Calcutta": "Asia/Kolkata",
    "AET": "Australia/Sydney",
    "AEST": "Australia/Sydney",
    "AEDT": "Australia/Sydney",
    "Australia/NSW": "Australia/Sydney",
    "NST": "Pacific/Auckland",
    "NZST": "Pacific/Auckland",
    "UTC": "UTC",
    "Etc/UTC": "UTC",
    "Z": "UTC",
}
"""IBKR's short names and old ones. Those of winter time, such as EST, mean the zone with its summer time."""

_SAME_SHORT_NAME = {
    ("CST", "china"): "Asia/Shanghai",
    ("IST", "israel"): "Asia/Jerusalem",
    ("IST", "irish"): "Europe/Dublin",
    ("BST", "bangladesh"): "Asia/Dhaka",
    ("AST", "arab"): "Asia/Riyadh",
}

_ENTRY = re.compile(r"(\d{8}):(.*)")
_SPAN = re.compile(r"(?:(\d{8}):)?(\d{2}):?(\d{2})\s*-\s*(?:(\d{8}):)?(\d{2}):?(\d{2})")
_DAY_MS = 86_400_000


class UnreadableHours(ValueError):
    """The hours, or their time zone, can't be read; the message holds the text."""


@dataclass(frozen=True, slots=True)
class MarketHours:
    """The spans in which a market is open, in order, apart from each other; known up to `known_until`.

    label says which hours these are, for an operator.
    """

    label: str
    spans: tuple[tuple[int, int], ...]
    known_until: int

    def is_open(self, now: int) -> bool:
        """Whether it is open; also where nothing is known of `now`, so that nothing is missed."""
        return now >= self.known_until or any(opens <= now < closes for opens, closes in self.spans)

    def closed_until(self, now: int) -> int:
        """When it opens next, or when nothing more is known; 0 if it is open."""
        if self.is_open(now):
            return 0
        return next((opens for opens, _ in self.spans if opens > now), self.known_until)


ALWAYS_OPEN = MarketHours(ALWAYS, (), 0)


def hours_to_follow(wished: str | None, sec_type: str) -> str:
    """Which hours count for an entry that wishes so much: liquid for stocks, trading for all else by default."""
    return wished or (LIQUID if sec_type == "STK" else TRADING)


def read_hours(label: str, text: str, zone_name: str) -> MarketHours:
    """The hours of `text`. Raises UnreadableHours, also if it lists no day at all."""
    zone = time_zone(zone_name)
    spans: list[tuple[datetime, datetime]] = []
    days: list[date] = []
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        day, read = _entry(entry)
        days.append(max([day, *(closes.date() for _, closes in read)]))
        spans += read
    if not days:
        raise UnreadableHours(f"the contract details list no hours ({text!r})")
    known_until = _unix_ms(datetime.combine(max(days) + timedelta(days=1), time()), zone)
    in_ms = [(_unix_ms(opens, zone), _unix_ms(closes, zone)) for opens, closes in spans]
    return MarketHours(label, merged(in_ms), max([known_until, *(closes for _, closes in in_ms)]))


def _entry(entry: str) -> tuple[date, list[tuple[datetime, datetime]]]:
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise UnreadableHours(f"{entry!r} is no entry of trading hours")
    day = _date(found[1])
    if found[2].strip().upper() == "CLOSED":
        return day, []
    return day, [_span(day, text.strip(), at) for at, text in enumerate(found[2].split(","))]


def _span(day: date, text: str, at: int) -> tuple[datetime, datetime]:
    """One span of the entry of `day`, its `at`-th; the first has its opening date in the entry itself."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise UnreadableHours(f"{text!r} is no span of trading hours")
    opens = _moment(_date(found[1]) if found[1] else day, found[2], found[3])
    if found[4]:
        closes = _moment(_date(found[4]), found[5], found[6])
    else:
        closes = _moment(day, found[5], found[6])
        if opens >= closes:
            opens -= timedelta(days=1)  # of the evening before
    if not opens < closes <= opens + timedelta(days=8):
        raise UnreadableHours(f"{text!r} ends before it begins")
    return opens, closes


def _date(digits: str) -> date:
    try:
        return datetime.strptime(digits, "%Y%m%d").date()
    except ValueError:
        raise UnreadableHours(f"{digits!r} is no date") from None


def _moment(day: date, hour: str, minute: str) -> datetime:
    if int(hour) > 24 or int(minute) > 59:
        raise UnreadableHours(f"{hour}{minute} is no time")
    return datetime.combine(day, time()) + timedelta(hours=int(hour), minutes=int(minute))


def _unix_ms(wall: datetime, zone: ZoneInfo) -> int:
    return int(wall.replace(tzinfo=zone).timestamp()) * 1000


def merged(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same time in as few spans as can be, in order."""
    found: list[tuple[int, int]] = []
    for opens, closes in sorted(spans):
        if found and opens <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], closes)
        else:
            found.append((opens, closes))
    return tuple(found)


def time_zone(name: str) -> ZoneInfo:
    """The zone of a timeZoneId, such as `US/Eastern`, `EST (Eastern Standard Time)`, `Japan` or `MET`.

    Raises UnreadableHours.
    """
    short, _, words = name.partition("(")
    key = short.strip()
    for (same, word), zone in _SAME_SHORT_NAME.items():
        if key == same and word in words.lower():
            return ZoneInfo(zone)
    try:
        return ZoneInfo(_ZONES.get(key, key))
    except (ValueError, OSError, LookupError):  # ZoneInfoNotFoundError is a KeyError
        raise UnreadableHours(f"{name!r} is no time zone") from None


def calendar_hours(calendar: str, now: int) -> MarketHours:
    """The sessions of an exchange_calendars calendar around `now`. Raises ConfigurationError for an unknown one."""
    around = datetime.fromtimestamp(now / 1000, timezone.utc)
    spans = TradingHours(calendar, around).spans
    known_until = now + 7 * _DAY_MS
    return MarketHours(calendar, merged(spans), known_until)
