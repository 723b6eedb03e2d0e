"""One server and one browser for all tests of the page; each test gets its own market and its own tab."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline_tests.dagster.browser import CHROMIUM
from ibkr_depth_pipeline_tests.web.market import RecordedMarket

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

START_SECS = 120.0
TABLE = "() => document.querySelectorAll('#universe tbody tr').length > 0"


class WebServer:
    """`ibkr_depth_web` as a process."""

    def __init__(self, redis_url: str, folder: Path, **settings: str) -> None:
        self.redis_url = redis_url
        self._folder = folder
        known = {name: value for name, value in os.environ.items() if not name.startswith("IBKR_WEB_")}
        self._env = {**known, "REDIS_URL": redis_url, "IBKR_WEB_PORT": "0", **settings}
        self._number = 0
        self.process: GuardedProcess
        self.start()

    def start(self) -> None:
        """Start it, again on the port that it had."""
        self._number += 1
        log = self._folder / f"web-{self._number}.log"
        command = (sys.executable, "-m", "ibkr_depth_pipeline.cli.depth_web")
        self.process = GuardedProcess(command, log_path=log, env=self._env, cwd=self._folder)
        assert wait_until(lambda: "Market" in log.read_text() or not self.process.running, START_SECS)
        found = re.search(r"(http://\S+:(\d+)/)(\S*)", log.read_text())
        assert found is not None, self.process.log_tail()
        self.address, port, self.query = found[1], found[2], found[3]
        self._env["IBKR_WEB_PORT"] = port

    def end(self) -> None:
        """Stop it as a service manager does."""
        self.process.end(grace_secs=10)


@pytest.fixture(scope="module")  # it asks the shared Redis twice a second, which other tests need not bear
def web(_shared_redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    _shared_redis.flush()
    market = RecordedMarket(_shared_redis.url)  # the server looks for new names every ten seconds only
    server = WebServer(_shared_redis.url, tmp_path_factory.mktemp("web"))
    yield server
    server.end()
    market.close()


@pytest.fixture
def market(web: WebServer, shared_redis_url: str) -> Iterator[RecordedMarket]:
    recorded = RecordedMarket(shared_redis_url)
    yield recorded
    recorded.close()


@pytest.fixture(scope="module")  # while playwright's loop runs, no test of asyncio can
def browser() -> Iterator[Browser]:
    pytest.importorskip("playwright", reason="the package playwright is missing")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """A page that was opened, and what its browser complained about: violations of the policy, errors of scripts."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def until(self, condition: str, argument: Any = None) -> None:
        """Wait until this JavaScript is true of the page."""
        self.page.wait_for_function(condition, arg=argument, polling=20)

    def shows(self, selector: str, text: str) -> None:
        """Wait until the first element has this text."""
        self.until("([at, text]) => document.querySelector(at)?.textContent.trim() === text", [selector, text])


@contextmanager
def opened(browser: Browser, address: str, shown: str = TABLE, **options: Any) -> Iterator[Tab]:
    """The page in a tab of its own, once `shown` is true of it: with its table."""
    settings: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **options}
    context = browser.new_context(**settings)
    context.set_default_timeout(30_000)
    tab = Tab(context.new_page())
    tab.page.goto(address)
    tab.until(shown)
    yield tab
    context.close()


@pytest.fixture
def tab(web: WebServer, market: RecordedMarket, browser: Browser) -> Iterator[Tab]:
    """The page, with SPY chosen; its browser must have nothing to complain about."""
    with opened(browser, f"{web.address}?symbol=SPY") as tab:
        tab.shows("#symbol", "SPY")
        yield tab
        assert tab.complaints == []


@pytest.fixture(scope="module")
def workbench(web: WebServer, browser: Browser) -> Iterator[Tab]:
    """A page for all tests of a module, which run the page's modules in it and leave it as it is."""
    with opened(browser, web.address) as tab:
        yield tab
        assert tab.complaints == []
