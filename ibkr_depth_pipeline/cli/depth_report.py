"""`ibkr_depth_report DATE`: a recorded day as one page of HTML."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Optional

import typer

from ibkr_depth_pipeline.archive import extra_needed
from ibkr_depth_pipeline.cli.errors import errors_as_exit_codes
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.settings import load_settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    day: Annotated[str, typer.Argument(metavar="DATE", help="A UTC date, such as 2026-01-05, or today.")],
    archive: Annotated[str, typer.Option(help="The archive's folder or URL. Default: ARCHIVE_URL.")] = "",
    symbol: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads this form under Python 3.10
        typer.Option("--symbol", help="Whose book to draw; may be given more than once. Default: all."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(dir_okay=False, help="Where to write the page. Default: reports/DATE.html beside the archive."),
    ] = None,
    since: Annotated[str, typer.Option("--from", help="Only from this time of the UTC day on, such as 14:30.")] = "",
    until: Annotated[str, typer.Option("--to", help="Only up to this time of the UTC day.")] = "",
    calendar: Annotated[
        str, typer.Option(help="Whose session is to be covered, such as XNYS or 24/7. Default: IBKR_CALENDAR.")
    ] = "",
) -> None:
    """Make a page of a day that ibkr_depth_archive has kept: coverage, rates, spreads, depth, 309s, latency, holes.

    It is one file that any browser opens, without a network. Exit code 1 if nothing is kept of that date or the archive
    is out of reach, 2 if what you gave is wrong. docs/report.md says what is on the page.

    Examples:

      ibkr_depth_report 2026-01-05

      ibkr_depth_report today --symbol SPY --symbol QQQ --output today.html

      ibkr_depth_report 2026-01-05 --from 14:30 --to 15:00
    """
    with errors_as_exit_codes():
        settings = load_settings(archive_url=archive or None)
        configure_logging(settings.ibkr_log_level)
        with extra_needed():
            from ibkr_depth_pipeline.report.page import make_report

            written = make_report(
                settings.archive_url,
                day,
                calendar=calendar or settings.ibkr_calendar,
                symbols=symbol or (),
                output=output,
                since=since,
                until=until,
                now=datetime.now(timezone.utc),
            )
    typer.echo(f"{written.path}: {written.bytes} bytes, {written.day.snapshots} snapshots")


if __name__ == "__main__":
    app()
