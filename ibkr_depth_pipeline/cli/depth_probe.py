"""`ibkr_depth_probe`: which symbols get market depth here, from where, and what their first books look like."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.live import Live

from ibkr_depth_pipeline.cli.errors import BAD_INPUT, FAILED, errors_as_exit_codes
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.probe.render import changes, final_view, live_view
from ibkr_depth_pipeline.probe.report import ProbeReport, SymbolReport
from ibkr_depth_pipeline.probe.session import OnProgress, Progress, run_probe
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.universe import Universe, load_universe

_SIGNAL_EXIT = 128

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Symbols = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads this form under Python 3.10
    typer.Option("--symbol", "--symbol2", metavar="NAME", help="A symbol to probe; give as many as you like."),
]
Everything = Annotated[bool, typer.Option("--all", help="Probe the whole universe (SYMBOL_CONFIG_PATH).")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the report as one JSON object on stdout; progress on stderr.")
]
Timeout = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        min=0.1, max=3600, metavar="SECS", help="Longest wait for a symbol's book. Default: IBKR_FIRST_ROW_SECS (15)"
    ),
]
NoRedis = Annotated[bool, typer.Option("--no-redis", help="Neither look for a running ingest nor record venues.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also write the log to stderr, one JSON object a line.")]


@app.command()
def main(
    symbol: Symbols = None,
    everything: Everything = False,
    as_json: AsJson = False,
    timeout: Timeout = None,
    no_redis: NoRedis = False,
    verbose: Verbose = False,
) -> None:
    """Find out which symbols get market depth (Level 2) from your gateway, and look at their first books.

    \b
    Examples:
      ibkr_depth_probe --symbol AAPL --symbol2 MSFT
      ibkr_depth_probe --all --json

    Each symbol is looked up, subscribed to on its venue, and left again once its book is there; never more at once than
    IBKR_MAX_CONCURRENT_DEPTH. The result is recorded in Redis (raw:ibkr:depth:venue:SYMBOL); without Redis it works all
    the same. While an ingest runs, its slots are left alone: contracts and venues are checked, books are not.

    Settings come from the environment or .env (see .env.example): IBKR_HOST, IBKR_PORT, REDIS_URL and more.

    \b
    Exit code:
      0    every symbol has depth; beside a running ingest: every symbol has a
           venue with depth, and none is recorded in Redis as refused
      1    a symbol has none, or the gateway can't be reached
      2    bad input or settings
      130  ended by Ctrl-C
    """
    with errors_as_exit_codes():
        settings = load_settings()
        universe = _universe(settings, symbol or [], everything)
        configure_logging(settings.ibkr_log_level if verbose else "CRITICAL")
        console = Console(highlight=False, stderr=as_json)
        with _progress_on(console) as on_progress:
            report = run_probe(
                settings, universe, record=not no_redis, first_book_secs=timeout, on_progress=on_progress
            )
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        console.print(final_view(report, console))
    raise typer.Exit(_exit_code(report))


def _universe(settings: Settings, symbols: list[str], everything: bool) -> Universe:
    if everything == bool(symbols):
        given = "both --all and --symbol are given" if symbols else "nothing to probe"
        typer.echo(f"error: {given}: name symbols (--symbol AAPL --symbol MSFT) or ask for --all", err=True)
        raise typer.Exit(BAD_INPUT)
    universe = load_universe(settings.symbol_config_path)
    return universe if everything else universe.subset(symbols)


@contextmanager
def _progress_on(console: Console) -> Iterator[OnProgress]:
    """Redraws the table on a terminal; writes the changes to stderr elsewhere."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield _line_by_line()
        return
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        yield lambda progress: live.update(live_view(progress, console), refresh=True)


def _line_by_line() -> OnProgress:
    seen: list[tuple[SymbolReport, ...]] = [()]

    def print_changes(progress: Progress) -> None:
        for line in changes(seen[0], progress.symbols):
            typer.echo(line, err=True)
        seen[0] = progress.symbols

    return print_changes


def _exit_code(report: ProbeReport) -> int:
    if report.interrupted_by is not None:
        return _SIGNAL_EXIT + signal.Signals[report.interrupted_by]
    return 0 if report.passed else FAILED


if __name__ == "__main__":
    app()
