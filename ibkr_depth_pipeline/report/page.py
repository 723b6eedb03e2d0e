"""The page itself: one file of HTML that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ibkr_depth_pipeline.archive.layout import ReportPlace
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.report.day import RecordedDay
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
