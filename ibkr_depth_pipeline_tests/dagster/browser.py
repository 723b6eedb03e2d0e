"""Dagster's UI in a real headless Chromium, driven as an operator does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ibkr_depth_pipeline.box.embedded_redis import HOST

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = Path("/usr/bin/chromium")
LOCATION = "/locations/ibkr_depth_pipeline"
PATIENCE_MS = 80_000
_SIZE = {"width": 1400, "height": 900}


class Operator:
    """Somebody at the UI of the webserver at `port`, who keeps a picture of what is worth one in `pictures`."""

    def __init__(self, page: Page, port: int, pictures: Path) -> None:
        self.page = page
        self._base = f"http://{HOST}:{port}"
        self._pictures = pictures
        # Dagster's invitation to its community, which comes up at some moment of the first visit
        page.add_locator_handler(page.get_by_role("button", name="Skip"), lambda invitation: invitation.click())

    def open(self, path: str) -> None:
        self.page.goto(self._base + path)

    def sees(self, text: str) -> None:
        """Wait until it is on the page."""
        self.page.get_by_text(text).first.wait_for()

    def clicks(self, button: str) -> None:
        self.page.get_by_role("button", name=button).first.click()

    def keeps(self, picture: str) -> None:
        """A screenshot, once what is still loading has come."""
        self.page.wait_for_load_state("networkidle")
        self.page.screenshot(path=self._pictures / f"{picture}.png")

    def switches_on(self, sensor: str) -> None:
        self.open(f"{LOCATION}/sensors/{sensor}")
        switch = self.page.locator("input[type=checkbox]").first
        switch.wait_for(state="attached")
        switch.dispatch_event("click")  # the box itself is hidden beneath its picture
        self.page.locator("input[type=checkbox]:checked").first.wait_for(state="attached")

    def launches(self, job: str) -> str:
        """Launch it with no config, from its own page; the run's id. Ends on the run's page."""
        self.open(f"{LOCATION}/jobs/{job}")
        self.clicks("Materialize")
        self.clicks("Confirm")  # the symbols upstream have not been probed
        self.page.get_by_role("link", name="View", exact=True).click()
        self.page.wait_for_url("**/runs/*")
        return self.page.url.rpartition("/")[2]


@contextmanager
def operator(port: int, pictures: Path) -> Iterator[Operator]:
    """A browser of its own, gone afterwards."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # no sandbox: it needs rights that containers and root don't have; only our own pages are opened
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport=_SIZE)  # type: ignore[arg-type]
            page.set_default_timeout(PATIENCE_MS)
            yield Operator(page, port, pictures)
        finally:
            browser.close()
