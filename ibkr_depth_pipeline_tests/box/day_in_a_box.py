"""A day of `make run`, walked through by an operator with a browser, who keeps pictures of it.

As a program it makes the pictures of README.md and docs/ (make pictures).
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline_tests.box.running_box import Box, start
from ibkr_depth_pipeline_tests.dagster.browser import Operator, operator

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FEED = "/assets/raw/ibkr/depth/feed"
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
SCRIPT = "- {at: 90, fault: gateway_away, seconds: 30}\n- {at: 185, fault: session_closed}\n"
PATIENCE_SECS = 240.0
_WIDTH = 132


class DayInABox:
    """The day under way: its box, the operator at Dagster's UI, and the folder for pictures."""

    def __init__(self, box: Box, somebody: Operator, pictures: Path) -> None:
        self.box, self.somebody, self.pictures = box, somebody, pictures
        self.opened: list[str] = []

    @property
    def browser(self) -> Browser:
        browser = self.somebody.page.context.browser
        assert browser is not None
        return browser

    def walk(self) -> None:
        """The whole day, in its order. Raises where something is not as README.md says."""
        self.see_probe()
        self.see_session()
        self.see_market()
        self.see_outage()
        self.see_recovery()
        self.see_close()
        self.terminate_next_session()

    def see_probe(self) -> None:
        """The check of a symbol has passed, with its venue and its first book."""
        self.somebody.open("/assets/raw/ibkr/depth/symbol/SPY?view=checks")
        self.somebody.sees("market_depth")
        self.somebody.sees("Passed")
        self.somebody.page.get_by_text("market_depth").first.click()
        self.somebody.sees("ARCA")
        self.somebody.keeps("probe")

    def see_session(self) -> None:
        """The run is started and observes; the figures are plotted."""
        run = self.box.wait_for(r"Dagster UI +(\S+)")
        self.somebody.page.goto(run)
        self.somebody.sees("Started")
        self.somebody.sees("ASSET_OBSERVATION")
        self.somebody.keeps("run")
        self.somebody.open("/asset-groups")
        self.somebody.sees("NVDA")
        self.somebody.keeps("lineage")
        self.see_plots()

    def see_plots(self) -> None:
        self.somebody.open(f"{FEED}?view=overview")
        self.somebody.clicks("Plots")
        self.somebody.page.get_by_text("rows_per_sec").scroll_into_view_if_needed()
        assert self.somebody.page.locator("canvas").count() > 5

    def see_market(self) -> None:
        """The web page, on a desk in light and dark and on a phone."""
        address = self.box.wait_for(r"Market +(\S+)")
        for picture, size, scheme in (
            ("market-phone", PHONE, "dark"),
            ("market-dark", DESK, "dark"),
            ("market-light", DESK, "light"),
        ):
            page = self.browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(f"{address}?symbol=SPY")
            page.get_by_text("SPY").first.wait_for()
            page.wait_for_timeout(6_000)  # what the heat map is to show has yet to happen
            if scheme == "light":  # the first picture of README.md shows a live book
                page.locator("#where").get_by_text("live").wait_for()
                page.wait_for_timeout(2_000)
            page.evaluate("window.scrollTo(0, 0)")
            page.screenshot(path=self.pictures / f"{picture}.png")
            page.close()

    def see_outage(self) -> None:
        """The gateway goes away: the check fails, and the alert stands in the terminal and on the web page."""
        self.box.wait_for(r"(Fault: the gateway goes away)", PATIENCE_SECS)
        self.somebody.open(f"{FEED}?view=checks")
        self.somebody.sees("not connected to the gateway")
        self.somebody.keeps("failing-check")
        self.box.wait_for(r"(ALERT  IBKR depth default: feed stale \(gateway away\))", PATIENCE_SECS)
        self.keeps_alerts("feed stale (gateway away)")

    def see_recovery(self) -> None:
        """All is measured, the alert is taken back, and the check passes."""
        self.box.wait_for(r"Measured: the gateway goes away.*?live again after (\S+) s", PATIENCE_SECS)
        shown = self.box.wait_for(r"(?s)(Fault: .*RECOVERED.*?┗━)", PATIENCE_SECS)
        self.keeps_terminal("box", "\n".join(line for line in shown.splitlines() if "file://" not in line))
        self.see_plots()
        self.somebody.keeps("plots")

    def see_close(self) -> None:
        """The session's hours end, and the run is a success; its materialization shows who held a slot when, and the
        report is made, with the day's alert."""
        self.box.wait_for(r"Ingest run \w+ has ended: (SUCCESS)", PATIENCE_SECS)
        self.somebody.open(f"{FEED}?view=events")
        self.somebody.page.get_by_text("[Show Markdown]").first.click()
        picture = self.somebody.page.get_by_alt_text("Which symbol held a slot when")
        picture.wait_for()
        assert picture.evaluate("image => image.naturalWidth") > 100
        self.somebody.keeps("coverage")
        report = self.box.wait_for(r"(?s)SUCCESS.*Report +(file://\S+)", PATIENCE_SECS)
        self.keeps_page("report", report, "feed stale (gateway away)")

    def terminate_next_session(self) -> None:
        """The next day begins by itself; Terminate ends its session, and that is the one alert of it."""
        self.somebody.page.goto(self.box.wait_for(r"Session +(\S+)", PATIENCE_SECS))
        self.somebody.sees("Started")
        self.box.wait_for(r"(?s)SUCCESS.*?(rotation 4:)", PATIENCE_SECS)
        self.keeps_terminal("watch", self.watched())
        self.somebody.clicks("Terminate")
        self.somebody.clicks("Terminate 1 run")
        self.box.wait_for(r"has ended: (CANCELED)", PATIENCE_SECS)
        self.somebody.sees("Canceled")
        self.box.wait_for(r"(ALERT  IBKR depth default: ibkr_depth_ingest_job canceled)", PATIENCE_SECS)
        assert "(no ingest run)" not in self.box.output, "neither the close nor Terminate is trouble"

    # ---- pictures

    def keeps_alerts(self, headline: str) -> None:
        """The web page with all alerts, that one among them."""
        address = self.box.wait_for(r"Market +(\S+)")
        page = self.browser.new_page(viewport=DESK)  # type: ignore[arg-type]
        page.goto(f"{address}?symbol=SPY")
        page.get_by_text("SPY").first.wait_for()
        page.keyboard.press("a")
        page.locator("#alerts-list").get_by_text(headline).first.wait_for()
        page.wait_for_timeout(1_000)
        page.screenshot(path=self.pictures / "market-alerts.png")
        page.close()

    def keeps_page(self, picture: str, address: str, text: str) -> None:
        """The page, on which that text stands."""
        page = self.browser.new_page(viewport=DESK)  # type: ignore[arg-type]
        page.goto(address)
        page.get_by_text(text).first.wait_for()
        page.screenshot(path=self.pictures / f"{picture}.png")
        page.close()

    def keeps_terminal(self, picture: str, text: str) -> None:
        """`text`, with its colours, as a terminal shows it."""
        console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
        console.print(Text.from_ansi(text))
        page = self.browser.new_page(viewport=DESK)  # type: ignore[arg-type]
        page.set_content(f"<body style='margin:0'>{console.export_svg(title=picture)}")
        page.locator("svg").first.screenshot(path=self.pictures / f"{picture}.png")
        page.close()

    def watched(self) -> str:
        """A frame of `ibkr_depth_watch`, once it has something to show."""
        environment = {**os.environ, "REDIS_URL": self.box.wait_for(r"Redis +(redis://\S+)")}
        environment |= {"FORCE_COLOR": "1", "COLUMNS": str(_WIDTH), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        command = [sys.executable, "-m", "ibkr_depth_pipeline.cli.depth_watch", "--once", "SPY", "AAPL"]
        shown = ""

        def shows() -> bool:
            nonlocal shown
            with tempfile.TemporaryDirectory() as folder:  # no .env
                done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
            shown = done.stdout
            return "live" in shown

        assert wait_until(shows, 30), shown
        return shown


def day_in_a_box(folder: Path, pictures: Path, then: Callable[[DayInABox], Any]) -> None:
    """A box with its day in `folder`, and an operator; ended and cleared away however `then` ends."""
    script = folder / "day.yaml"
    script.write_text(SCRIPT)
    with ExitStack() as stack:
        box = start(stack, folder, "--script", str(script))
        page = box.wait_for(r"Dagster UI +http://127.0.0.1:(\d+)/runs/", PATIENCE_SECS)
        somebody = stack.enter_context(operator(int(page), pictures))
        try:
            then(DayInABox(box, somebody, pictures))
        except BaseException:
            print(box.output, file=sys.stderr)
            raise


def main() -> None:
    pictures = Path(sys.argv[1]).resolve()
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="day_in_a_box_") as folder:
        day_in_a_box(Path(folder), pictures, DayInABox.walk)
    print("\n".join(f"{path.stat().st_size // 1024:>5} kB  {path}" for path in sorted(pictures.glob("*.png"))))


if __name__ == "__main__":
    main()
