"""The report: reads a day, renders one HTML file that needs nothing else, and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ibkr_depth_pipeline.archive.layout import ReportPlace
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import ArchiveUnavailable, ConfigurationError
from ibkr_depth_pipeline.report.day import RecordedDay, read_recorded_day
from ibkr_depth_pipeline.report.view import page_view


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """Where the page is, how many bytes it has, and what it is about."""

    path: str
    bytes: int
    day: RecordedDay


def render(day: RecordedDay, made: datetime) -> str:
    """The page as text; `made` is when."""
    # Names of symbols, venues and hosts come from outside: everything is escaped.
    environment = Environment(
        loader=PackageLoader("ibkr_depth_pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(page=page_view(day, made))


def write_beside(store: ArchiveStore, day: RecordedDay, made: datetime) -> WrittenReport:
    """Write the page into the archive's own folder of reports, at once. Raises ArchiveUnavailable."""
    content, place = render(day, made).encode(), ReportPlace(day.day)
    with store.written_aside("report") as aside:
        aside.write_bytes(content)
        store.publish(aside, place)
    return WrittenReport(f"{store.url.rstrip('/')}/{place.name}", len(content), day)


def write_file(path: Path, day: RecordedDay, made: datetime) -> WrittenReport:
    """Write the page to a local file. Raises ConfigurationError if that can't be written."""
    content = render(day, made).encode()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigurationError("report", [f"{path} can't be written: {error.strerror or error}"]) from None
    return WrittenReport(str(path), len(content), day)


# ---- the report as one call


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
