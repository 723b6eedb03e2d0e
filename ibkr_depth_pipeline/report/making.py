"""The report as one call: what the console script and the Dagster asset wrap."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.report.day import read_recorded_day
from ibkr_depth_pipeline.report.page import WrittenReport, write_beside, write_file


def make_report(
    archive: str,
    day: str,
    *,
    calendar: str,
    now: datetime,
    symbols: Sequence[str] = (),
    output: Path | None = None,
) -> WrittenReport:
    """Read `day` (2026-01-05, or `today`; UTC) of the archive at that URL and write its page, beside it or to `output`.

    `symbols` are those whose book is drawn, or else the busiest; `now` is in UTC. Raises NothingKept,
    ArchiveUnavailable, and ConfigurationError for what was given wrongly.
    """
    store = ArchiveStore(archive)
    wanted = list(dict.fromkeys(symbols))
    found = read_recorded_day(store, _date(day, now.date()), calendar, wanted, now_ms=round(now.timestamp() * 1000))
    return write_beside(store, found, now) if output is None else write_file(output, found, now)


def _date(text: str, today: date) -> date:
    if text.strip().lower() == "today":
        return today
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%d").date()
    except ValueError:
        allowed = "a UTC date such as 2026-01-05, or today"
        raise ConfigurationError("report", [f"DATE={text!r} is not allowed; {allowed}"]) from None
