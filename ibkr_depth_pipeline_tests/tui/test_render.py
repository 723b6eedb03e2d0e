"""What `ibkr_depth_watch` shows: states, ladders, a frame that fits, keys. No terminal, no Redis."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from ibkr_depth_pipeline.reader import DepthSnapshot
from ibkr_depth_pipeline.schema.health import HealthReport, IngestHealth, SymbolHealth, SymbolState
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures
from ibkr_depth_pipeline.tui.keyboard import after_key, split_keys
from ibkr_depth_pipeline.tui.render import LADDER_LINES, View, frame, ladder
from ibkr_depth_pipeline.tui.state import Liveness, StreamReadings, WatchState, watch_state

NOW = 1_700_000_000_000
RUN_MS = 60_000
SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "MSFT", "GOOGL", "AMZN", "META", "NVDA", "TSLA")


def book(symbol: str, levels: int = 10) -> DepthSnapshot:
    def side(best: float, step: float) -> bytes:
        shown = [[round(best + step * row, 2), 100.0 * (row + 1), "ARCA"] for row in range(levels)]
        return orjson.dumps(shown + [[0.0, 0.0, ""]] * (10 - levels))

    return DepthSnapshot(symbol, NOW, 42, "ARCA", side(100.0, -0.01), side(100.02, 0.01))


def health(state: SymbolState = SymbolState.FRESH, *, subscribed: bool = True, age: float = 0.5) -> HealthReport:
    """A run that published its figures a second ago."""
    figures = SymbolFigures(subscribed=subscribed, snapshots=5, live_ms=RUN_MS // 4)
    last = NOW - round(age * 1000)
    ttl = 30.0 if state is SymbolState.FRESH else None
    symbols = tuple(SymbolHealth(symbol, state, last, age, ttl, "ARCA", "", figures) for symbol in SYMBOLS)
    run = RunIdentity("run", "host", 1, NOW - 1_000 - RUN_MS)
    published = {each.symbol: each.figures for each in symbols}
    feed = FeedFigures(run, NOW - 1_000, connected=True, batch_size=3, symbols=published)
    return HealthReport(NOW, IngestHealth("default", True, 10.0, "", feed), symbols)


def state_of(report: HealthReport | None = None) -> WatchState:
    streams = StreamReadings(
        books={symbol: book(symbol) for symbol in SYMBOLS},
        rates=dict.fromkeys(SYMBOLS, 123.4),
    )
    return watch_state(report or health(), streams)


def texts(state: WatchState, view: View, width: int = 80, height: int | None = 24) -> list[str]:
    return [line.plain for line in frame(state, view, width, height)]


@pytest.mark.parametrize(
    ("state", "subscribed", "shown"),
    [
        (SymbolState.FRESH, True, Liveness.LIVE),
        (SymbolState.FRESH, False, Liveness.WAIT),
        (SymbolState.STALE, False, Liveness.STALE),
        (SymbolState.STALE, True, Liveness.STALE),
        (SymbolState.MISSING, False, Liveness.NONE),
        (SymbolState.UNSUPPORTED, False, Liveness.UNSUPPORTED),
    ],
)
def test_each_symbol_state_has_its_liveness(state: SymbolState, subscribed: bool, shown: Liveness) -> None:
    line = state_of(health(state, subscribed=subscribed, age=20.0)).line("SPY")
    assert line is not None
    assert line.liveness is shown


def test_figures_alone_say_who_holds_a_slot_whatever_rows_have_come_since() -> None:
    report = health(subscribed=False, age=20.0)
    spy, *rest = report.symbols
    holders = [replace(each, figures=SymbolFigures(subscribed=True)) for each in rest[:3]]
    report = replace(report, symbols=(replace(spy, last_row_ts=NOW), *holders, *rest[3:]))
    expected = [each.symbol for each in holders]
    assert [line.symbol for line in state_of(report).lines if line.holds_slot] == expected


def test_book_with_recent_rows_is_live_without_figures() -> None:
    report = health(age=1.0)
    report = replace(report, feed=replace(report.feed, figures=None, running=False))
    line = state_of(report).line("SPY")
    assert line is not None
    assert line.liveness is Liveness.LIVE
    assert not line.holds_slot


def test_default_universe_and_a_ladder_fit_into_eighty_by_twenty_four() -> None:
    lines = texts(state_of(), View("SPY"))
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("SPY ARCA live")
    assert [line.split()[0].strip(">") for line in lines[13:23]] == list(SYMBOLS)
    assert lines[-1].startswith("q quit")


@pytest.mark.parametrize(("width", "height"), [(40, 10), (80, 5), (80, 24), (120, 40), (200, 60), (60, 2), (80, 1)])
def test_frame_is_never_larger_than_the_terminal(width: int, height: int) -> None:
    lines = frame(state_of(), View("AAPL", pinned=SYMBOLS), width, height)
    assert len(lines) == height
    for line in lines:
        line.truncate(width)  # as the console crops
        assert line.cell_len <= width


def test_pinned_ladders_stand_side_by_side_if_there_is_room() -> None:
    lines = texts(state_of(), View("SPY", pinned=("SPY", "QQQ", "AAPL")), 120, 40)
    assert "SPY ARCA live" in lines[1]
    assert "QQQ ARCA live" in lines[1]
    assert lines[1 + LADDER_LINES].startswith("AAPL ARCA live")
    assert len([line for line in lines if line.startswith((" ", ">")) and line[1:].startswith(SYMBOLS)]) == 10


def test_selected_symbol_stays_visible_in_a_long_universe() -> None:
    lines = texts(state_of(), View("TSLA"), 80, 18)
    assert any(line.startswith(">TSLA") for line in lines)
    assert lines[1].startswith("TSLA")


def test_stale_book_looks_stale_without_colours() -> None:
    live, stale = texts(state_of(), View("SPY")), texts(state_of(health(SymbolState.STALE, age=200.0)), View("SPY"))
    assert "█" in live[2]
    assert "█" not in "".join(stale)
    assert "░" in stale[2]
    assert "STALE, don't trust it, 3 min old" in stale[1]
    assert all("STALE" in line for line in stale[13:23])


def test_symbols_are_unknown_and_age_while_redis_is_unreachable() -> None:
    away = state_of().aged(NOW + 10_000, "Redis at host: refused")
    lines = texts(away, View("SPY"))
    assert lines[0].startswith("NO REDIS")
    assert "Redis at host: refused" in lines[0]
    assert "UNKNOWN, Redis is away, 10.5 s old" in lines[1]
    assert "live" not in "".join(lines)


def test_first_line_reports_an_ingest_that_does_not_run() -> None:
    report = health()
    report = replace(report, feed=replace(report.feed, running=False, problem="no ingest runs"))
    assert texts(state_of(report), View("SPY"))[0].startswith("ingest default: no ingest runs")


def test_bars_are_as_long_as_sizes_and_grow_from_the_middle() -> None:
    lines = [text.plain for text in ladder("SPY", state_of().line("SPY"), 81, ascii_only=True)]
    assert len(lines) == LADDER_LINES
    bids = [line[:40].count("#") for line in lines[1:]]
    asks = [line[41:].count("#") for line in lines[1:]]
    assert bids == asks == sorted(bids)
    assert bids[9] == 2 * bids[4]
    assert lines[10].startswith("#")
    assert lines[1].split()[1:6] == ["ARCA", "100", "100.00", "100.02", "100"]


def test_empty_or_unknown_book_is_an_empty_ladder() -> None:
    line = state_of().line("SPY")
    assert line is not None
    for book_shown in (None, book("SPY", levels=0)):
        lines = [text.plain for text in ladder("SPY", replace(line, book=book_shown), 80, ascii_only=False)]
        assert len(lines) == LADDER_LINES
        assert "█" not in "".join(lines)
    assert "unknown" in next(ladder("NOSUCH", None, 80, ascii_only=False)).plain


def test_arrow_is_one_key_and_so_is_each_letter() -> None:
    assert split_keys("j\x1b[Bq\x1bOAx") == ["j", "\x1b[B", "q", "\x1bOA", "x"]


def test_keys_choose_pause_and_quit() -> None:
    view = View("SPY")
    for key in ("j", "\t", "\x1b[B", "\x1bOB"):
        assert after_key(key, view, SYMBOLS) == View("QQQ")
    for key in ("k", "\x1b[A", "\x1b[Z"):
        assert after_key(key, view, SYMBOLS) == View("TSLA")
    assert after_key(" ", view, SYMBOLS) == View("SPY", paused=True)
    assert after_key("p", View("SPY", paused=True), SYMBOLS) == view
    assert after_key("x", view, SYMBOLS) == view
    assert after_key("j", View(""), SYMBOLS) == View("SPY")
    assert after_key("j", view, ()) == view
    assert after_key("q", view, SYMBOLS) is None


@pytest.mark.parametrize("name", ["AAPL.ISLAND", "BRK B", "EUR.GBP", "ES", "A" * 32])
def test_names_of_the_universe_are_told_apart_in_the_table(name: str) -> None:
    report = health()
    spy, qqq, *rest = report.symbols
    report = replace(report, symbols=(replace(spy, symbol=name), replace(qqq, symbol=f"{name[:8]}2"), *rest))
    lines = texts(state_of(report), View())
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(f" {name[:23]} ") and " ARCA " in line for line in lines)
    assert any(line.startswith(f" {name[:8]}2 ") for line in lines)
    assert {line.index("ARCA") for line in lines if "ARCA" in line} == {lines[1].index("venue")}


def test_closed_market_is_closed_until_its_open_in_table_and_ladder() -> None:
    report = health(SymbolState.CLOSED)
    spy, *rest = report.symbols
    spy = replace(spy, figures=replace(spy.figures, closed_until=1_795_800_000_000))
    lines = texts(state_of(replace(report, symbols=(spy, *rest))), View("SPY"))
    shown = [line for line in lines if "closed until 2026-11-27" in line]
    assert len(shown) == 2
    assert not [line for line in lines if "shut" in line]


def test_paused_view_is_marked() -> None:
    assert "PAUSED" in texts(state_of(), View("SPY", paused=True))[0]


def test_coverage_is_the_share_of_the_run_in_which_the_book_was_live() -> None:
    line = state_of().line("SPY")
    assert line is not None
    assert line.coverage == 0.25
    assert "25%" in next(text for text in texts(state_of(), View("SPY"))[13:] if "SPY" in text)


def test_coverage_is_unknown_without_figures_and_never_above_one() -> None:
    report = health()
    spy, qqq, *rest = report.symbols
    assert report.feed.figures is not None
    figures = replace(report.feed.figures, symbols={"SPY": spy.figures})
    ever = replace(spy, figures=replace(spy.figures, live_ms=RUN_MS + 5))
    report = replace(report, feed=replace(report.feed, figures=figures), symbols=(ever, qqq, *rest))
    assert [line.coverage for line in state_of(report).lines[:2]] == [1.0, None]
    assert state_of(replace(report, feed=replace(report.feed, figures=None))).lines[0].coverage is None


@pytest.mark.parametrize(
    ("trouble", "shown"),
    [("silent, others are not", Liveness.SILENT), ("book out of step: crossed", Liveness.OUT_OF_STEP)],
)
def test_line_in_trouble_is_named_although_its_heartbeat_stands(trouble: str, shown: Liveness) -> None:
    report = health()
    spy, *rest = report.symbols
    seen = state_of(replace(report, symbols=(replace(spy, trouble=trouble), *rest)))
    line = seen.line("SPY")
    assert line is not None
    assert line.liveness is shown
    lines = texts(seen, View("SPY"))
    assert f"SPY: {trouble}" in lines[0]
    assert max(map(len, lines)) <= 80
    assert not replace(spy, trouble=trouble).is_well
