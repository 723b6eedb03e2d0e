"""`ibkr_depth_archive export`: an archived day as a file that another tool reads."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ibkr_depth_pipeline.archive import extra_needed
from ibkr_depth_pipeline.cli.errors import errors_as_exit_codes
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.settings import load_settings

_CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f")


def export(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write. Its manifest is put beside it.")],
    day: Annotated[str, typer.Option("--date", metavar="DATE", help="A UTC date, such as 2026-01-05, or today.")],
    symbol: Annotated[str, typer.Option("--symbol", help="The symbol, as the universe names it.")],
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="parquet, csv, dbn, hftbacktest or nautilus: docs/data.md.")
    ],
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="From this UTC time on, such as 14:30.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Before this UTC time, such as 15:00.")] = "",
    snapshots: Annotated[
        str,
        typer.Option(
            help="settled: without half-done price moves and the partial books at the beginning of a turn; or all. "
            "Default: all, but settled for hftbacktest and nautilus."
        ),
    ] = "",
    rows: Annotated[
        bool, typer.Option("--rows", help="Snapshots with their rows as they stood, not added up: parquet, csv.")
    ] = False,
    increments: Annotated[
        bool,
        typer.Option("--increments", help="Rows of depth as they came, if ARCHIVE_ROWS kept them: parquet, csv."),
    ] = False,
    archive: Annotated[str, typer.Option(help="The archive's folder or URL. Default: ARCHIVE_URL.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is no export.")] = False,
) -> None:
    """Export a symbol's day to another tool's format, with a manifest that says what it holds and what it lacks.

    The file appears whole or not at all. Unobserved time stays unobserved: no book is made up for it. Exit code 1 if
    nothing is kept or was observed, or a value does not fit the format, 2 if what you gave is wrong.

    Examples:

      ibkr_depth_archive export --date 2026-01-05 --symbol SPY --to parquet spy.parquet

      ibkr_depth_archive export --date 2026-01-05 --symbol SPY --to dbn --from 14:30 --until 15:00 spy.dbn.zst
    """
    with errors_as_exit_codes(), extra_needed(), _ended_by_signals():
        settings = load_settings(archive_url=archive or None)
        configure_logging(settings.ibkr_log_level)
        from ibkr_depth_pipeline.archive.store import ArchiveStore
        from ibkr_depth_pipeline.export.exporting import ExportRequest, export_day
        from ibkr_depth_pipeline.export.formats import Content, parse_format

        date_of = _date(day)
        start_ms, end_ms = _moment("--from", start, date_of), _moment("--until", until, date_of)
        if start_ms is not None and end_ms is not None and start_ms >= end_ms:
            raise ConfigurationError("export", [f"--from {start} is not before --until {until}"])
        request = ExportRequest(
            day=date_of,
            symbol=symbol,
            form=parse_format(to),
            path=path,
            start_ms=start_ms,
            end_ms=end_ms,
            settled_only=_settled_only(snapshots),
            content=Content.INCREMENTS if increments else Content.ROWS if rows else Content.LEVELS,
            force=force,
        )
        with _progress(f"{symbol} {date_of}") as progress:
            done = export_day(
                ArchiveStore(settings.archive_url), request, now=datetime.now(timezone.utc), progress=progress
            )
    counts = done.manifest["counts"]
    seconds = done.manifest["observed_seconds"]
    exported = f"{counts['rows']} rows" if increments else f"{counts['snapshots']} snapshots"
    typer.echo(f"{done.path}: {exported}, {counts['records']} records, {seconds:.1f} s observed")
    typer.echo(f"{done.manifest_path}: {len(done.manifest['intervals'])} intervals, {counts['missing']} missing")


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """A bar on stderr while it lasts, if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda read, total: bar.update(task, completed=read, total=total)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that nothing half-done stays."""

    def leave(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _date(text: str) -> date:
    if text.strip().lower() == "today":
        return datetime.now(timezone.utc).date()
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%d").date()
    except ValueError:
        problem = f"--date {text!r} is not allowed; a UTC date such as 2026-01-05, or today"
        raise ConfigurationError("export", [problem]) from None


def _moment(option: str, text: str, day: date) -> int | None:
    """Unix ms of a UTC time on that date; None without one."""
    if not text.strip():
        return None
    if text.strip() in ("24:00", "24:00:00"):
        return _moment(option, "00:00", day + timedelta(days=1))
    for form in _CLOCKS:
        try:
            clock = datetime.strptime(text.strip(), form).time()
        except ValueError:
            continue
        return round(datetime.combine(day, clock, timezone.utc).timestamp() * 1000)
    problem = f"{option} {text!r} is not allowed; a UTC time of that date, such as 14:30 or 14:30:05.250"
    raise ConfigurationError("export", [problem])


def _settled_only(text: str) -> bool | None:
    wanted = text.strip().lower()
    if wanted not in ("", "all", "settled"):
        raise ConfigurationError("export", [f"--snapshots {text!r} is not allowed; all or settled"])
    return None if not wanted else wanted == "settled"
