"""Which markets are open: a week of four markets, hours that go stale, that can't be read, that are not listed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from ibkr_depth_pipeline.hours.instruments import MarketHours
from ibkr_depth_pipeline.ingest.open_markets import FRESH_MS, MarketChange, OpenMarkets, by_reopening
from ibkr_depth_pipeline.model import ContractHours, Instrument

DAYS = 14


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp() * 1000)


def stock(symbol: str, liquid: str, zone: str = "US/Eastern", trading: str = "", sec_type: str = "STK") -> Instrument:
    hours = ContractHours(trading or liquid, liquid, zone)
    return Instrument(symbol, 1, sec_type, "USD", "X", "X", hours=hours)


def days_from(first: str, *spans: tuple[str, str], overnight: bool = False) -> str:
    """Monday to Friday; overnight: each session begins on the evening before."""
    entries = []
    day = datetime.fromisoformat(first)
    for at in (day + timedelta(days=offset) for offset in range(DAYS)):
        if at.weekday() >= 5:
            entries.append(f"{at:%Y%m%d}:CLOSED")
        for opens, closes in spans if at.weekday() < 5 else ():
            begins = at - timedelta(days=1) if overnight else at
            entries.append(f"{begins:%Y%m%d}:{opens}-{at:%Y%m%d}:{closes}")
    return ";".join(entries)


def no_calendar(now: int) -> MarketHours:
    raise AssertionError("the calendar is not needed")


def four_markets(first: str) -> OpenMarkets:
    markets = OpenMarkets(no_calendar)
    now = ms(f"{first}T00:00")
    tokyo = days_from(first, ("0900", "1130"), ("1230", "1530"))
    future = days_from(first, ("1700", "1600"), overnight=True)
    pair = days_from(first, ("1715", "1700"), overnight=True)
    markets.resolved(stock("AAPL", days_from(first, ("0930", "1600"))), now)
    markets.resolved(stock("ES", days_from(first, ("0830", "1600")), "US/Central", future, "FUT"), now)
    markets.resolved(stock("EUR.USD", pair, "US/Eastern", sec_type="CASH"), now)
    markets.resolved(stock("7203", tokyo, "Japan"), now)
    return markets


def test_week_of_four_markets_opens_and_closes_as_each_has_it() -> None:
    for first, sunday in (("2026-03-02", "2026-03-08"), ("2026-10-26", "2026-11-01"), ("2027-03-08", "2027-03-14")):
        markets = four_markets(first)
        changes: list[tuple[int, MarketChange]] = []
        start = ms(f"{first}T12:00")
        markets.changes(start)
        for minute in range(0, 8 * 24 * 60, 5):
            now = start + minute * 60_000
            changes += [(now, change) for change in markets.changes(now)]
            for symbol in ("AAPL", "ES", "EUR.USD", "7203"):
                until = markets.closed_until(symbol, now)
                assert until == 0 or until > now
        opens = {
            symbol: [at for at, change in changes if change.symbol == symbol and not change.closed_until]
            for symbol in ("AAPL", "ES", "EUR.USD", "7203")
        }
        local = [datetime.fromtimestamp(at / 1000, ZoneInfo("America/New_York")) for at in opens["AAPL"]]
        assert {(at.hour, at.minute) for at in local} == {(9, 30)}
        assert len(local) == 6
        tokyo = [datetime.fromtimestamp(at / 1000, ZoneInfo("Asia/Tokyo")) for at in opens["7203"]]
        assert {(at.hour, at.minute) for at in tokyo} == {(9, 0), (12, 30)}
        chicago = [datetime.fromtimestamp(at / 1000, ZoneInfo("America/Chicago")) for at in opens["ES"]]
        assert {(at.hour, at.minute) for at in chicago} == {(17, 0)}
        assert sunday in {at.date().isoformat() for at in chicago}, "it opens on Sunday, on the day the clock changes"
        assert len(opens["EUR.USD"]) == 6


def test_hours_of_the_entry_count_and_change_with_it() -> None:
    markets = OpenMarkets(no_calendar)
    day = "20261127:0930-20261127:1300;20261130:CLOSED"
    markets.wish("ES", "liquid")
    markets.resolved(stock("ES", day, trading="20261127:0400-20261127:2000;20261130:CLOSED", sec_type="FUT"), 0)
    evening = ms("2026-11-27T23:00")
    assert markets.closed_until("ES", evening) > 0
    markets.wish("ES", "trading")
    assert markets.closed_until("ES", evening) == 0
    markets.wish("ES", "always")
    assert markets.closed_until("ES", ms("2026-11-28T12:00")) == 0
    assert markets.label("ES", evening) == "always"


def test_hours_are_asked_for_anew_each_day_and_rarely_if_no_answer_comes() -> None:
    markets = OpenMarkets(no_calendar)
    markets.resolved(stock("A", "20261127:0930-20261127:1300"), 0)
    assert markets.stale(FRESH_MS - 1) == []
    assert markets.stale(FRESH_MS) == ["A"]
    assert markets.stale(FRESH_MS + 1000) == []
    assert markets.stale(FRESH_MS + 3_600_000) == ["A"]
    markets.resolved(stock("A", "20261127:0930-20261127:1300"), FRESH_MS + 3_700_000)
    assert markets.stale(FRESH_MS + 3_800_000) == []


def test_calendar_counts_for_a_symbol_without_readable_hours() -> None:
    holiday = MarketHours("XNYS", ((ms("2026-11-27T14:30"), ms("2026-11-27T18:00")),), ms("2026-12-03T00:00"))
    markets = OpenMarkets(lambda now: holiday)
    now = ms("2026-11-26T15:00")
    assert markets.resolved(stock("A", "gibberish"), now) != ""
    assert markets.resolved(stock("A", "gibberish"), now) == "", "it is told once"
    assert markets.resolved(stock("C", ""), now) != ""
    markets.resolved(stock("B", "20261126:0000-20261127:0000"), now)
    assert markets.closed_until("B", now) == 0
    assert markets.closed_until("C", now) == ms("2026-11-27T14:30")
    markets.wish("C", "always")
    assert markets.closed_until("C", now) == 0
    assert markets.closed_until("A", now) == ms("2026-11-27T14:30")
    assert markets.label("A", now) == "XNYS"


def test_changes_name_each_market_once_and_group_by_the_open() -> None:
    markets = OpenMarkets(no_calendar)
    for symbol in ("A", "B"):
        markets.resolved(stock(symbol, "20261127:0930-20261127:1300;20261128:CLOSED"), 0)
    before, opens = ms("2026-11-27T10:00"), ms("2026-11-27T14:30")
    changes = markets.changes(before)
    assert by_reopening(changes) == {opens: ["A", "B"]}
    assert markets.changes(before) == []
    markets.forget("B")
    assert markets.changes(opens) == [MarketChange("A", 0)]


def test_session_is_over_once_no_market_opens_again_soon() -> None:
    markets = four_markets("2026-03-02")
    over = []
    for minute in range(0, 6 * 24 * 60, 5):
        now = ms("2026-03-02T12:00") + minute * 60_000
        markets.changes(now)
        if markets.has_closed(now):
            over.append(datetime.fromtimestamp(now / 1000, ZoneInfo("America/New_York")))
    assert f"{over[0]:%a %H:%M}" == "Fri 17:00", "as the pair closes; no pause of the week is its end"


def test_session_that_has_not_begun_is_not_over_nor_is_one_with_an_unknown_contract() -> None:
    markets = OpenMarkets(no_calendar)
    hours = stock("A", "20261127:0930-20261127:1300;20261128:CLOSED")
    for moment in ("2026-11-27T13:00", "2026-11-27T14:00"):
        markets.resolved(hours, ms(moment))
        markets.changes(ms(moment))
        assert not markets.has_closed(ms(moment)), "it opens at 14:30"
    open_at, closed_at = ms("2026-11-27T15:00"), ms("2026-11-27T18:00")
    markets.changes(open_at)
    assert not markets.has_closed(open_at)
    markets.wish("B", None)
    markets.changes(closed_at)
    assert not markets.has_closed(closed_at), "nothing is known of B"
    markets.forget("B")
    assert markets.has_closed(closed_at)


def test_early_close_that_was_announced_later_ends_the_session() -> None:
    markets = OpenMarkets(no_calendar, fresh_ms=60_000)
    now = ms("2026-11-27T15:00")
    markets.resolved(stock("A", "20261127:0930-20261127:1600;20261128:CLOSED"), now)
    markets.changes(now)
    assert not markets.has_closed(now)
    assert markets.stale(now + 60_000) == ["A"]
    now += 61_000
    markets.resolved(stock("A", "20261127:0930-20261127:1001;20261128:CLOSED"), now)
    markets.changes(now)
    assert markets.has_closed(now)
