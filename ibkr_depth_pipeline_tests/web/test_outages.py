"""What the page shows while its server, Redis or the gateway is away, and that it goes on by itself."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.faults.ingest_process import environment_of, ingest_process
from ibkr_depth_pipeline_tests.web.conftest import WebServer, opened
from ibkr_depth_pipeline_tests.web.market import RecordedMarket

if TYPE_CHECKING:
    from playwright.sync_api import Browser

AWAY = "() => document.body.classList.contains('away')"
BACK = "() => !document.body.classList.contains('away') && document.getElementById('banner').hidden"


def test_page_connects_again_when_its_server_is_restarted(
    redis_server: EmbeddedRedis, browser: Browser, tmp_path: Path
) -> None:
    market = RecordedMarket(redis_server.url)
    web = WebServer(redis_server.url, tmp_path)
    try:
        with opened(browser, f"{web.address}?symbol=SPY") as tab:
            tab.shows("#ladder .bid td:last-child", "100.00")
            web.process.send(signal.SIGTERM)
            assert wait_until(lambda: not web.process.running, PATIENCE_SECS)
            assert web.process.exit_code == 0
            tab.until(AWAY)
            assert "server is away" in tab.text("#banner")
            age = tab.text("tr[data-symbol='SPY'] .age")
            tab.until("age => document.querySelector(\"tr[data-symbol='SPY'] .age\").textContent !== age", age)
            web.process.end()
            web.start()
            tab.until(BACK)
            market.publish()
            market.row("SPY", 123.45)
            tab.shows("#ladder .bid td:last-child", "123.45")
    finally:
        web.end()
        market.close()


@pytest.mark.faults
@pytest.mark.parametrize("how", ["killed", "paused"])
def test_page_shows_that_redis_is_away_and_goes_on(
    redis_server: EmbeddedRedis, browser: Browser, tmp_path: Path, how: str
) -> None:
    market = RecordedMarket(redis_server.url)
    web = WebServer(redis_server.url, tmp_path)
    try:
        with opened(browser, f"{web.address}?symbol=SPY") as tab:
            tab.shows("#ladder .bid td:last-child", "100.00")
            redis_server.kill() if how == "killed" else redis_server.pause()
            tab.until(AWAY)
            assert "Redis" in tab.text("#banner")
            tab.shows("tr[data-symbol='SPY'] .state", "UNKNOWN")
            redis_server.restart() if how == "killed" else redis_server.resume()
            market = RecordedMarket(redis_server.url) if how == "killed" else market
            market.publish()
            tab.until(BACK)
            market.row("SPY", 200.5)
            tab.shows("#ladder .bid td:last-child", "200.50")
    finally:
        web.end()
        market.close()


@pytest.mark.faults
def test_page_waits_for_a_redis_that_is_not_there_yet(
    redis_server: EmbeddedRedis, browser: Browser, tmp_path: Path
) -> None:
    redis_server.kill()
    web = WebServer(redis_server.url, tmp_path)
    try:
        page = browser.new_page()
        page.goto(web.address)
        page.get_by_text("Nothing is known while Redis is away.").wait_for()
        assert "Redis at redis://127.0.0.1" in page.locator("#banner").inner_text()
        redis_server.restart(wipe=True)
        page.get_by_text("Nothing has been recorded in this Redis yet.").wait_for()
        market = RecordedMarket(redis_server.url)
        page.locator("tr[data-symbol='SPY']").wait_for()
        market.close()
        page.close()
    finally:
        web.end()


@pytest.mark.faults
def test_gateway_that_goes_away_is_seen_on_the_page(
    redis_server: EmbeddedRedis, browser: Browser, tmp_path: Path
) -> None:
    """With the recorder itself; docs/faults.md has how long it took."""
    with GatewayThread() as gateway:
        environment = environment_of(tmp_path, gateway.port, redis_server.url, "SPY", "QQQ", "IWM")
        web = WebServer(redis_server.url, tmp_path)
        try:
            with ingest_process(tmp_path, "run", environment), opened(browser, f"{web.address}?symbol=SPY") as tab:
                tab.until("() => document.querySelector(\"tr[data-symbol='SPY']\")?.dataset.state === 'live'")
                tab.until("() => document.getElementById('banner').hidden")
                gateway.do(lambda simulated: (simulated.refuse_connections(), simulated.drop_connections())[0])
                took = tab.page.evaluate(
                    """async () => {
                        const began = performance.now();
                        const banner = document.getElementById('banner');
                        const seen = () => !banner.hidden && banner.textContent.includes('gateway');
                        while (!seen()) await new Promise(done => setTimeout(done, 10));
                        return performance.now() - began;
                    }"""
                )
                print(f"seen after {took:.0f} ms")
        finally:
            web.end()
