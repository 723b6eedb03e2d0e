"""The report as one call: what the console script and the Dagster asset wrap."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import ArchiveUnavailable, ConfigurationError
from ibkr_depth_pipeline.report.day import RecordedDay, read_recorded_day
from ibkr_depth_pipeline.report.page import WrittenReport, write_beside, write_file

_TRIES = 3


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
    found = _read(store, _date(day, now.date()), calendar, list(dict.fromkeys(symbols)), now)
    return write_beside(store, found, now) if output is None else write_file(output, found, now)


def _read(store: ArchiveStore, day: date, calendar: str, symbols: Sequence[str], now: datetime) -> RecordedDay:
    for _ in range(_TRIES):
        try:
            return read_recorded_day(store, day, calendar, symbols, now_ms=round(now.timestamp() * 1000))
        except FileNotFoundError:  # a compaction has put another file in its place
            continue
    raise ArchiveUnavailable(f"archive {store.url}: files of {day} vanish while they are read")


def _date(text: str, today: date) -> date:
    if text.strip().lower() == "today":
        return today
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%d").date()
    except ValueError:
        allowed = "a UTC date such as 2026-01-05, or today"
        raise ConfigurationError("report", [f"DATE={text!r} is not allowed; {allowed}"]) from None
