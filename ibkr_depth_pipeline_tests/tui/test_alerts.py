"""The alerts and the lanes alone, as the terminal shows them: lines, pages, keys, the past, hostile texts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind, tracked_alerts
from ibkr_depth_pipeline.tui.keyboard import after_key
from ibkr_depth_pipeline.tui.render import frame
from ibkr_depth_pipeline.tui.state import WatchState
from ibkr_depth_pipeline.tui.view import View
from ibkr_depth_pipeline_tests.tui.test_render import NOW, SYMBOLS, state_of, texts

MINUTE = 60_000


def alert(secs_ago: int, kind: AlertKind, what: str, cause: str = "gateway", text: str = "Likely cause: x.") -> Alert:
    return Alert(NOW - 1_000 * secs_ago, kind, cause, f"IBKR depth default: {what}", text)


def with_alerts(*alerts: Alert, ts: int = NOW) -> WatchState:
    return replace(state_of(), ts=ts, alerts=tracked_alerts(alerts))


AWAY = alert(30, AlertKind.TROUBLE, "feed stale")
BACK = alert(10, AlertKind.RECOVERY, "recovered")
FAILED = alert(20, AlertKind.TROUBLE, "job failed", cause="run_failed")


def test_open_alert_stands_in_a_line_below_the_first() -> None:
    lines = texts(with_alerts(AWAY), View("SPY"))
    assert lines[1].startswith("alerts: 1 open  \u25b2 trouble ")
    assert lines[1].endswith("feed stale (open for 30.0 s)")
    assert len(lines) == 24
    assert not any("alerts:" in line for line in texts(state_of(), View("SPY")))


def test_line_shows_what_came_last_once_nothing_is_open_and_not_for_ever() -> None:
    assert "alerts: none open  \u2713 all-clear" in texts(with_alerts(AWAY, BACK), View())[1]
    assert "none open  \u25b2 trouble" in texts(with_alerts(FAILED), View())[1]
    later = with_alerts(AWAY, BACK, ts=NOW + 2 * 3_600_000)
    assert not any("alerts:" in line for line in texts(later, View()))


def test_alerts_of_the_past_are_those_of_then() -> None:
    then = with_alerts(AWAY, BACK, ts=NOW - 15_000)
    assert "1 open" in texts(then, View("SPY", paused=True, back_secs=15.0))[1]
    before = with_alerts(AWAY, BACK, ts=NOW - 60_000)
    assert not any("alerts:" in line for line in texts(before, View("SPY", paused=True, back_secs=60.0)))


def test_page_of_alerts_lists_them_newest_first_with_their_texts() -> None:
    lines = texts(with_alerts(AWAY, FAILED, BACK), View("SPY", page="alerts"))
    assert lines[2] == "Alerts: none open, 3 in all. Times are UTC."
    assert ["recovered" in lines[3], "job failed" in lines[5], "feed stale (cleared " in lines[7]] == [True] * 3
    assert lines[4] == "    Likely cause: x."
    assert any("None was raised" in line for line in texts(state_of(), View("SPY", page="alerts")))


@pytest.mark.parametrize(("width", "height"), [(40, 10), (80, 24), (160, 50)])
def test_page_of_many_alerts_fits_and_says_how_many_are_left_out(width: int, height: int) -> None:
    many = [alert(number, AlertKind.TROUBLE, f"{'long ' * 60}{number}", text="a\nb\nc") for number in range(100)]
    for ascii_only in (False, True):
        lines = frame(with_alerts(*many), View("SPY", page="alerts"), width, height, ascii_only=ascii_only)
        assert len(lines) == height
        assert max(line.cell_len for line in lines) <= width
        assert any("older" in line.plain for line in lines)


def test_text_of_an_alert_cannot_command_the_terminal() -> None:
    evil = alert(1, AlertKind.TROUBLE, "x\x1b[2J\x9b31my", text="\x1b]0;owned\x07z")
    for view in (View(), View(page="alerts")):
        assert not any("\x1b" in line or "\x07" in line or "\x9b" in line for line in texts(with_alerts(evil), view))


def test_keys_open_a_page_and_close_it() -> None:
    view = View("SPY")
    for key, page in (("a", "alerts"), ("w", "lanes"), ("w", ""), ("a", "alerts"), ("a", ""), ("w", "lanes")):
        stepped = after_key(key, view, SYMBOLS)
        assert stepped is not None
        view = stepped
        assert view.page == page
    assert after_key("j", view, SYMBOLS) == View("QQQ", page="lanes")
    assert after_key("\x1b", view, SYMBOLS) == View("SPY")


@pytest.mark.parametrize(("width", "height"), [(40, 8), (80, 24), (111, 40), (200, 60)])
def test_lanes_alone_take_the_whole_width_of_any_terminal(width: int, height: int) -> None:
    lanes = {"SPY": [[NOW - MINUTE, NOW - MINUTE, None, ""]]}
    state = with_alerts(alert(100, AlertKind.TROUBLE, "feed stale"), alert(20, AlertKind.RECOVERY, "recovered"))
    lines = [
        line.plain
        for line in frame(state, View("SPY", page="lanes"), width, height, lanes=lanes, now_ms=NOW, ascii_only=True)
    ]
    assert len(lines) == height
    assert {len(line) for line in lines if line.startswith((">", " alerts"))} == {width}
    (row,) = [line for line in lines if line.startswith(">SPY")]
    assert row.count("#") == pytest.approx((width - 8) / 5, abs=2)
    (marked,) = [line for line in lines if line.startswith(" alerts")]
    assert marked.strip(" alerts.").startswith("!-")
    assert marked.count("!") == marked.count("+") == 1


def test_lanes_alone_show_more_time_and_hold_the_selected_symbol() -> None:
    view = View("TSLA", page="lanes", zoom=8)
    lines = texts(state_of(), view, 80, 8)
    assert "last 15 min" in "".join(lines)
    assert any(line.startswith(">TSLA") for line in lines)
    assert any(line.startswith(" alerts") for line in lines)
