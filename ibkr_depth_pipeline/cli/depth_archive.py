"""`ibkr_depth_archive`: keep the streams as Parquet files, make days of them, check them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ibkr_depth_pipeline.archive import extra_needed
from ibkr_depth_pipeline.cli.depth_export import export
from ibkr_depth_pipeline.cli.errors import FAILED, errors_as_exit_codes
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from ibkr_depth_pipeline.archive.audit import SymbolAudit

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Keeps what the ingest mirrors into Redis as Parquet files, for good.\n\n"
    "Settings come from the environment or from .env (see .env.example): ARCHIVE_URL, ARCHIVE_FLUSH_SECS, "
    "ARCHIVE_RETENTION_DAYS, REDIS_URL and more. docs/archive.md says what stands where and how to read it.\n\n"
    "Begin with: ibkr_depth_archive run",
)


app.command()(export)


def _that_can_be_kept(day: datetime | None) -> datetime | None:
    """The date itself. Raises BadParameter for one of which no snapshot can be: stream ids are unix time."""
    today = datetime.now(timezone.utc).date()
    if day is not None and not date(1970, 1, 1) <= day.date() <= today:
        raise typer.BadParameter(f"{day.date()} is not allowed; a UTC date from 1970-01-01 to today, {today}")
    return day


Symbols = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads this form under Python 3.10
    typer.Option("--symbol", help="Only this symbol; may be given more than once. Default: every stream there is."),
]
Day = Annotated[
    Optional[datetime],  # noqa: UP045
    typer.Argument(
        formats=["%Y-%m-%d"],
        metavar="[DATE]",
        callback=_that_can_be_kept,
        help="A UTC date, such as 2026-01-05. Default: yesterday.",
    ),
]


@app.command()
def run(
    symbol: Symbols = None,
    once: Annotated[bool, typer.Option("--once", help="End when everything that is in the streams is kept.")] = False,
    duration: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.1, max=1e9, help="End after so many seconds. Default: run until Ctrl-C."),
    ] = None,
) -> None:
    """Follow the streams and keep every snapshot until Ctrl-C or SIGTERM.

    It goes on where the files end, after a kill as well. The log goes to stderr, one JSON object a line. Exit code 1 if
    it fails or could not store everything it had read (which the next run reads again), 2 if a setting is wrong.

    Examples:

      ibkr_depth_archive run

      ARCHIVE_URL=s3://bucket/depth ibkr_depth_archive run --symbol AAPL
    """
    with _set_up() as settings:
        from ibkr_depth_pipeline.archive.archiver import run_archiver

        summary = run_archiver(settings, symbol or (), once=once, duration=duration).summary
    kept = sum(summary.snapshots.values())
    typer.echo(f"{kept} snapshots of {len(summary.snapshots)} symbols kept in {summary.files} files")
    if not summary.drained:
        typer.echo("error: the store did not take everything in time; the next run reads the rest again", err=True)
        raise typer.Exit(FAILED)


@app.command()
def compact(day: Day = None) -> None:
    """Make one file per symbol of a day's parts. Doing it again changes nothing; what came late is merged in."""
    with _set_up() as settings:
        from ibkr_depth_pipeline.archive.maintenance import compact_day
        from ibkr_depth_pipeline.archive.store import ArchiveStore

        done = compact_day(ArchiveStore(settings.archive_url), _date(day))
    for each in done:
        typer.echo(f"{each.symbol}: {each.parts} parts, {each.rows} snapshots, {each.bytes} bytes")
    if not done:
        typer.echo(f"nothing is kept of {_date(day)}")


@app.command()
def check(
    day: Day = None,
    calendar: Annotated[
        str, typer.Option(help="Whose session is to be covered, such as XNYS or 24/7. Default: IBKR_CALENDAR.")
    ] = "",
    least_coverage: Annotated[
        float, typer.Option(min=0, max=1, help="Fail below this share of the session with a live book.")
    ] = 0.0,
) -> None:
    """Check a day: seq without holes, books ordered and not crossed, coverage, row counts against the ingest's.

    One line each, ok or FAIL. Exit code 1 if one fails, or if nothing is kept of a day on which the exchange was open.
    """
    with _set_up() as settings:
        from ibkr_depth_pipeline.archive.audit import audit_day, session_of

        audits = audit_day(settings, _date(day), calendar=calendar, least_coverage=least_coverage)
        open_that_day = session_of(calendar or settings.ibkr_calendar, _date(day)) != (None, None)
    for audit in audits:
        _tell(audit)
    if not audits:
        _tell_of_nothing(_date(day), open_that_day)
    if not all(audit.passed for audit in audits) or (open_that_day and not audits):
        raise typer.Exit(FAILED)


@app.command()
def holes(day: Day = None, everything: Annotated[bool, typer.Option("--all", help="Of every day.")] = False) -> None:
    """List the snapshots that are missing for good, and why."""
    with _set_up() as settings:
        from ibkr_depth_pipeline.archive.layout import day_of
        from ibkr_depth_pipeline.archive.reading import all_gaps
        from ibkr_depth_pipeline.archive.store import ArchiveStore

        found = all_gaps(ArchiveStore(settings.archive_url))
    for gap in found:
        if everything or day_of(gap.next_ts) == _date(day):
            where = f"{gap.symbol} seq {gap.first_seq} to {gap.last_seq}"
            typer.echo(f"{where}: {gap.size} missing before {_utc(gap.next_ts)}, {gap.cause.value}")


@app.command()
def prune(
    most: Annotated[int, typer.Option(min=1, help="Delete at most so many dates at once.")] = 5,
) -> None:
    """Delete the days that ARCHIVE_RETENTION_DAYS does not keep. `run` does so by itself, once a day.

    Age is counted from the newest date in the archive, and one run deletes few dates, so that a clock that is far ahead
    does not cost the archive.
    """
    with _set_up() as settings:
        from ibkr_depth_pipeline.archive.maintenance import Pruning, prune_expired
        from ibkr_depth_pipeline.archive.store import ArchiveStore

        days, today = settings.archive_retention_days, datetime.now(timezone.utc).date()
        done = prune_expired(ArchiveStore(settings.archive_url), days, today, most) if days else Pruning((), ())
    gone = done.deleted
    typer.echo(f"{len(gone)} days deleted" + (f": {', '.join(map(str, gone))}" if gone else ""))
    if done.held:
        typer.echo(f"{len(done.held)} more are past ARCHIVE_RETENTION_DAYS; if no clock was wrong: prune --most N")


@contextmanager
def _set_up() -> Iterator[Settings]:
    with errors_as_exit_codes():
        settings = load_settings()
        configure_logging(settings.ibkr_log_level)
        with extra_needed():
            yield settings


def _date(day: datetime | None) -> date:
    return day.date() if day is not None else datetime.now(timezone.utc).date() - timedelta(days=1)


def _tell_of_nothing(day: date, open_that_day: bool) -> None:
    if open_that_day:
        typer.echo(f"FAIL nothing is kept of {day}, and the exchange was open that day")
    else:
        typer.echo(f"nothing is kept of {day}")


def _tell(audit: SymbolAudit) -> None:
    for finding in audit.results:
        said = ", ".join(f"{name} {_number(value)}" for name, value in finding.figures.items())
        typer.echo(f"{'ok  ' if finding.passed else 'FAIL'} {audit.symbol} {finding.check}: {said}")
        for problem in finding.problems:
            typer.echo(f"     {problem}")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _utc(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1000, timezone.utc).isoformat(timespec="milliseconds")


if __name__ == "__main__":
    app()
