"""The page in a real browser: it asks for nothing, fits, shows its pictures, and follows light, dark and paper."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity
from ibkr_depth_pipeline_tests.archive.conftest import Desk, Mirror
from ibkr_depth_pipeline_tests.dagster.browser import CHROMIUM
from ibkr_depth_pipeline_tests.report.conftest import OPEN, Report
from ibkr_depth_pipeline_tests.report.made_up import keep_figures

if TYPE_CHECKING:
    from playwright.sync_api import Page as BrowserPage

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="the package playwright is missing"),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}: apt-get install chromium"),
]
WHITE = "rgb(255, 255, 255)"
GROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def shown(mirror: Mirror, desk: Desk, report: Report) -> Iterator[BrowserPage]:
    """A page with everything on it, opened; what it asked for and complained about must be nothing."""
    from playwright.sync_api import sync_playwright

    for symbol in ("SPY", "BRK B"):
        mirror.write(symbol, [*range(1, 1800), *range(1802, 3602)], start=OPEN, every=1000)
    desk.keep()
    run = RunIdentity("run-1", "a-host-with-a-name", 77, OPEN)
    states = [
        FeedFigures(run, OPEN + at, connected=at > 4000, reconnects=at // 4000, refused_309=at // 2000, lag_p99_ms=5.0)
        for at in range(0, 20_000, 2000)
    ]
    keep_figures(desk.store, states)
    written, _ = report()
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: asked.append(message.text))
        page.on("pageerror", lambda error: asked.append(str(error)))
        page.goto(f"file://{written.path}")
        yield page
        browser.close()
    assert [url for url in asked if not url.startswith("data:")] == [f"file://{written.path}"]


@pytest.mark.parametrize("width", [360, 768, 1280, 2560])
def test_page_fits_every_width_and_all_pictures_are_there(shown: BrowserPage, width: int) -> None:
    shown.set_viewport_size({"width": width, "height": 900})
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    pictures = shown.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(pictures) == 3
    assert all(pictures)
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
