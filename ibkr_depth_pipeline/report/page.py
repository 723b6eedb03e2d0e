"""The report: reads a day, renders one HTML file that needs nothing else, and writes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ibkr_depth_pipeline import drawing
from ibkr_depth_pipeline.archive.layout import ReportPlace, first_ms_of
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import ArchiveUnavailable, ConfigurationError
from ibkr_depth_pipeline.report.day import RecordedDay, read_recorded_day
from ibkr_depth_pipeline.report.symbol_day import Window
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
    return environment.get_template("page.html.j2").render(
        page=page_view(day, made),
        drawing_style=Markup(drawing.stylesheet()),
        drawing_script=Markup(drawing.script()),
    )


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
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


def make_report(
    archive: str,
    day: str,
    *,
    calendar: str,
    now: datetime,
    symbols: Sequence[str] = (),
    output: Path | None = None,
    since: str = "",
    until: str = "",
) -> WrittenReport:
    """Read `day` (2026-01-05, or `today`; UTC) of the archive at that URL and write its page, beside it or to `output`.

    `symbols` are those whose book is drawn, or else all; `now` is in UTC. `since` and `until` are times of that day,
    such as 14:30 or 14:30:15 (UTC): the page is of what lies between. Raises NothingKept, ArchiveUnavailable, and
    ConfigurationError for what was given wrongly.
    """
    store, date_ = ArchiveStore(archive), _date(day, now.date())
    found = _read(store, date_, calendar, list(dict.fromkeys(symbols)), now, part_of(date_, since, until))
    return write_beside(store, found, now) if output is None else write_file(output, found, now)


def part_of(day: date, since: str, until: str) -> Window | None:
    """The part of the UTC date from `since` to `until`; None if both are "". Raises ConfigurationError."""
    if not since and not until:
        return None
    midnight = first_ms_of(day)
    start, end = midnight + _ms_of("--from", since or "00:00"), midnight + _ms_of("--to", until or "24:00")
    if end <= start:
        raise ConfigurationError("report", [f"--from {since} is not before --to {until}"])
    return Window(start, end)


def _ms_of(option: str, text: str) -> int:
    found = _TIME.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (99, 0, 0)
    if minutes > 59 or seconds > 59 or hours * 3600 + minutes * 60 + seconds > 86_400:
        allowed = "a time of the UTC day, such as 14:30 or 14:30:15"
        raise ConfigurationError("report", [f"{option} {text!r} is not allowed; {allowed}"])
    return 1000 * (hours * 3600 + minutes * 60 + seconds)


def _read(
    store: ArchiveStore, day: date, calendar: str, symbols: Sequence[str], now: datetime, within: Window | None
) -> RecordedDay:
    for _ in range(_TRIES):
        try:
            now_ms = round(now.timestamp() * 1000)
            return read_recorded_day(store, day, calendar, symbols, now_ms=now_ms, within=within)
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
