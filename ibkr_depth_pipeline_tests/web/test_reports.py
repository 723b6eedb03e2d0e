"""Reports of days on the web page: as the archive has them, in a sandbox of their own."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from ibkr_depth_pipeline.report.page import make_report
from ibkr_depth_pipeline.web.application import HEADERS
from ibkr_depth_pipeline.web.reports import POLICY
from ibkr_depth_pipeline_tests.archive.conftest import Desk, Mirror, desk, mirror
from ibkr_depth_pipeline_tests.web.conftest import WebServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["desk", "mirror"]


@pytest.fixture
def server(mirror: Mirror, desk: Desk, tmp_path: Path) -> Iterator[WebServer]:
    """With an archive of SPY and the report of its one day."""
    mirror.write("SPY", range(1, 101), every=1000)
    assert desk.runs("run", "--once").returncode == 0  # in this process a browser has its loop
    now = datetime(2026, 1, 6, tzinfo=timezone.utc)
    make_report(desk.settings.archive_url, "2026-01-05", calendar="24/7", now=now)
    server = WebServer(desk.settings.redis_url, tmp_path, ARCHIVE_URL=desk.settings.archive_url)
    yield server
    server.end()


def ask(server: WebServer, path: str) -> tuple[int, str, http.client.HTTPMessage]:
    address = urlsplit(server.address)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers


def test_report_of_a_day_is_served_in_a_sandbox_and_no_other_file_is(
    server: WebServer, desk: Desk, browser: Browser
) -> None:
    status, text, headers = ask(server, "/reports/2026-01-05")
    assert (status, text) == (200, (Path(desk.settings.archive_url) / "reports/2026-01-05.html").read_text())
    assert headers.get_all("Content-Security-Policy") == [POLICY]
    assert headers["X-Content-Type-Options"] == HEADERS["X-Content-Type-Options"]
    assert ask(server, "/")[2].get_all("Content-Security-Policy") == [HEADERS["Content-Security-Policy"]]
    status, text, _ = ask(server, "/reports/2026-01-04")
    assert (status, text) == (404, "there is no report of 2026-01-04; to make one: ibkr_depth_report 2026-01-04\n")
    for path in ("today", "2026-01-05.html", "..%2fbooks", "2026-01-05/../../books", ""):
        assert ask(server, f"/reports/{path}")[0] == 404
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{server.address}reports/2026-01-05")
    page.locator("canvas.heat[data-drawn]").first.wait_for()
    assert page.evaluate("self.origin") == "null", "what stands in it is of no origin"
    assert complaints == []
    page.close()
