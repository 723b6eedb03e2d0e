"""The page in a real browser: it asks for nothing, fits, shows its pictures, and follows light, dark and paper."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity
from ibkr_depth_pipeline_tests.archive.conftest import Desk, Mirror
from ibkr_depth_pipeline_tests.dagster.browser import CHROMIUM
from ibkr_depth_pipeline_tests.report.conftest import OPEN, Report
from ibkr_depth_pipeline_tests.report.made_up import keep_figures

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as BrowserPage

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="the package playwright is missing"),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}: apt-get install chromium"),
]
WHITE = "rgb(255, 255, 255)"
GROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page lies for all tests, once the first one has made it."""
    return tmp_path_factory.mktemp("report") / "page.html"


@pytest.fixture
def page_file(kept: Path, mirror: Mirror, desk: Desk, report: Report) -> Path:
    """A page with everything on it."""
    if kept.exists():
        return kept
    for symbol in ("SPY", "BRK B"):
        mirror.write(symbol, [*range(1, 1800), *range(1802, 3602)], start=OPEN, every=1000)
    mirror.write_alert(
        Alert(OPEN + 900_000, AlertKind.TROUBLE, "gateway", "feed stale <b>", "Gateway away.\nSince 14:44.")
    )
    mirror.write_alert(Alert(OPEN + 1_200_000, AlertKind.RECOVERY, "gateway", "recovered", "All is fresh again."))
    desk.keep()
    run = RunIdentity("run-1", "a-host-with-a-name", 77, OPEN)
    states = [
        FeedFigures(run, OPEN + at, connected=at > 4000, reconnects=at // 4000, refused_309=at // 2000, lag_p99_ms=5.0)
        for at in range(0, 20_000, 2000)
    ]
    keep_figures(desk.store, states)
    report(output=kept)
    return kept


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def shown(page_file: Path, request: pytest.FixtureRequest) -> Iterator[BrowserPage]:
    """The page, opened; what it asked for and complained about must be nothing."""
    browser: Browser = request.getfixturevalue("chromium")  # once the page is made: no asyncio runs beside playwright
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: asked.append(message.text))  # "Canvas2D": these tests read pixels
    page.on("pageerror", lambda error: asked.append(str(error)))
    page.goto(page_file.as_uri())
    page.locator("canvas.heat[data-drawn]").first.wait_for()
    yield page
    page.close()
    assert [url for url in asked if not url.startswith(("data:", "Canvas2D"))] == [page_file.as_uri()]


@pytest.mark.parametrize("width", [360, 768, 1280, 2560])
def test_page_fits_every_width_and_all_pictures_are_there(shown: BrowserPage, width: int) -> None:
    shown.set_viewport_size({"width": width, "height": 900})
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    drawn = """[...document.querySelectorAll('canvas')].filter(canvas => canvas.clientWidth).map(canvas => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size > 2;
    })"""
    assert shown.evaluate(drawn) == [True] * 7  # two symbols, alerts, connection, 309s, reconnects, a book
    # charts stand below each other on one axis of time
    edges = """[...document.querySelectorAll('.plot')].filter(plot => plot.clientWidth)
        .map(plot => [plot.getBoundingClientRect().x, plot.clientWidth].join())"""
    assert len(set(shown.evaluate(edges))) == 1


def test_texts_of_an_axis_do_not_overlap(shown: BrowserPage) -> None:
    for width in (360, 1280):
        shown.set_viewport_size({"width": width, "height": 900})
        overlaps = """[...document.querySelectorAll('.times')].some(axis => {
            const boxes = [...axis.children].map(mark => mark.getBoundingClientRect()).filter(box => box.width)
            return boxes.some((box, at) => at && box.left < boxes[at - 1].right)
        })"""
        assert not shown.evaluate(overlaps), width


def test_page_is_dark_on_request_and_white_on_paper(shown: BrowserPage) -> None:
    assert shown.evaluate(GROUND) == WHITE
    shown.emulate_media(color_scheme="dark")
    assert shown.evaluate(GROUND) == "rgb(18, 21, 28)"
    shown.emulate_media(color_scheme="dark", media="print")
    assert shown.evaluate(GROUND) == WHITE


def test_pointer_shows_the_time_on_every_chart(shown: BrowserPage) -> None:
    assert not shown.locator("#clock").is_visible()
    box = shown.locator(".plot").first.bounding_box()
    assert box is not None
    shown.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert shown.locator("#clock").inner_text().startswith("15:00:0")  # the middle of 14:30 to 15:30
    shown.mouse.move(1, 1)
    assert not shown.locator("#clock").is_visible()


def test_pointer_shows_what_the_lines_of_a_chart_stand_at(shown: BrowserPage) -> None:
    chart = shown.locator("section.book:not([hidden]) figure", has_text="Spread").last.locator(".plot")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    shown.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    assert shown.locator("#clock").inner_text().endswith(", median 0.01")
    lag = shown.locator("figure", has_text="Latency").locator(".plot")
    lag.scroll_into_view_if_needed()
    box = lag.bounding_box()
    assert box is not None
    shown.mouse.move(box["x"] + 1, box["y"] + 20)
    assert ", 99th percentile 5" in shown.locator("#clock").inner_text()


HEAT = "section.book:not([hidden]) canvas.heat"


def test_map_of_depth_is_drawn_in_the_colours_of_screen_and_paper(shown: BrowserPage) -> None:
    ground = f"""(() => {{
        const canvas = document.querySelector("{HEAT}");
        return [...canvas.getContext('2d').getImageData(canvas.width - 2, 2, 1, 1).data].slice(0, 3).join();
    }})()"""
    assert shown.evaluate(ground) == "255,255,255"
    shown.emulate_media(color_scheme="dark")
    shown.locator(f"{HEAT}[data-drawn=dark]").wait_for()
    assert shown.evaluate(ground) == "18,21,28"
    assert len(shown.pdf()) > 20_000
    shown.locator(f"{HEAT}[data-drawn=dark]").wait_for()
    shown.emulate_media(color_scheme="dark", media="print")
    shown.locator(f"{HEAT}[data-drawn=light]").wait_for()
    assert shown.evaluate(ground) == "255,255,255"


def test_pointer_on_a_lane_shows_what_it_is(shown: BrowserPage) -> None:
    def at(name: str, part: float) -> str:
        lane = shown.locator(f"canvas.lane[aria-label^='{name}']")
        lane.scroll_into_view_if_needed()
        box = lane.bounding_box()
        assert box is not None
        shown.mouse.move(box["x"] + part * box["width"], box["y"] + 5)
        return shown.locator("#clock").inner_text()

    assert at("SPY", 0.25).endswith("UTC, book observed")
    assert at("SPY", 0.4996).endswith("UTC, 2 snapshots missing: never stored")
    assert at("Alerts", 0.25).endswith("UTC, feed stale <b>")
    assert at("Alerts", 1 / 3).endswith("UTC, recovered")
    assert at("Connection", 0.0003).endswith("UTC, disconnected")


def test_book_of_every_symbol_can_be_chosen(shown: BrowserPage) -> None:
    titles = shown.locator("section.book h2")
    assert [title.is_visible() for title in titles.all()] == [True, False]
    shown.select_option("#book", "SPY")
    assert [title.inner_text() for title in titles.all() if title.is_visible()] == ["The book of SPY"]


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_table_of_the_symbols_is_not_cut_off(shown: BrowserPage, width: int) -> None:
    shown.set_viewport_size({"width": width, "height": 900})
    for cell in shown.locator("table.symbols td").all():
        box = cell.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
