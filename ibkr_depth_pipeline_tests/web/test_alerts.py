"""Alerts on the page in a real browser: what is open, what came last, now and as of then; texts stay texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.schema.alerts import AlertKind
from ibkr_depth_pipeline.schema.keys import alerts_stream
from ibkr_depth_pipeline_tests.web.conftest import Tab, WebServer, opened
from ibkr_depth_pipeline_tests.web.market import INJECTED, NAME, RecordedMarket

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LATEST = "#alerts-latest"
TALLY = "#alerts-tally"
ROWS = """() => [...document.querySelectorAll('#alerts-list li')]
    .map(row => ['sign', 'headline', 'text', 'outcome'].map(name => row.querySelector(`.${name}`).textContent))"""


def rows(tab: Tab) -> list[list[str]]:
    found: list[list[str]] = tab.page.evaluate(ROWS)
    return found


def test_alert_is_open_until_its_all_clear(tab: Tab, market: RecordedMarket) -> None:
    tab.shows(TALLY, "none")
    now = unix_ms()
    market.alert(AlertKind.TROUBLE, "feed stale (the gateway is away)", ts=now - 5_000, text="Since 14:44.")
    tab.shows(TALLY, "1 open")
    latest = tab.text(LATEST)
    assert latest.startswith("\u25b2 trouble \u00b7 ")
    assert "feed stale (the gateway is away) \u00b7 open for " in latest
    tab.page.keyboard.press("a")
    tab.until("() => document.querySelectorAll('#alerts-list li').length === 1")
    assert rows(tab)[0][:3] == ["\u25b2 trouble", "feed stale (the gateway is away)", "Since 14:44."]
    market.alert(AlertKind.RECOVERY, "recovered", ts=now, text="All is fresh again.")
    tab.shows(TALLY, "none open")
    tab.until("() => document.querySelectorAll('#alerts-list li').length === 2")
    (first, second) = rows(tab)
    assert first == ["\u2713 all-clear", "recovered", "All is fresh again.", ""]
    assert second[3].startswith("cleared ")
    tab.page.keyboard.press("a")
    assert tab.page.locator("#alerts-list").is_hidden()


def test_what_only_happened_is_shown_and_never_open(tab: Tab, market: RecordedMarket) -> None:
    market.alert(AlertKind.TROUBLE, "ibkr_depth_ingest_job failed", ts=unix_ms(), cause="run_failed")
    tab.until(f"() => document.querySelector('{LATEST}').textContent.includes('ibkr_depth_ingest_job failed')")
    tab.shows(TALLY, "none open")


def test_alerts_go_back_in_time_with_the_page(web: WebServer, tab: Tab, market: RecordedMarket) -> None:
    now = unix_ms()
    market.redis.delete("raw:ibkr:depth:stream:SPY")
    market.row("SPY", 100.0, ts=now - 250_000)
    market.turn("SPY", now - 250_000, now - 1_000)
    market.alert(AlertKind.TROUBLE, "feed stale", ts=now - 100_000)
    market.alert(AlertKind.RECOVERY, "recovered", ts=now - 50_000)
    market.row("SPY", 101.0)
    for back, tally in ((75_000, "1 open"), (150_000, "none"), (10_000, "none open")):
        tab.page.goto(f"{web.address}?symbol=SPY&span=60&at={now - back}")
        tab.until("() => document.getElementById('position').textContent.includes('ago')")
        tab.shows(TALLY, tally)
    tab.page.keyboard.press("0")
    tab.until(f"() => document.querySelector('{LATEST}').textContent.includes('recovered')")


def test_alerts_are_marked_in_a_lane_and_on_the_map(web: WebServer, tab: Tab, market: RecordedMarket) -> None:
    red = """(canvas) => {
        const copy = new OffscreenCanvas(canvas.width, 20).getContext('2d', { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const { data } = copy.getImageData(0, 0, canvas.width, 20);
        let found = 0;
        for (let at = 0; at < data.length; at += 4) {
            found += data[at] === 168 && data[at + 1] === 32 && data[at + 2] === 26;
        }
        return found;
    }"""
    lane = tab.page.locator("#universe tfoot canvas")
    lane.wait_for(state="hidden")
    tab.until(f"() => ({red})(document.getElementById('heat')) === 0")
    market.alert(AlertKind.TROUBLE, "feed stale", ts=unix_ms() - 2_000)
    lane.wait_for()
    tab.until(f"() => ({red})(document.querySelector('#universe tfoot canvas')) > 10")
    tab.until(f"() => ({red})(document.getElementById('heat')) > 10")


def test_lanes_span_what_is_known_of_the_last_minutes(tab: Tab, market: RecordedMarket) -> None:
    tab.until("() => / last (2|5|10) min$/.test(document.querySelector('#universe th.lane').textContent)")
    market.turn("BRK B", unix_ms() - 400_000, unix_ms() - 390_000)
    tab.shows("#universe th.lane", "slot held, last 10 min")


def test_lanes_go_back_in_time_with_the_page(web: WebServer, tab: Tab, market: RecordedMarket) -> None:
    now = unix_ms()
    market.redis.delete("raw:ibkr:depth:stream:SPY")
    market.row("SPY", 100.0, ts=now - 400_000)
    market.turn("QQQ", now - 320_000, now - 280_000)
    market.row("SPY", 101.0)
    lane = tab.page.locator("tr[data-symbol='QQQ'] canvas")

    def at_its_end() -> str:
        box = lane.bounding_box()
        assert box is not None
        tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 8)
        tab.page.mouse.move(box["x"] + box["width"] - 4, box["y"] + 8)
        return lane.get_attribute("title") or ""

    for back, heading, words in ((300_000, "min up to then", "book observed"), (5_400_000, "up to then", "not known")):
        tab.page.goto(f"{web.address}?symbol=SPY&at={now - back}")
        tab.until(f"() => document.querySelector('#universe th.lane').textContent.endsWith('{heading}')")
        while words not in at_its_end():  # the turns come a little later; the test's timeout bounds it
            tab.page.wait_for_timeout(50)


def test_injected_alert_stays_text_on_a_phone(web: WebServer, market: RecordedMarket, browser: Browser) -> None:
    for number in range(30):
        what = f"{INJECTED} <b>stale</b> {'x' * 200}"
        market.alert(AlertKind.TROUBLE, what, ts=unix_ms() - number, text=f"{INJECTED}\n<script>PWNED()</script>")
    with opened(browser, web.address, viewport={"width": 390, "height": 844}, color_scheme="dark") as tab:
        tab.shows(TALLY, "30 open")
        tab.page.locator("#alerts-toggle").click()
        tab.until("() => document.querySelectorAll('#alerts-list li').length === 30")
        assert INJECTED in rows(tab)[0][1]
        assert rows(tab)[0][2] == f"{INJECTED}\n<script>PWNED()</script>"
        assert tab.page.locator("img, #alerts-list b, #alerts-list script").count() == 0
        for width in (360, 390, 768, 1280):
            tab.page.set_viewport_size({"width": width, "height": 844})
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.complaints == []


def test_entry_that_is_no_alert_is_passed_over(tab: Tab, market: RecordedMarket) -> None:
    market.redis.xadd(alerts_stream(NAME), {"ts": "yesterday", "kind": "shout"})
    market.alert(AlertKind.TROUBLE, "feed stale", ts=unix_ms())
    tab.shows(TALLY, "1 open")
    assert tab.page.locator("#banner").is_hidden()
    market.redis.delete(alerts_stream(NAME))
    tab.shows(TALLY, "none")
