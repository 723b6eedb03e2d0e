"""The tradingHours and liquidHours of contract details, as a gateway writes them. Pure.

`20240603:0930-20240603:1600;20240608:CLOSED;...`, in the contract's own time zone, for six days from today on. Sessions
that begin on the evening before stand with both dates; a break at noon makes two sessions. Holidays are not known here:
where they matter, the option `hours` says what a gateway would.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from ibkr_depth_pipeline.simulation.listings import Listing

_DAYS = 6
_SATURDAY = 5


def hours_of(listing: Listing, now: float) -> tuple[str, str]:
    """Trading and liquid hours of the listing at the unix time `now`."""
    today = datetime.fromtimestamp(now, ZoneInfo(listing.time_zone)).date()
    days = [today + timedelta(days=offset) for offset in range(_DAYS)]
    if listing.sec_type == "CASH":
        return _overnight(days, "1715", "1700"), _overnight(days, "1715", "1700")
    if listing.sec_type in ("FUT", "CONTFUT"):
        return _overnight(days, "1700", "1600"), _daily(days, ("0830", "1600"))
    if listing.primary_exchange == "TSEJ":
        return _daily(days, ("0900", "1130"), ("1230", "1530")), _daily(days, ("0900", "1130"), ("1230", "1530"))
    if listing.sec_type in ("OPT", "IND"):
        return _daily(days, ("0930", "1615")), _daily(days, ("0930", "1615"))
    if listing.time_zone == "MET":
        return _daily(days, ("0900", "1730")), _daily(days, ("0900", "1730"))
    return _daily(days, ("0400", "2000")), _daily(days, ("0930", "1600"))


def around_the_clock(listing: Listing, now: float) -> str:
    """Hours without an end, in the listing's own time zone."""
    today = datetime.fromtimestamp(now, ZoneInfo(listing.time_zone)).date()
    days = [today + timedelta(days=offset) for offset in range(-1, _DAYS)]
    return ";".join(f"{day:%Y%m%d}:0000-{day + timedelta(days=1):%Y%m%d}:0000" for day in days)


def closed_at(listing: Listing, close: float) -> str:
    """Hours whose session closes in the minute of that unix time; the next one opens on the day after the next."""
    end = datetime.fromtimestamp(close, ZoneInfo(listing.time_zone))
    begin, opens = end.date() - timedelta(days=1), end.date() + timedelta(days=2)
    days = [opens + timedelta(days=offset) for offset in range(_DAYS)]
    later = [f"{day:%Y%m%d}:0000-{day + timedelta(days=1):%Y%m%d}:0000" for day in days]
    return ";".join([f"{begin:%Y%m%d}:0000-{end:%Y%m%d:%H%M}", *later])


def _daily(days: Iterable[date], *sessions: tuple[str, str]) -> str:
    """Sessions that begin and end on the same day, from Monday to Friday."""
    texts = []
    for day in days:
        if day.weekday() >= _SATURDAY:
            texts.append(f"{day:%Y%m%d}:CLOSED")
        else:
            texts += [f"{day:%Y%m%d}:{opening}-{day:%Y%m%d}:{closing}" for opening, closing in sessions]
    return ";".join(texts)


def _overnight(days: Iterable[date], opening: str, closing: str) -> str:
    """Sessions that begin on the evening before, from Sunday to Friday: each stands under the day on which it ends."""
    texts = []
    for day in days:
        if day.weekday() >= _SATURDAY:
            texts.append(f"{day:%Y%m%d}:CLOSED")
        else:
            texts.append(f"{day - timedelta(days=1):%Y%m%d}:{opening}-{day:%Y%m%d}:{closing}")
    return ";".join(texts)
