"""`ibkr_depth_archive`: keep the streams as Parquet files, make days of them, check them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ibkr_depth_pipeline.archive import extra_needed
from ibkr_depth_pipeline.cli.depth_export import export
from ibkr_depth_pipeline.cli.errors import FAILED, errors_as_exit_codes
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.formatting import duration
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from ibkr_depth_pipeline.archive.audit import SymbolAudit
    from ibkr_depth_pipeline.archive.listing import ListedDay
    from ibkr_depth_pipeline.archive.store import ArchiveStore

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


Archive = Annotated[str, typer.Option(help="The archive's folder or URL. Default: ARCHIVE_URL.")]


@app.command()
def run(
    symbol: Symbols = None,
    archive: Archive = "",
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
    with _set_up(archive) as settings:
        from ibkr_depth_pipeline.archive.archiver import run_archiver

        summary = run_archiver(settings, symbol or (), once=once, duration=duration).summary
    kept = sum(summary.snapshots.values())
    counted = f"{kept} snapshots of {len(summary.snapshots)} symbols kept in {summary.files} files"
    typer.echo(f"{counted} of the archive {settings.archive_url}")
    if not summary.drained:
        typer.echo("error: the store did not take everything in time; the next run reads the rest again", err=True)
        raise typer.Exit(FAILED)


@app.command()
def compact(day: Day = None, archive: Archive = "") -> None:
    """Make one file per symbol of a day's parts. Doing it again changes nothing; what came late is merged in."""
    with _opened(archive) as (store, _):
        from ibkr_depth_pipeline.archive.maintenance import compact_day

        done = compact_day(store, _date(day))
    for each in done:
        typer.echo(f"{each.symbol}: {each.parts} parts, {each.rows} snapshots, {each.bytes} bytes")
    if not done:
        typer.echo(f"nothing is kept of {_date(day)}")


@app.command()
def convert(archive: Archive = "") -> None:
    """Make books of the folders parts/ and days/ of an older archive. Compacting a date does it for that date."""
    with _opened(archive) as (store, _):
        from ibkr_depth_pipeline.archive.maintenance import convert_old_layout

        dates = set()
        for day, done in convert_old_layout(store):
            dates.add(day)
            typer.echo(f"{day} {done.symbol}: {done.rows} snapshots, {done.bytes} bytes")
    typer.echo(f"{len(dates)} dates converted")


