"""The page in a real browser, of a recording in a real Redis: numbers, keys, widths, light and dark, hostile texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline_tests.web.conftest import Tab, WebServer, opened
from ibkr_depth_pipeline_tests.web.market import INJECTED, SYMBOLS, VENUE, RecordedMarket, side
from ibkr_depth_pipeline_tests.web.test_access import Client

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GROUND = "getComputedStyle(document.body).backgroundColor"


def cell(symbol: str, name: str) -> str:
    return f"tr[data-symbol='{symbol}'] .{name}"


def test_table_shows_the_figures_of_each_symbol(tab: Tab, market: RecordedMarket) -> None:
    market.row("QQQ", 523.41)
    tab.shows(cell("QQQ", "bid"), "523.41")
    shown = {name: tab.text(cell("QQQ", name)) for name in ("ask", "spread", "state", "slot", "next", "coverage")}
    assert shown == {
        "ask": "523.43", "spread": "0.02", "state": "live", "slot": "held", "next": "now", "coverage": "50%",
    }  # fmt: skip
    assert tab.text(cell("BRK B", "next")) == "in 12 s"
    assert "turns\n4,321" in tab.text("#counts")


def test_ladder_shows_the_ten_levels_that_redis_holds(tab: Tab, market: RecordedMarket) -> None:
    market.row("SPY", 601.98)
    tab.shows("#figures [data-figure=bid]", "601.98")
    tab.shows("#ladder .bid td:last-child", "601.98")
    rows = tab.page.locator("#ladder .bid, #ladder .ask").evaluate_all(
        "rows => rows.map(row => [row.className, ...[...row.cells].map(cell => cell.textContent)])"
    )
    bids = [[f"{price:.2f}", f"{size:,.0f}", venue] for price, size, venue in side(601.98, -0.01)]
    asks = [[f"{price:.2f}", f"{size:,.0f}", venue] for price, size, venue in side(602.00, 0.01)]
    assert [row[:0:-1] for row in rows if row[0] == "bid"] == bids
    assert [row[:0:-1] for row in rows if row[0] == "ask"] == asks[::-1]


def test_keys_choose_the_symbol_pause_and_go_back_to_live(tab: Tab) -> None:
    tab.page.keyboard.press("j")
    tab.shows("#symbol", "QQQ")
    tab.page.keyboard.press("ArrowUp")
    tab.shows("#symbol", "SPY")
    tab.page.keyboard.press(" ")
    tab.until("() => document.getElementById('pause').getAttribute('aria-pressed') === 'true'")
    assert tab.text("#position").endswith("ago")
    tab.page.keyboard.press("0")
    tab.until("() => document.getElementById('live').disabled")
    tab.page.keyboard.press("+")
    assert tab.text("#spans [aria-pressed=true]") == "30 s"
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("brk")
    tab.page.keyboard.press("Enter")
    tab.shows("#symbol", "BRK B")


def test_dragging_goes_back_to_the_book_of_then(web: WebServer, tab: Tab, market: RecordedMarket) -> None:
    now = unix_ms()
    market.redis.delete("raw:ibkr:depth:stream:SPY")
    market.row("SPY", 111.0, ts=now - 250_000)
    market.turn("SPY", now - 250_000, now - 25_000)
    market.row("SPY", 222.0)
    tab.page.goto(f"{web.address}?symbol=SPY&span=300")
    tab.shows("#ladder .bid td:last-child", "222.00")
    box = tab.page.locator("#heat").bounding_box()
    assert box is not None
    tab.page.mouse.move(box["x"] + 100, box["y"] + 100)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 100 + box["width"] / 2, box["y"] + 100, steps=4)
    tab.page.mouse.up()
    tab.until("() => document.getElementById('position').textContent.includes('ago')")
    tab.shows("#ladder .bid td:last-child", "111.00")
    assert tab.text("#where") == f"{VENUE} \u00b7 as it was then"
    tab.page.locator("#live").click()
    tab.until("() => document.getElementById('position').textContent === ''")
    tab.shows("#ladder .bid td:last-child", "222.00")


def test_gateway_that_is_away_is_shown(tab: Tab, market: RecordedMarket) -> None:
    assert tab.page.locator("#banner").is_hidden()
    market.publish(connected=False)
    tab.shows("#banner", "not connected to the gateway")
    assert "not connected to the gateway" in tab.text("#feed")
    tab.shows(cell("BRK B", "next"), "-")
    market.publish(connected=True)
    tab.until("() => document.getElementById('banner').hidden")


def test_stale_symbol_looks_stale(tab: Tab, market: RecordedMarket) -> None:
    market.redis.delete("raw:ibkr:depth:hb:SPY")
    tab.shows(cell("SPY", "state"), "STALE")
    line = f'getComputedStyle(document.querySelector("{cell("SPY", "bid")}")).textDecorationLine'
    assert tab.page.evaluate(line) == "line-through"
    tab.until("() => document.body.classList.contains('old')")


def test_browser_that_draws_too_slowly_is_told_that_it_is_thinned(
    web: WebServer, market: RecordedMarket, browser: Browser
) -> None:
    slowly = "requestAnimationFrame = (draw) => setTimeout(() => draw(performance.now()), 1500)"
    with opened(browser, "about:blank", shown="() => true") as tab, rows_coming(market):
        tab.page.add_init_script(slowly)
        tab.page.goto(f"{web.address}?symbol=SPY")
        tab.shows("#link", "thinned: this browser is slow")
        assert tab.page.locator("#link").get_attribute("data-thinned") == "yes"


@contextmanager
def rows_coming(market: RecordedMarket) -> Iterator[None]:
    """Fifty rows of SPY a second."""
    ended = Event()

    def write() -> None:
        for number in count():
            if ended.wait(0.02):
                return
            market.row("SPY", 100.0 + number % 10 / 100)

    writing = Thread(target=write)
    writing.start()
    try:
        yield
    finally:
        ended.set()
        writing.join()


def test_injected_texts_stay_texts(tab: Tab) -> None:
    names = tab.page.locator("#universe tbody .symbol").all_inner_texts()
    assert names == list(SYMBOLS)
    assert tab.text(f"tr[data-symbol='{INJECTED}'] .venue") == VENUE
    tab.page.locator("#universe tbody tr").nth(3).click()
    tab.shows("#symbol", INJECTED)
    assert tab.page.locator("img, b").count() == 0


def test_page_asks_its_own_host_alone(tab: Tab, web: WebServer) -> None:
    tab.until("() => performance.getEntriesByType('resource').some(entry => entry.name.includes('/tile'))")
    assert all(url.startswith(web.address) for url in tab.requests)


def test_page_fits_every_width_with_nothing_cut_off(tab: Tab) -> None:
    tab.shows(cell("QQQ", "coverage"), "50%")
    cut = """() => [...document.querySelectorAll('button, dd, #universe td, #ladder td:last-child')]
        .filter(each => each.offsetParent && !each.matches('.symbol, .venue'))
        .filter(each => each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== 'inline')
        .map(each => each.className + ' ' + each.textContent)"""
    for width in (360, 390, 768, 1024, 1280, 1920):
        tab.page.set_viewport_size({"width": width, "height": 844})
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.page.evaluate(cut) == [], width


def test_address_chooses_symbol_theme_time_and_span(web: WebServer, market: RecordedMarket, workbench: Tab) -> None:
    before = market.row("QQQ", 321.5)
    start = int(market.redis.xrevrange("raw:ibkr:depth:stream:QQQ", count=1)[0][0].split(b"-")[0])
    market.turn("QQQ", start, start + 900)
    market.row("QQQ", 654.0, ts=start + 5_000)
    workbench.page.goto(f"{web.address}?symbol=QQQ&theme=dark&span=30&at={start + 500}")
    workbench.shows("#symbol", "QQQ")
    workbench.shows("#ladder .bid td:last-child", "321.50")
    assert before > 0
    assert workbench.text("#spans [aria-pressed=true]") == "30 s"
    assert workbench.page.evaluate(GROUND) == "rgb(11, 14, 19)"
    assert workbench.text("#position").endswith("ago")


def test_page_follows_light_and_dark(tab: Tab) -> None:
    assert tab.page.evaluate(GROUND) == "rgb(238, 240, 243)"
    tab.page.emulate_media(color_scheme="dark")
    tab.until(f"() => {GROUND} === 'rgb(11, 14, 19)'")
    tab.page.keyboard.press("t")
    tab.until(f"() => {GROUND} === 'rgb(238, 240, 243)'")


def test_observed_time_on_record_is_what_the_page_gets(web: WebServer, market: RecordedMarket, tab: Tab) -> None:
    """Two stretches, ten seconds apart, in one tile: books in both, none between, and none carried on past an end."""
    start = 1_700_000_000_000 // 12_000 * 12_000
    market.redis.delete("raw:ibkr:depth:stream:SPY")
    market.row("SPY", 100.0, ts=start + 250)
    market.row("SPY", 101.0, ts=start + 9_000)
    market.turn("SPY", start + 250, start + 1_100, number=1)
    market.turn("SPY", start + 9_000, start + 9_400, number=2)
    tile = tab.page.evaluate(
        "async (number) => (await fetch(`/tile?symbol=SPY&step=100&number=${number}`)).json()", start // 12_000
    )
    kinds = [column if column in (None, 0) else column[2][0][0] for column in tile["columns"]]
    expected = [None] * 2 + [100.0] + [0] * 9 + [None] * 78 + [101.0] + [0] * 4 + [None] * 25
    assert kinds == expected
    assert tile["oldest"] == start + 250


def test_browser_is_let_in_by_the_printed_address_and_keeps_the_token_to_itself(
    web: WebServer, market: RecordedMarket, browser: Browser, tmp_path: Path
) -> None:
    """A server that listens elsewhere than on loopback prints a token of its own."""
    guarded = WebServer(web.redis_url, tmp_path, IBKR_WEB_HOST="0.0.0.0")
    try:
        token = guarded.query.removeprefix("?token=")
        assert len(token) >= 32
        client = Client(guarded)
        assert [client.get(path).status for path in ("/", "/assets/main.js", "/tile")] == [401] * 3
        assert client.upgrade() == 401
        assert client.get("/", Authorization=f"Bearer {token}").status == 200
        with opened(browser, guarded.address + guarded.query) as tab:
            tab.until("() => document.getElementById('link').textContent === 'connected'")
            assert tab.page.url == guarded.address
            assert tab.page.evaluate("document.cookie") == ""
        assert token not in guarded.process.log_path.read_text().replace(guarded.query, "")
    finally:
        guarded.end()
