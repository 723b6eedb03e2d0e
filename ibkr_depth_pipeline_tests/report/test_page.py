"""The page of a day: its numbers are the archive's, it needs no network, and nothing on it is anybody's markup."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import orjson
import pytest

from ibkr_depth_pipeline.archive.layout import gap_place
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.parquet_schema import gap_bytes
from ibkr_depth_pipeline.archive.reading import SpannedFile, files_of
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import ArchiveUnavailable, ConfigurationError, NothingKept
from ibkr_depth_pipeline.report.lanes import alert_lanes, slot_lanes
from ibkr_depth_pipeline.report.view import MOST_ALERTS, MOST_GAPS
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import StreamId, stream_key
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON, Desk, Mirror, book
from ibkr_depth_pipeline_tests.report.conftest import OPEN, Page, Report
from ibkr_depth_pipeline_tests.report.made_up import keep_figures

RUN = RunIdentity("run-1", "a-host", 77, OPEN)
EVIL = "<script>alert('x')</script>&\""


def an_hour(mirror: Mirror, desk: Desk, *symbols: str) -> None:
    """A snapshot every second of the first hour of the session."""
    for symbol in symbols:
        mirror.write(symbol, range(1, 3602), start=OPEN, every=1000)
    desk.keep()


def publish(desk: Desk, *states: FeedFigures) -> None:
    keep_figures(desk.store, states)


def test_numbers_on_the_page_are_those_of_the_day(mirror: Mirror, desk: Desk, report: Report) -> None:
    an_hour(mirror, desk, "SPY", "BRK B")
    written, page = report()
    assert page.fact("snapshots") == ("7,202", "of 2 symbols")
    assert page.fact("rows a second") == ("2", "at most 2")
    assert page.fact("coverage") == ("100.0%", "15% of the session recorded")  # one hour of six and a half
    assert page.fact("missing snapshots") == ("0", "in 0 holes")
    assert "Monday, 5 January 2026" in page.text
    covered = "what was recorded, 14:30:00 to 15:30:00 UTC, of the session of XNYS, 14:30:00 to 21:00:00 UTC"
    assert covered in page.text
    assert "Not a good day: only 15% of the session of XNYS was recorded." in page.texts
    line = page.line("BRK B")
    assert line[:3] == ["BRK B", "ISLAND", "3,601"]
    assert line[4:8] == ["100.0%", "0 ms", "0", "0.01 1.0 bp"]
    assert page.texts.count("The book of BRK B") == page.texts.count("The book of SPY") == 1
    assert "every snapshot that was numbered is in the archive" in page.text
    assert (written.bytes, written.day.snapshots) == (len(page.html.encode()), 7202)


def test_page_stands_beside_the_archive_unless_a_path_is_given(
    mirror: Mirror, desk: Desk, report: Report, tmp_path: Path
) -> None:
    an_hour(mirror, desk, "SPY")
    written, page = report()
    assert Path(written.path) == Path(desk.settings.archive_url) / "reports" / "2026-01-05.html"
    elsewhere, same = report(output=tmp_path / "page.html")
    assert elsewhere.path == str(tmp_path / "page.html")
    assert same.html == page.html
    with pytest.raises(ConfigurationError, match=r"nowhere/page\.html can't be written"):
        report(output=tmp_path / "nowhere" / "page.html")


def test_page_is_one_file_that_loads_nothing(mirror: Mirror, desk: Desk, report: Report) -> None:
    an_hour(mirror, desk, "SPY")
    publish(desk, FeedFigures(RUN, OPEN, lag_p50_ms=1.0, lag_p99_ms=2.0))
    _, page = report()
    assert page.addresses == []
    assert not {"link", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"https?:|@import|^import |url\(", page.html, re.MULTILINE)


def test_compacted_day_has_the_same_page(mirror: Mirror, desk: Desk, report: Report) -> None:
    an_hour(mirror, desk, "SPY", "QQQ")
    publish(desk, FeedFigures(RUN, OPEN + 2000, connected=True), FeedFigures(RUN, OPEN + 4000, connected=True))
    before = report()[1].html
    compact_day(desk.store, DAY)
    assert report()[1].html == before


def test_page_is_the_same_if_a_compaction_happens_during_the_reading(
    mirror: Mirror, desk: Desk, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_hour(mirror, desk, "SPY", "QQQ")
    before = report()[1].html

    def list_and_compact(store: ArchiveStore, day: date, symbol: str) -> list[SpannedFile]:
        listed = files_of(store, day, symbol)
        compact_day(store, day)
        return listed

    monkeypatch.setattr("ibkr_depth_pipeline.report.day.files_of", list_and_compact)
    assert report()[1].html == before


def test_files_that_vanish_again_and_again_are_a_clear_error(
    mirror: Mirror, desk: Desk, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_hour(mirror, desk, "SPY")
    listed = files_of(desk.store, DAY, "SPY")
    monkeypatch.setattr("ibkr_depth_pipeline.report.day.files_of", lambda *asked: listed)
    compact_day(desk.store, DAY)
    with pytest.raises(ArchiveUnavailable, match="files of 2026-01-05 vanish while they are read"):
        report()


def test_names_from_outside_are_text_and_never_markup(mirror: Mirror, desk: Desk, report: Report) -> None:
    bids, asks = map(orjson.dumps, book(1))
    fields = {"bids": bids, "asks": asks, "venue": EVIL}
    mirror.redis.xadd(stream_key("A&B"), fields, id=f"{OPEN}-1")
    mirror.redis.xadd(stream_key("A&B"), fields, id=f"{OPEN + 1000}-2")
    desk.keep()
    odd = SymbolFigures(dropped={EVIL: 1})
    publish(desk, FeedFigures(replace(RUN, run_id=EVIL, host=EVIL), OPEN, symbols={EVIL: odd}))
    _, page = report(symbols=["A&B"])
    assert "<script>alert" not in page.html
    assert page.tags.count("script") == 1
    assert page.line("A&B")[1] == EVIL
    assert page.line(EVIL)[1] == f"{EVIL}, 77"
    assert page.line(EVIL)[-1] == f"1 {EVIL}"
    assert f"Nothing is kept of {EVIL}, which an ingest was to record" in page.text


def test_page_without_figures_notes_it_and_draws_no_zeros(mirror: Mirror, desk: Desk, report: Report) -> None:
    an_hour(mirror, desk, "SPY")
    _, page = report()
    assert page.fact("309s, reconnects, latency") == ("unknown", "no figures were kept")
    assert "No figures of an ingest were kept of this date" in page.text
    for word in ("Errors 309", "Connection", "slot held", "99th percentile", "reconnects 0"):
        assert word not in page.text


def test_page_shows_the_figures_of_the_ingest(mirror: Mirror, desk: Desk, report: Report) -> None:
    an_hour(mirror, desk, "SPY")
    told = [(0, False, 0, 0), (2000, True, 2, 0), (4000, True, 2, 1), (6000, True, 3, 1)]
    symbols = {"SPY": SymbolFigures(rows=12, snapshots=12), "QQQ": SymbolFigures()}
    states = [
        FeedFigures(
            RUN,
            OPEN + at,
            ended_ts=OPEN + at if at == 6000 else 0,
            connected=connected,
            connections=again + 1,
            reconnects=again,
            refused_309=refused,
            lag_p50_ms=2.0,
            lag_p99_ms=40.0,
            symbols=symbols,
        )
        for at, connected, refused, again in told
    ]
    publish(desk, *states)
    _, page = report()
    assert page.fact("errors 309") == ("3", "slots refused")
    assert page.fact("reconnects") == ("1", "0 snapshots lost")
    assert page.fact("latency p99, usually") == ("40 ms", "at worst 40 ms")
    assert page.line("run-1") == ["run-1", "a-host, 77", "14:30:00", "14:30:06", "12", "2", "3", "0", "none"]
    assert page.texts[page.texts.index("Connection") + 1] == "66.7%"
    assert "Nothing is kept of QQQ, which an ingest was to record" in page.text
    assert "No figures" not in page.text


def test_holes_are_listed_and_many_are_cut_short(mirror: Mirror, desk: Desk, report: Report) -> None:
    mirror.write("SPY", [1, 2, 5, 6], start=OPEN, every=1000)
    desk.keep()
    _, page = report()
    assert page.line("SPY", "3 to 4") == ["SPY", "3 to 4", "2", "14:30:01", "14:30:02", "never stored"]
    assert page.line("SPY", "ISLAND")[6] == "2"
    row = {"first_seq": 1, "last_seq": 1, "after_ts": OPEN, "before_ts": OPEN, "reason": "trimmed"}
    for number in range(MOST_GAPS + 2):
        place = gap_place("SPY", DAY, StreamId(OPEN + number, number))
        desk.store.put(place, gap_bytes([row | {"after_ts": OPEN + number, "before_ts": OPEN + number + 1}]))
    _, page = report()
    assert len([line for line in page.lines if line[-1] == "trimmed"]) + 1 >= MOST_GAPS
    assert "And 3 more: ibkr_depth_archive holes 2026-01-05" in page.text


def test_books_asked_for_are_drawn_and_no_other(mirror: Mirror, desk: Desk, report: Report) -> None:
    mirror.write("SPY", range(1, 101), start=OPEN, every=1000)
    mirror.write("QQQ", range(1, 11), start=OPEN, every=1000)
    desk.keep()
    assert "The book of SPY" in report()[1].text
    _, page = report(symbols=["QQQ", "QQQ"])
    assert page.text.count("The book of QQQ") == 1
    assert "The book of SPY" not in page.text
    with pytest.raises(
        ConfigurationError, match="nothing is kept of 'spy' on 2026-01-05; of that date there are QQQ, SPY"
    ):
        report(symbols=["spy"])


def test_day_outside_of_any_session_is_covered_from_first_to_last(mirror: Mirror, desk: Desk, report: Report) -> None:
    mirror.write("SPY", range(1, 62), start=NOON, every=1000)  # before the open
    desk.keep()
    _, page = report()
    assert page.fact("coverage")[0] == "100.0%"
    assert "what was recorded, 12:00:00 to 12:01:00 UTC" in page.text


def test_coverage_of_a_running_session_is_of_what_has_passed(mirror: Mirror, desk: Desk, report: Report) -> None:
    an_hour(mirror, desk, "SPY")
    now = datetime(2026, 1, 5, 16, 30, tzinfo=timezone.utc)
    _, page = report("today", now=now)
    assert page.fact("coverage") == ("100.0%", "50% of the session recorded")
    assert "of the session of XNYS so far, 14:30:00 to 16:30:00 UTC" in page.text
    assert "close" not in page.texts


def test_spread_that_leaves_the_chart_is_named(mirror: Mirror, desk: Desk, report: Report) -> None:
    for number in range(1, 102):
        bid = 90.0 if number == 50 else 100.0
        fields = {"bids": side(bid), "asks": side(100.25), "venue": "ARCA"}
        mirror.redis.xadd(stream_key("SPY"), fields, id=f"{OPEN + 60_000 * number}-{2 * number - 1}")
        mirror.redis.xadd(stream_key("SPY"), fields, id=f"{OPEN + 60_000 * number + 5000}-{2 * number}")
    desk.keep()
    assert "price; cut off at the top, it reached 10.25" in report()[1].text


def side(price: float) -> bytes:
    return orjson.dumps([[price, 1.0, ""], *[[0.0, 0.0, ""]] * 9])


def test_open_and_close_are_marked_where_more_was_recorded(mirror: Mirror, desk: Desk, report: Report) -> None:
    mirror.write("SPY", range(1, 4), start=OPEN - 60_000, every=12_000_000)  # the last one after the close
    desk.keep()
    _, page = report()
    assert {"open", "close"} <= set(page.texts)


def test_rate_of_the_session_leaves_out_rows_outside_of_it(mirror: Mirror, desk: Desk, report: Report) -> None:
    mirror.write("SPY", range(1, 5001), start=OPEN - 6_000_000, every=1000)
    mirror.write("SPY", range(5001, 9681), start=OPEN, every=5000)  # until the close
    desk.keep()
    assert report()[1].fact("rows a second") == ("0.2", "at most 1")


def test_single_snapshot_is_a_day(mirror: Mirror, desk: Desk, report: Report) -> None:
    mirror.write("SPY", [1], start=OPEN)
    desk.keep()
    assert report()[1].fact("snapshots") == ("1", "of 1 symbols")


def test_day_of_empty_books_has_no_picture_of_depth(mirror: Mirror, desk: Desk, report: Report) -> None:
    nothing = orjson.dumps([[0.0, 0.0, ""]] * 10)
    for number in (1, 2):
        fields = {"bids": nothing, "asks": nothing, "venue": "ARCA"}
        mirror.redis.xadd(stream_key("SPY"), fields, id=f"{OPEN + number}-{number}")
    desk.keep()
    _, page = report()
    assert "The book of" not in page.text
    assert page.line("SPY")[7] == "none"


def test_day_of_which_nothing_is_kept_is_an_error_that_names_the_kept_days(
    mirror: Mirror, desk: Desk, report: Report
) -> None:
    with pytest.raises(NothingKept, match="nothing is kept of 2026-01-05; it holds no snapshot at all"):
        report()
    an_hour(mirror, desk, "SPY")
    with pytest.raises(NothingKept, match="2026-01-06; what is kept lies between 2026-01-05 and 2026-01-05"):
        report(str(DAY + timedelta(days=1)))
    assert not (Path(desk.settings.archive_url) / "reports" / "2026-01-06.html").exists()


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "20260105", ""])
def test_malformed_date_is_refused(report: Report, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not allowed; a UTC date such as 2026-01-05, or today"):
        report(text)


def test_figures_of_a_day_without_snapshots_are_no_day(desk: Desk, report: Report) -> None:
    publish(desk, FeedFigures(RUN, OPEN))
    with pytest.raises(NothingKept):
        report()


def test_page_taken_apart_is_what_was_written() -> None:
    page = Page("<p>a</p><table><tr><td>b<small>c</small></td><td>d</td></tr></table><style>e</style>")
    assert (page.text, page.lines) == ("a b c d", [["b c", "d"]])


def test_part_of_the_day_is_shown_alone(mirror: Mirror, desk: Desk, report: Report) -> None:
    mirror.write("SPY", [*range(1, 601), *range(701, 3602)], start=OPEN, every=1000)
    desk.keep()
    _, page = report(since="15:00", until="15:10:30")
    assert "what was recorded, 15:00:00 to 15:10:30 UTC" in page.text
    assert page.fact("missing snapshots") == ("0", "in 0 holes")
    assert page.fact("rows a second")[0] == "1"
    _, whole = report()
    assert whole.fact("missing snapshots") == ("100", "in 1 holes")
    assert "100 snapshots are missing, in 1 holes" in whole.text
    assert "snapshots missing" in whole.texts  # the legend of the lanes


@pytest.mark.parametrize(
    ("since", "until", "named"),
    [
        ("25:00", "", "--from '25:00'"),
        ("", "noon", "--to 'noon'"),
        ("15:00", "14:00", "not before"),
        ("9:75", "", "9:75"),
    ],
)
def test_part_that_is_none_is_refused_by_name(
    mirror: Mirror, desk: Desk, report: Report, since: str, until: str, named: str
) -> None:
    an_hour(mirror, desk, "SPY")
    with pytest.raises(ConfigurationError, match=named):
        report(since=since, until=until)
    with pytest.raises(NothingKept, match="what is kept is from 14:30:00 to 15:30:00 UTC"):
        report(since="20:00")


def test_few_minutes_of_a_market_around_the_clock_fill_the_page(mirror: Mirror, desk: Desk, report: Report) -> None:
    mirror.write("SPY", range(1, 481), start=OPEN, every=1000)
    desk.keep()
    written, page = report(calendar="24/7")
    assert written.day.bins.end - written.day.bins.start <= 481_000
    assert page.fact("coverage") == ("100.0%", "mean of the symbols")
    assert "A good day: no snapshot is missing, and recorded from 14:30:00 to 14:37:59 UTC." in page.texts


def test_day_that_was_not_good_says_why_in_one_sentence(mirror: Mirror, desk: Desk, report: Report) -> None:
    an_hour(mirror, desk, "SPY")
    wanted = {"SPY": SymbolFigures(), "QQQ": SymbolFigures()}
    publish(
        desk,
        FeedFigures(RUN, OPEN, connected=False, symbols=wanted),
        FeedFigures(RUN, OPEN + 10_000, connected=False, refused_309=2, lost=7, symbols=wanted),
    )
    _, page = report()
    (sentence,) = [text for text in page.texts if text.startswith("Not a good day: ")]
    for part in ("nothing is kept of QQQ", "without its gateway or IBKR for 10 s", "7 snapshots were lost", "2 slots"):
        assert part in sentence


def test_alerts_are_listed_marked_and_part_of_the_verdict(mirror: Mirror, desk: Desk, report: Report) -> None:
    an_hour(mirror, desk, "SPY")
    for at, kind, title in (
        (OPEN + 60_000, AlertKind.TROUBLE, "IBKR depth <i>default</i>: feed stale"),
        (OPEN + 90_000, AlertKind.RECOVERY, "IBKR depth default: recovered"),
        (OPEN + 2 * 86_400_000, AlertKind.TROUBLE, "of another day"),
    ):
        mirror.write_alert(Alert(at, kind, "gateway", title, "line 1\nline 2"))
    desk.keep()
    written, page = report()
    assert page.line("14:31:00") == ["14:31:00", "IBKR depth <i>default</i>: feed stale", "line 1 line 2"]
    assert page.line("14:31:30")[1] == "IBKR depth default: recovered"
    assert "of another day" not in page.html
    assert page.fact("alerts") == ("1", "of trouble")
    assert "an alert was raised" in page.text
    (lane,) = alert_lanes(written.day)
    assert [(mark.at, mark.severity) for mark in lane.marks] == [(OPEN + 60_000, "bad"), (OPEN + 90_000, "good")]


def test_many_alerts_are_cut_short(mirror: Mirror, desk: Desk, report: Report) -> None:
    an_hour(mirror, desk, "SPY")
    for number in range(MOST_ALERTS + 5):
        mirror.write_alert(Alert(OPEN + number, AlertKind.TROUBLE, "gateway", f"alert {number}", ""))
    desk.keep()
    _, page = report()
    assert "And 5 more: ibkr_depth_archive alerts 2026-01-05" in page.text
    assert f"{MOST_ALERTS + 5} alerts were raised" in page.text


def test_turns_of_a_day_that_has_too_many_are_shown_by_bins(
    mirror: Mirror, desk: Desk, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.write("SPY", range(1, 301), start=OPEN, every=1000)
    for number in range(300):
        at = OPEN + number * 1_000
        seqs = {"first_seq": number + 1, "last_seq": number + 1}
        turn = SubscriptionInterval("SPY", number + 1, "ISLAND", requested=at, first_row=at + 9, until=at + 900, **seqs)
        mirror.write_interval(replace(turn, end=EndReason.TURN_OVER), at + 900)
    desk.keep()
    written, page = report()
    (lane,) = slot_lanes(written.day)
    assert list(lane.turns[4:12]) == [100, 9, 891, 0] * 2
    assert len(lane.data) < 300 * 20
    assert "to the millisecond, as on record" in page.text
    monkeypatch.setattr("ibkr_depth_pipeline.report.lanes.MOST_TURNS", 299)
    (lane,) = slot_lanes(written.day)
    assert list(lane.turns) == []
