"""One symbol's date of an archive to a file that another tool reads, with a manifest beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ibkr_depth_pipeline.archive.archived_day import ArchivedDay, open_day
from ibkr_depth_pipeline.archive.layout import first_ms_of
from ibkr_depth_pipeline.archive.reading import days, symbols
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import ConfigurationError, ExportRefused, NothingKept, UnknownSymbol
from ibkr_depth_pipeline.export.archived import (
    INCREMENTS,
    Selection,
    books_of,
    decimals_of,
    has_received,
    increments_of,
    observed,
    with_contracts,
)
from ibkr_depth_pipeline.export.formats import (
    Content,
    ExportFormat,
    check_content,
    library_version,
    need_library,
    notes,
)
from ibkr_depth_pipeline.export.manifest import Tally, manifest, observed_in
from ibkr_depth_pipeline.export.output import Output, file_output, folder_output
from ibkr_depth_pipeline.export.writers import Subject, TableWriter, open_writer
from ibkr_depth_pipeline.formatting import utc_clock

MS_PER_DAY = 86_400_000
_LISTED = 20

Progress = Callable[[int, int], None]
"""Called with how many snapshots have been read, and how many there are."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, and where to.

    start_ms and end_ms are unix ms within the date, None for its beginning and end. settled_only None is the format's
    own choice. force replaces a file that is no export.
    """

    day: date
    symbol: str
    form: ExportFormat
    path: Path
    start_ms: int | None = None
    end_ms: int | None = None
    settled_only: bool | None = None
    content: Content = Content.LEVELS
    force: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that is there: its file, its manifest and what that holds."""

    path: Path
    manifest_path: Path
    manifest: dict[str, Any]


def export_day(store: ArchiveStore, request: ExportRequest, *, now: datetime, progress: Progress) -> Exported:
    """Writes the export and its manifest; both appear whole or not at all.

    Raises ConfigurationError for what was asked for wrongly, NothingKept, ExportRefused if nothing was observed or a
    value does not fit the format, and ArchiveUnavailable.
    """
    check_content(request.form, request.content)
    with _output(request) as output:
        need_library(request.form)
        archived = _opened(store, request)
        subject = _subject(archived, request)
        tally = Tally()
        write = _write_increments if request.content is Content.INCREMENTS else _write
        records = write(archived, subject, request, output.aside, tally, progress)
        if not tally.exported:
            raise ExportRefused(_nothing_selected(archived, subject.selection))
        found = manifest(
            archived,
            subject.selection,
            _form(request.form),
            notes(request.form),
            tally,
            program=metadata.version("ibkr_depth_pipeline"),
            records=records,
            files=output.files,
            made=now,
        )
        place = output.publish(json.dumps(found, indent=1) + "\n")
    return Exported(request.path, place, found)


def _output(request: ExportRequest) -> AbstractContextManager[Output]:
    if request.form is ExportFormat.NAUTILUS:
        return folder_output(request.path, f"{quote(request.symbol, safe='')}-{request.day}")
    return file_output(request.path, force=request.force)


def _write(
    archived: ArchivedDay, subject: Subject, request: ExportRequest, aside: Path, tally: Tally, progress: Progress
) -> int:
    """Returns the number of records written."""
    writer = open_writer(request.form, aside, subject, request.path.name)
    try:
        read = 0
        for count, books in books_of(archived, subject.selection):
            writer.write(books)
            tally.count(books.ts, int(np.count_nonzero(books.settled)))
            read += count
            progress(read, archived.snapshots)
        writer.finish()
    finally:
        writer.abandon()
    return writer.records


def _write_increments(
    archived: ArchivedDay, subject: Subject, request: ExportRequest, aside: Path, tally: Tally, progress: Progress
) -> int:
    """Returns the number of records written."""
    writer = TableWriter(aside, request.form, request.path.name, INCREMENTS)
    try:
        for table in increments_of(archived, subject.selection):
            writer.append(table)
            tally.count(table["ts"].cast("int64").to_numpy())
            progress(tally.exported, archived.snapshots)
        writer.finish()
    finally:
        writer.abandon()
    return writer.records


def _subject(archived: ArchivedDay, request: ExportRequest) -> Subject:
    begin = first_ms_of(request.day)
    settled_only = notes(request.form).settled_only if request.settled_only is None else request.settled_only
    selection = Selection(
        begin if request.start_ms is None else request.start_ms,
        begin + MS_PER_DAY if request.end_ms is None else request.end_ms,
        settled_only,
        request.content,
    )
    if not observed_in(archived, selection):
        raise ExportRefused(_nothing_observed(archived, selection))
    digits = decimals_of(archived) if request.form is ExportFormat.NAUTILUS else (0, 0)
    intervals = with_contracts(archived, observed(archived))
    return Subject(request.symbol, request.day, selection, tuple(intervals), digits, has_received(archived))


def _form(form: ExportFormat) -> dict[str, str]:
    note = notes(form)
    return {"name": form.value, "layout": note.layout, "library": f"{note.library} {library_version(form)}"}


# ---- what there is


def _opened(store: ArchiveStore, request: ExportRequest) -> ArchivedDay:
    kept = symbols(store, request.day)
    if not kept:
        raise NothingKept(_no_such_day(store, request.day))
    if request.symbol not in kept:
        where = f"archive {store.url} on {request.day}"
        raise ConfigurationError("export", [str(UnknownSymbol([request.symbol], kept, where))])
    return open_day(store, request.day, request.symbol)


def _no_such_day(store: ArchiveStore, day: date) -> str:
    kept = [str(each) for each in days(store)]
    there_is = f"there are {_listed(kept)}" if kept else "it holds no snapshot at all"
    return f"archive {store.url}: nothing is kept of {day}; {there_is}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _nothing_observed(archived: ArchivedDay, selection: Selection) -> str:
    spans = [f"{utc_clock(each.first_row or 0)} to {utc_clock(each.until or 0)}" for each in observed(archived)]
    within = f"from {utc_clock(selection.first_ms)} on, before {_clock_of_end(selection)}"
    return f"{archived.symbol} on {archived.day} was not observed at any time {within} (UTC); it was: {_listed(spans)}"


def _nothing_selected(archived: ArchivedDay, selection: Selection) -> str:
    if selection.content is Content.INCREMENTS:
        kept = f"no rows of depth are kept of {archived.symbol} on {archived.day} in that time"
        return f"{kept}; the recorder stores them with IBKR_STREAM_ROWS, the archiver keeps them with ARCHIVE_ROWS"
    which = "settled snapshot" if selection.settled_only else "snapshot"
    within = f"from {utc_clock(selection.first_ms)} on, before {_clock_of_end(selection)}"
    remedy = "; --snapshots all exports the others, too" if selection.settled_only else ""
    return f"there is no {which} of {archived.symbol} on {archived.day} {within} (UTC){remedy}"


def _clock_of_end(selection: Selection) -> str:
    return "24:00:00" if selection.end_ms % MS_PER_DAY == 0 else utc_clock(selection.end_ms)
