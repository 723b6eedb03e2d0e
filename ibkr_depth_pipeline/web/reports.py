"""The reports of days, as the archive holds them: the one thing here that is not read from Redis."""

from __future__ import annotations

import asyncio
from datetime import date

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ibkr_depth_pipeline.archive import extra_needed
from ibkr_depth_pipeline.errors import ArchiveUnavailable, ConfigurationError

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "sandbox allow-scripts allow-downloads; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A report is one file, its script in itself; in its sandbox it reaches neither this server nor its cookie."""


class Reports:
    """Those in the archive at `url` (ARCHIVE_URL), which is opened at each request."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def page(self, request: Request) -> Response:
        """`/reports/2026-01-05`: the page of that UTC date, if one was made."""
        try:
            day = date.fromisoformat(request.path_params["day"])
        except ValueError:
            return PlainTextResponse("no date; such as /reports/2026-01-05\n", 404)
        try:
            found = await asyncio.to_thread(self._read, day)
        except (ArchiveUnavailable, ConfigurationError) as error:
            return PlainTextResponse(f"{error}\n", 503)
        if found is None:
            return PlainTextResponse(f"there is no report of {day}; to make one: ibkr_depth_report {day}\n", 404)
        return Response(found, media_type="text/html", headers={"Content-Security-Policy": POLICY})

    def _read(self, day: date) -> bytes | None:
        with extra_needed():
            from ibkr_depth_pipeline.archive.layout import ReportPlace
            from ibkr_depth_pipeline.archive.store import ArchiveStore

            return ArchiveStore(self._url).report(ReportPlace(day))
