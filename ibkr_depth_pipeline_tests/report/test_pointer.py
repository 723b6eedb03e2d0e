"""What the pointer shows of subscriptions on record: their edges to the millisecond, why one ended, the ten levels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline_tests.archive.conftest import Desk, Mirror, book
from ibkr_depth_pipeline_tests.report.conftest import OPEN, Report
from ibkr_depth_pipeline_tests.report.test_browser import HEAT, chromium, pytestmark

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as BrowserPage

__all__ = ["chromium", "pytestmark"]


def interval(
    symbol: str, number: int, requested: int, first: int | None, until: int | None, **more: Any
) -> SubscriptionInterval:
    """Its moments are ms after OPEN; a snapshot a second."""
    fields: dict[str, Any] = {"requested": OPEN + requested, "end": EndReason.TURN_OVER}
    if first is not None and until is not None:
        seqs = {"first_seq": first // 1000 + 1, "last_seq": until // 1000 + 1}
        fields |= {"first_row": OPEN + first, "until": OPEN + until, **seqs}
    return SubscriptionInterval(symbol, number, "ISLAND", **{**fields, **more})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page lies for all tests, once the first one has made it."""
    return tmp_path_factory.mktemp("pointer") / "page.html"


@pytest.fixture
def page_file(kept: Path, mirror: Mirror, desk: Desk, report: Report) -> Path:
    """SPY observed for 10 s, refused, and again until its connection is lost; QQQ without a record."""
    if kept.exists():
        return kept
    mirror.write("SPY", range(1, 11), start=OPEN, every=1000)
    mirror.write("SPY", range(11, 21), start=OPEN + 300_000, every=1000)
    mirror.write("QQQ", range(1, 601), start=OPEN, every=1000)
    mirror.write_interval(interval("SPY", 1, -500, 0, 10_250, last_seq=10), OPEN + 10_250)
    mirror.write_interval(interval("SPY", 2, 100_000, None, None, end=EndReason.SLOT_REFUSED), OPEN + 100_400)
    lost = interval("SPY", 3, 299_000, 300_000, 310_400, first_seq=11, last_seq=20, end=EndReason.CONNECTION_LOST)
    mirror.write_interval(lost, OPEN + 310_400)
    desk.keep()
    report(output=kept, symbols=["SPY"])
    return kept


@pytest.fixture
def shown(page_file: Path, request: pytest.FixtureRequest) -> Iterator[BrowserPage]:
    browser: Browser = request.getfixturevalue("chromium")  # once the page is made: no asyncio runs beside playwright
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(page_file.as_uri())
    page.locator("canvas.heat[data-drawn]").first.wait_for()
    yield page
    page.close()
    assert complaints == []


def point(page: BrowserPage, canvas: str, part: float) -> str:
    """What stands at the pointer in this part of the axis."""
    plot = page.locator(canvas).locator("xpath=..")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + part * box["width"], box["y"] + 5)
    return page.locator("#clock").inner_text()


def test_edges_of_subscriptions_are_those_on_record(shown: BrowserPage) -> None:
    lane = "canvas.lane[aria-label^='SPY']"
    packed = orjson.loads(shown.locator(lane).get_attribute("data-lane") or "")["turns"]
    assert packed[1:] == [500, 10_250, 0, 89_750, None, 0, "slot_refused", 199_000, 1_000, 10_400, "connection_lost"]
    assert point(shown, lane, 0.01).endswith("UTC, book observed")
    assert point(shown, lane, 100 / 601).endswith("UTC, no slot was free (309)")
    assert point(shown, lane, 310.4 / 601).endswith("UTC, connection lost")
    assert "to the millisecond" not in shown.locator("body").inner_text()  # QQQ has no record


def test_ladder_shows_the_ten_levels_at_the_pointer(shown: BrowserPage) -> None:
    """A bin of a second holds one snapshot: its mean is that snapshot's book."""
    assert shown.locator(".book-at output").inner_text() == "14:35:10 UTC"  # the last one, while nothing is pointed at
    point(shown, HEAT, 4.5 / 601)
    assert shown.locator(".book-at output").inner_text() == "14:30:04 UTC"
    rows = shown.locator("table.ladder tr[data-level]").evaluate_all(
        "rows => rows.map(({ className, cells }) => [className, cells[2].textContent, cells[1].textContent])"
    )
    bids, asks = book(5)
    expected = [["ask", f"{price:.2f}", size] for price, size, _ in reversed(asks)]
    expected += [["bid", f"{price:.2f}", size] for price, size, _ in bids]
    assert [row[:2] for row in rows] == [row[:2] for row in expected]
    assert [float(row[2]) for row in rows] == pytest.approx([row[2] for row in expected], rel=0.06)
    point(shown, "canvas.lane[aria-label^='QQQ']", 200 / 601)
    assert shown.locator(".book-at output").inner_text() == "not observed: no slot was free (309)"
    assert shown.locator("table.ladder .bid td:last-child").first.inner_text() == "\u00b7"
    shown.set_viewport_size({"width": 390, "height": 844})
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
