"""The web page: frames a second and cores for one symbol at 1,000 rows a second, and what a hundred viewers add."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.processes import BenchmarkFailed, Child, module
from bench.recorder import CLI, Stage, environment
from ibkr_depth_pipeline.simulation import gateway_process

ROWS_PER_SEC = 1_000
VIEWERS = ((0, 0.0), (1, 0.0), (10, 0.0), (100, 0.0), (100, 5.0), (100, 0.5))
"""How many, and how many messages each of them handles a second; 0 for all that come."""

THROTTLE = 20
"""A browser this many times slower than the machine."""

SYMBOL = "SPY"
CHROMIUM = Path("/usr/bin/chromium")
_WEB = (sys.executable, "-m", "ibkr_depth_pipeline.cli.depth_web", "--port", "0")
_SETTLING_SECS = 3.0
_LOOKS = 10


def measure(stage: Stage, secs: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Cores are CPU seconds a second, each figure over `secs` seconds. Raises BenchmarkFailed."""
    stage.redis.flush()
    with ExitStack() as stack:
        rate = f"{SYMBOL}={ROWS_PER_SEC}"
        _, port = stack.enter_context(gateway_process("--rate", rate, "--rows-per-second", "20"))
        env = environment(stage, port, [SYMBOL, "QQQ", "IWM"])
        stack.enter_context(Child(CLI, env, stage.folder))
        web, address = stack.enter_context(_page(stage))
        browser = _with_browser(web, address, secs)
        say(f"  a browser: {browser['fps']:.1f} frames a second, {browser['cores']:.2f} cores with the server's")
        slow = _with_browser(web, address, secs, THROTTLE)
        so_shown = f"{slow['thinned']:.0%} of the time so shown"
        say(f"  one {THROTTLE} times slower: {slow['fps']:.1f} frames a second, {so_shown}")
        viewers = [_with_viewers(web, address, *each, secs, say) for each in VIEWERS]
        return {"browser": browser, "slow": slow, "viewers": viewers}


@contextmanager
def _page(stage: Stage) -> Iterator[tuple[Child, str]]:
    with Child(_WEB, {"REDIS_URL": stage.redis.url}, stage.folder) as web:
        found = re.search(rb"http://\S+/", web.line())
        if found is None:
            raise web.failed("printed no address")
        yield web, found[0].decode()


def _with_browser(web: Child, address: str, secs: float, throttle: int = 1) -> dict[str, float]:
    """A real headless Chromium that shows the page, from the socket to the canvas; its processor may be throttled."""
    from playwright.sync_api import sync_playwright

    drawn = "Number(document.getElementById('heat').dataset.drawn)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": throttle})
        page.goto(f"{address}?symbol={SYMBOL}")
        page.wait_for_function(f"() => {drawn} > 60")  # a function: the policy lets nothing be evaluated
        time.sleep(_SETTLING_SECS)
        before, server_before, frames, began = _browser_secs(), web.cpu_secs(), page.evaluate(drawn), time.monotonic()
        thinned = 0
        for _ in range(_LOOKS):
            time.sleep(secs / _LOOKS)
            thinned += page.locator("#link").get_attribute("data-thinned") == "yes"
        took = time.monotonic() - began
        found = {
            "thinned": thinned / _LOOKS,
            "rss": web.peak_rss_mb(),
            "fps": (page.evaluate(drawn) - frames) / took,
            "browser": (_browser_secs() - before) / took,
            "server": (web.cpu_secs() - server_before) / took,
            "rows": float(page.locator("[data-figure='rows/s']").inner_text().replace(",", "")),
        }
        browser.close()
    return {**found, "cores": found["browser"] + found["server"]}


def _browser_secs() -> float:
    """CPU seconds of the browser that this process started, with all of its own processes."""
    return sum(
        times.user + times.system
        for each in psutil.Process().children(recursive=True)
        if "chrom" in each.name()
        for times in [each.cpu_times()]
    )


def _with_viewers(
    web: Child, address: str, count: int, pace: float, secs: float, say: Callable[[str], None]
) -> dict[str, float]:
    """`count` sockets that want the symbol's frames and acknowledge them, in a process of their own."""
    with Child(module("web_viewers", address, SYMBOL, count, secs + _SETTLING_SECS, pace)) as viewers:
        viewers.said("connected")
        time.sleep(_SETTLING_SECS)
        before, began = web.cpu_secs(), time.monotonic()
        time.sleep(secs)
        cores = (web.cpu_secs() - before) / (time.monotonic() - began)
        got = viewers.line_with("frames")
        if count and not got["frames"]:
            raise BenchmarkFailed("the viewers got no frame")
    found = {"viewers": count, "pace": pace, "cores": cores, "fps": got["frames"], "kb": got["kb"]}
    found |= {"thinned": got["thinned"], "rss_mb": web.peak_rss_mb()}
    each = f"{got['frames']:.1f} frames a second each, {got['thinned']:.1f} left out"
    say(f"  {count} viewers: {cores:.3f} cores of the server, {each}, peak RSS {found['rss_mb']:.0f} MB")
    return found
