"""The table and the use of the screen: whole width and height, order, filter, next turn, moves, what else to do."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from ibkr_depth_pipeline.reader import DepthSnapshot
from ibkr_depth_pipeline.schema.health import HealthReport
from ibkr_depth_pipeline.tui.keyboard import after_key
from ibkr_depth_pipeline.tui.lanes import lane
from ibkr_depth_pipeline.tui.render import KEYS, frame
from ibkr_depth_pipeline.tui.screen import first_view
from ibkr_depth_pipeline.tui.state import Quote, SymbolLine, WatchState, compared
from ibkr_depth_pipeline.tui.table import DOWN, UP, next_turn
from ibkr_depth_pipeline.tui.view import ORDERS, View, listed
from ibkr_depth_pipeline_tests.tui.test_render import NOW, SYMBOLS, book, health, state_of, texts

QUOTES = [Quote(100.0 + at / 100, 100.02 + at / 100) for at in range(300)]


def universe(count: int) -> WatchState:
    state = state_of()
    lines = [replace(state.lines[0], symbol=f"S{at}") for at in range(count)]
    return replace(state, lines=lines)


def changed(state: WatchState, symbol: str, **fields: object) -> WatchState:
    lines = [replace(line, **fields) if line.symbol == symbol else line for line in state.lines]
    return replace(state, lines=lines)


def lowered(symbol: str) -> DepthSnapshot:
    """A book whose best prices are a cent below those of `book`."""
    bids, asks = (orjson.dumps([[best, 100.0, "ARCA"]] + [[0.0, 0.0, ""]] * 9) for best in (99.99, 100.01))
    return DepthSnapshot(symbol, NOW, 43, "ARCA", bids, asks)


def line_of(state: WatchState, symbol: str = "SPY") -> SymbolLine:
    line = state.line(symbol)
    assert line is not None
    return line


def with_waiting(report: HealthReport, *symbols: str) -> HealthReport:
    """The report with these not subscribed."""
    told = [
        replace(each, figures=replace(each.figures, subscribed=False)) if each.symbol in symbols else each
        for each in report.symbols
    ]
    return replace(report, symbols=tuple(told))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 17, 60, 300])
@pytest.mark.parametrize(("width", "height"), [(160, 50), (132, 43), (200, 60), (240, 70)])
def test_large_terminal_is_used_in_its_whole_width_and_height(count: int, width: int, height: int) -> None:
    lines = [line.plain for line in frame(universe(count), View("S0"), width, height, quotes=QUOTES)]
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    heading = next(line for line in lines if "venue" in line)
    assert len(heading.rstrip()) == width
    empty = [line for line in lines if not line.strip()]
    assert len(empty) <= 5, lines
    filled = [at for at, line in enumerate(lines[:-1]) if line.strip()]
    assert filled[-1] >= height - 6


def test_wide_table_has_more_columns_and_a_narrow_one_those_of_eighty() -> None:
    narrow, wide = texts(state_of(), View("SPY"), 80), texts(state_of(), View("SPY"), 160, 50)
    assert " bid size " not in narrow[12]
    assert len(narrow[12]) == 80
    heading = next(line for line in wide if "venue" in line).split()
    assert {"size", "imbal", "share", "lost", "309s", "next", "cover"} <= set(heading)


def test_view_opens_on_a_symbol_that_is_live() -> None:
    state = state_of(with_waiting(health(age=20.0), *(symbol for symbol in SYMBOLS if symbol != "META")))
    assert first_view((), state, keys=True).selected == "META"
    assert first_view(("QQQ",), state, keys=True).selected == "QQQ"
    assert first_view((), state_of(health(subscribed=False, age=20.0)), keys=True).selected == "SPY"


@pytest.mark.parametrize(
    ("secs", "shown"),
    [(None, "-"), (0.2, "due"), (7.0, "7s"), (99.4, "99s"), (99.6, "2m"), (5000.0, "83m"), (1e5, "28h"), (1e9, "999h")],
)
def test_next_turn_fits_its_column(secs: float | None, shown: str) -> None:
    line = replace(line_of(state_of()), holds_slot=False, next_turn_secs=secs)
    assert next_turn(line) == shown
    assert next_turn(replace(line, holds_slot=True)) == "now"


def test_next_turn_is_that_of_the_figures_and_unknown_without_an_ingest() -> None:
    report = health(subscribed=False, age=20.0)
    spy, *rest = report.symbols
    spy = replace(spy, figures=replace(spy.figures, next_turn_secs=12.0))
    report = replace(report, symbols=(spy, *rest))
    assert "12s" in next(line for line in texts(state_of(report), View("SPY")) if line.startswith(">SPY"))
    gone = replace(report, feed=replace(report.feed, running=False, problem="no ingest runs"))
    assert line_of(state_of(gone)).next_turn_secs is None


@pytest.mark.parametrize("name", ORDERS)
def test_table_is_sorted_by_each_column_with_the_unknown_last(name: str) -> None:
    state = state_of()
    for at, symbol in enumerate(("IWM", "NVDA", "AAPL")):
        age = {"age_secs": float(at), "rows_per_sec": float(at), "coverage": at / 10, "venue": f"V{at}"}
        state = changed(state, symbol, holds_slot=False, next_turn_secs=at + 1.0, **age)
    state = changed(state, "TSLA", age_secs=None, rows_per_sec=None, coverage=None, venue="", book=None)
    order = ORDERS[name]
    for descending in (False, True):
        values = [order(line) for line in listed(state, View(sort=name, descending=descending))]
        known = [value for value in values if value is not None]
        assert len(values) == len(SYMBOLS)
        assert known == sorted(known, reverse=descending)  # type: ignore[type-var]
        assert values[: len(known)] == known
    heading = next(line for line in texts(state, View("SPY", sort=name)) if "venue" in line or "venu" in line)
    assert "\u25b2" in heading


def test_keys_step_through_the_columns_and_turn_the_order_round() -> None:
    view, seen = View("SPY"), []
    for _ in range(len(ORDERS) + 1):
        stepped = after_key("s", view, SYMBOLS)
        assert stepped is not None
        seen.append(stepped.sort)
        view = stepped
    assert seen == [*ORDERS, ""]
    by_age = View("SPY", sort="age")
    assert after_key("r", by_age, SYMBOLS) == View("SPY", sort="age", descending=True)
    assert after_key("r", View("SPY"), SYMBOLS) == View("SPY")


def typed(keys: str, view: View, state: WatchState) -> View:
    for key in keys:
        after = after_key(key, view, [line.symbol for line in listed(state, view)])
        assert after is not None
        view = after
    return view


def test_typed_filter_leaves_what_matches_and_enter_chooses_the_first() -> None:
    state = state_of()
    view = typed("/q", View("SPY"), state)
    assert view.typing  # q is a letter here
    assert [line.symbol for line in listed(state, view)] == ["QQQ"]
    assert texts(state, view)[-1].startswith("filter: q_")
    chosen = typed("\n", view, state)
    assert (chosen.selected, chosen.typing, chosen.filter) == ("QQQ", False, "q")
    assert typed("j", chosen, state).selected == "QQQ"
    assert typed("\x1b", chosen, state) == View("QQQ")
    assert typed("/qx\x7f\x1b", View("SPY"), state) == View("SPY")
    assert after_key("\x03", view, ()) is None


def test_filter_that_nothing_matches_is_named_and_loses_no_choice() -> None:
    view = typed("/zzz", View("SPY"), state_of())
    assert any("No symbol matches zzz." in line for line in texts(state_of(), view))
    assert typed("\n", view, state_of()) == View("SPY")


def test_arrows_go_back_in_time_and_on_to_now() -> None:
    back = after_key("\x1b[D", View("SPY"), SYMBOLS)
    assert back == View("SPY", paused=True, back_secs=5.0)
    assert after_key("\x1b[C", back, SYMBOLS) == View("SPY")
    for key in ("0", "\x1b"):
        assert after_key(key, back, SYMBOLS) == View("SPY")
    assert "5 s back" in texts(state_of(), back)[0]


def test_step_of_an_arrow_grows_with_the_time_of_the_chart() -> None:
    assert after_key("h", View("SPY", zoom=4), SYMBOLS) == View("SPY", zoom=4, paused=True, back_secs=20.0)


def test_t_goes_through_light_dark_and_the_terminals_own_colours() -> None:
    view, grounds = View("SPY"), []
    for _ in range(3):
        stepped = after_key("t", view, SYMBOLS)
        assert stepped is not None
        view = stepped
        lines = frame(state_of(), view, 80, 24)
        grounds.append({str(line.style).partition(" on ")[2].split()[0] for line in lines if " on " in str(line.style)})
        assert len(lines) == 24
        if view.theme:
            assert {line.cell_len for line in lines} == {80}
    assert grounds == [{"#ffffff"}, {"#12151c"}, set()]


def test_help_line_names_every_key_of_the_web_page() -> None:
    foot = texts(state_of(), View("SPY"))[-1]
    assert foot.split() == KEYS.split()
    for key in ("jk", "\u2190\u2192", "space", "0", "+-", "/", "t", "?"):
        assert key in foot.split()
    ascii_foot = frame(state_of(), View("SPY"), 80, 24, ascii_only=True)[-1].plain
    assert ascii_foot.isascii()


MINUTE = 60_000


def drawn(*turns: tuple[int, int | None, int | None, str]) -> str:
    """Ten characters of half a minute each, by minutes before the end."""
    return lane(turns, 10, 5 * MINUTE, ascii_only=True).plain


def test_lane_shows_slots_waits_and_ends_out_of_turn() -> None:
    assert drawn() == ".........."
    assert drawn((MINUTE, MINUTE, 2 * MINUTE, "turn_over")) == "..##-....."
    assert drawn((MINUTE, 2 * MINUTE, None, "")) == "..--######"
    assert drawn((MINUTE, MINUTE, 2 * MINUTE - 1, "connection_lost")) == "..#!......"
    assert drawn((0, 0, 2_000, "turn_over"), (4 * MINUTE, None, 4 * MINUTE + 5, "slot_refused")) == "+.......!."


def test_wide_table_has_lanes_up_to_now() -> None:
    lanes = {"SPY": [[NOW - MINUTE, NOW - MINUTE, None, ""]]}
    for width, height in ((112, 40), (160, 50)):
        lines = [line.plain for line in frame(state_of(), View("QQQ"), width, height, lanes=lanes, now_ms=NOW)]
        assert max(map(len, lines)) <= width
        heading = next(line for line in lines if "venue" in line)
        assert "slot, last 5 min" in heading
        (row,) = [line for line in lines if line.startswith(" SPY ")]
        held = row[heading.index("slot, last 5 min") :]
        assert held.rstrip("\u2588").endswith("\u00b7")
        assert held.count("\u2588") == pytest.approx(width // 4 / 5, abs=1)
    assert "slot, last" not in "".join(
        line.plain for line in frame(state_of(), View(), 111, 40, lanes=lanes, now_ms=NOW)
    )


def test_plus_and_minus_change_the_time_of_the_chart_within_bounds() -> None:
    view = View("SPY")
    for key, zoom in zip("+-----+", (1, 2, 4, 8, 8, 8, 4), strict=True):
        after = after_key(key, view, SYMBOLS)
        assert after is not None
        assert after.zoom == zoom
        view = after


def test_help_lists_the_keys_until_another_key() -> None:
    shown = after_key("?", View("SPY"), SYMBOLS)
    assert shown == View("SPY", help=True)
    assert any("next, previous symbol" in line for line in texts(state_of(), shown))
    assert after_key("j", shown, SYMBOLS) == View("SPY")


def test_change_since_the_last_refresh_has_a_sign_and_a_colour() -> None:
    before = state_of()
    (row,) = [
        line
        for line in frame(changed(before, "SPY", bid_move=1, ask_move=-1), View("QQQ"), 80, 24)
        if line.plain.startswith(" SPY ")
    ]
    assert "\u25b2100.00" in row.plain
    assert "\u25bc100.02" in row.plain
    assert {str(span.style) for span in row.spans} >= {UP, DOWN}
    plain = [line.plain for line in frame(changed(before, "SPY", bid_move=1), View(), 80, 24, ascii_only=True)]
    assert any("^100.00" in line for line in plain)


def test_moves_are_those_of_live_books_since_the_refresh_before() -> None:
    before = changed(state_of(), "SPY", book=book("SPY", levels=0))
    assert line_of(compared(state_of(), before)).bid_move == 0  # nothing to compare with
    lower = replace(state_of(), lines=[replace(line, book=lowered(line.symbol)) for line in state_of().lines])
    assert line_of(compared(state_of(), lower)).bid_move == 1
    assert line_of(compared(lower, state_of())).ask_move == -1
    assert line_of(compared(state_of(), state_of())).bid_move == 0
    waiting = state_of(health(subscribed=False, age=20.0))
    assert line_of(compared(waiting, lower)).bid_move == 0


def test_frame_without_redis_says_what_to_do() -> None:
    state = WatchState(NOW).aged(NOW, "Redis at 127.0.0.1:6379: refused")
    lines = texts(state, View(), 100, 24)
    assert lines[0].startswith("NO REDIS: Redis at 127.0.0.1:6379: refused")
    assert any("REDIS_URL=redis://HOST:PORT/0" in line for line in lines)
    assert any("make run" in line for line in lines)


def test_chart_leaves_unobserved_time_empty() -> None:
    quotes = [*QUOTES[:20], *[None] * 20, *QUOTES[20:40]]
    lines = [line.plain for line in frame(universe(1), View("S0"), 160, 50, quotes=quotes)]
    start = next(at for at, line in enumerate(lines) if "best bid and ask" in line)
    drawn = [line.ljust(160) for line in lines[start + 1 : -1]]
    columns = ["".join(row[at] for row in drawn) for at in range(100, 160)]
    assert all(column.strip() for column in (*columns[:20], *columns[40:]))
    assert not any(column.strip() for column in columns[20:40])