@app.command(name="list")
def list_archive(
    day: Annotated[
        Optional[list[datetime]],  # noqa: UP045
        typer.Option("--date", formats=["%Y-%m-%d"], help="Only this UTC date; may be given more than once."),
    ] = None,
    symbol: Symbols = None,
    archive: Archive = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """List dates and symbols: snapshots, observed time, holes, bytes; then the alerts that were kept.

    Observed is the time in which the book was known to be live. With a ~ it is inferred from the snapshots, wholly or
    in part: a recorder of before left no record of it, or an interval is still open.
    """
    with _opened(archive) as (store, _):
        from ibkr_depth_pipeline.archive.listing import list_alerts, list_days

        wanted = [each.date() for each in day or ()]
        listed = list_days(store, wanted, symbol or ())
        if as_json:
            days = [each.as_json() for each in listed]
            alerts = [each.as_json() for each in list_alerts(store, wanted)]
            typer.echo(json.dumps({"archive": store.place, "days": days, "alerts": alerts}, indent=2))
            return
        _print_list(listed)
        for each in list_alerts(store, wanted):
            typer.echo(f"{each.day}  {each.ingest}: {each.alerts} alerts, {each.trouble} of trouble")


def _print_list(listed: Iterable[ListedDay]) -> None:
    columns = "{:<10}  {:<12} {:>11} {:>13} {:>6} {:>9} {:>13}"
    typer.echo(columns.format("date", "symbol", "snapshots", "observed", "holes", "missing", "bytes"))
    for each in listed:
        observed = ("~" if each.inferred else "") + duration(each.observed_ms, fine=True)
        counts = (f"{number:,}" for number in (each.holes, each.missing, each.bytes))
        typer.echo(columns.format(str(each.day), each.symbol, f"{each.snapshots:,}", observed, *counts))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="A query in DuckDB's SQL.")],
    archive: Archive = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values in the place of a table.")] = False,
) -> None:
    """Answer an SQL query. Views: books, observed_books (+ subscription, settled), intervals, rows, holes, alerts.

    All have the columns date and symbol, alerts have date and ingest; docs/archive.md names the others. Needs the extra
    `sql` (duckdb).

    Example:

      ibkr_depth_archive sql "SELECT symbol, count(*) FROM books WHERE date = '2026-01-05' GROUP BY symbol"
    """
    with _opened(archive) as (store, _):
        from ibkr_depth_pipeline.archive.sql import query as answer

        names, rows = answer(store, query)
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows([names, *rows])
        return
    texts = [names, *([str(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def check(
    day: Day = None,
    archive: Archive = "",
    calendar: Annotated[
        str, typer.Option(help="Whose session is to be covered, such as XNYS or 24/7. Default: IBKR_CALENDAR.")
    ] = "",
    least_coverage: Annotated[
        float, typer.Option(min=0, max=1, help="Fail below this share of the session with a live book.")
    ] = 0.0,
    rows: Annotated[
        bool, typer.Option("--rows", help="Compare the snapshots with the books that the kept rows lead to, too.")
    ] = False,
) -> None:
    """Check a day: seq without holes, books ordered and not crossed, coverage, row counts against the ingest's, alerts.

    One line each, ok or FAIL. Exit code 1 if one fails, or if nothing is kept of a day on which the exchange was open.
    """
    with _opened(archive) as (store, settings):
        from ibkr_depth_pipeline.archive.audit import audit_alerts, audit_day, session_of

        audits = audit_day(
            settings, _date(day), calendar=calendar, least_coverage=least_coverage, store=store, rows=rows
        )
        of_alerts = audit_alerts(settings, _date(day), store, unix_ms())
        open_that_day = session_of(calendar or settings.ibkr_calendar, _date(day)) != (None, None)
    for audit in (*audits, *of_alerts):
        _print_audit(audit)
    if not audits:
        _print_absent_day(_date(day), open_that_day)
    if not all(audit.passed for audit in (*audits, *of_alerts)) or (open_that_day and not audits):
        raise typer.Exit(FAILED)


@app.command()
def holes(
    day: Day = None,
    archive: Archive = "",
    everything: Annotated[bool, typer.Option("--all", help="Of every day.")] = False,
) -> None:
    """List the snapshots that are missing for good, and why."""
    with _opened(archive) as (store, _):
        from ibkr_depth_pipeline.archive.layout import day_of
        from ibkr_depth_pipeline.archive.reading import all_gaps

        found = all_gaps(store)
    for gap in found:
        if everything or day_of(gap.next_ts) == _date(day):
            where = f"{gap.symbol} seq {gap.first_seq} to {gap.last_seq}"
            typer.echo(f"{where}: {gap.size} missing before {_utc(gap.next_ts)}, {gap.cause.value}")


@app.command(name="raise-ids")
def raise_ids(archive: Archive = "") -> None:
    """Let the numbers in Redis go on behind the archive's, after Redis was restored from a backup or lost its data.

    With the ingest stopped, before it starts again: else it gives numbers that the archive holds to other snapshots.
    Streams that are not behind are left as they are. Exit code 1 if an ingest records a symbol that is behind.
    """
    with _opened(archive) as (store, settings):
        from ibkr_depth_pipeline.archive.numbering import raise_ids_of

        raised, recorded = raise_ids_of(store, settings)
    for each in raised:
        typer.echo(f"{each.source.key}: {each.was} -> {each.now}")
    typer.echo(f"{len(raised)} streams were behind the archive")
    if recorded:
        typer.echo(f"error: being recorded, stop the ingest first: {', '.join(recorded)}", err=True)
        raise typer.Exit(FAILED)


@app.command()
def alerts(
    day: Day = None,
    archive: Archive = "",
    everything: Annotated[bool, typer.Option("--all", help="Of every day.")] = False,
) -> None:
    """List the alerts and the all-clears that were raised, of all ingests."""
    with _opened(archive) as (store, _):
        from ibkr_depth_pipeline.archive.alerts import alerts_kept_on, alerts_of
        from ibkr_depth_pipeline.archive.layout import ALERTS
        from ibkr_depth_pipeline.archive.reading import days

        found = [each for kept_on in days(store, ALERTS) for each in alerts_kept_on(store, kept_on)]
        shown = sorted(found, key=lambda each: each.alert.ts) if everything else alerts_of(store, _date(day))
    for each in shown:
        alert = each.alert
        typer.echo(f"{_utc(alert.ts)} {each.ingest} {alert.kind.value} ({alert.cause}): {alert.title}")


@app.command()
def prune(
    archive: Archive = "",
    most: Annotated[int, typer.Option(min=1, help="Delete at most so many dates at once.")] = 5,
) -> None:
    """Delete the days that ARCHIVE_RETENTION_DAYS does not keep. `run` does so by itself, once a day.

    Age is counted from the newest date in the archive, and one run deletes few dates, so that a clock that is far ahead
    does not cost the archive.
    """
    with _opened(archive) as (store, settings):
        from ibkr_depth_pipeline.archive.maintenance import Pruning, prune_expired

        days, today = settings.archive_retention_days, datetime.now(timezone.utc).date()
        done = prune_expired(store, days, today, most) if days else Pruning((), ())
    gone = done.deleted
    typer.echo(f"{len(gone)} days deleted" + (f": {', '.join(map(str, gone))}" if gone else ""))
    if done.held:
        typer.echo(f"{len(done.held)} more are past ARCHIVE_RETENTION_DAYS; if no clock was wrong: prune --most N")


@contextmanager
def _set_up(archive: str) -> Iterator[Settings]:
    """Settings with that archive, or the one that they name."""
    with errors_as_exit_codes():
        settings = load_settings(archive_url=archive or None)
        configure_logging(settings.ibkr_log_level)
        with extra_needed():
            yield settings


@contextmanager
def _opened(archive: str) -> Iterator[tuple[ArchiveStore, Settings]]:
    """The archive, which is named on stderr, and the settings."""
    with _set_up(archive) as settings:
        from ibkr_depth_pipeline.archive.store import ArchiveStore

        store = ArchiveStore(settings.archive_url)
        typer.echo(f"archive {store.place}", err=True)
        yield store, settings


def _date(day: datetime | None) -> date:
    return day.date() if day is not None else datetime.now(timezone.utc).date() - timedelta(days=1)


def _print_absent_day(day: date, open_that_day: bool) -> None:
    if open_that_day:
        typer.echo(f"FAIL nothing is kept of {day}, and the exchange was open that day")
    else:
        typer.echo(f"nothing is kept of {day}")


def _print_audit(audit: SymbolAudit) -> None:
    for finding in audit.results:
        figures = ", ".join(f"{name} {_number(value)}" for name, value in finding.figures.items())
        typer.echo(f"{'ok  ' if finding.passed else 'FAIL'} {audit.symbol} {finding.check}: {figures}")
        for problem in finding.problems:
            typer.echo(f"     {problem}")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _utc(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1000, timezone.utc).isoformat(timespec="milliseconds")


if __name__ == "__main__":
    app()
