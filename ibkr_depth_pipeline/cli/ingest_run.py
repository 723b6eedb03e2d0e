"""`ibkr_ingest_run`: records market depth without Dagster, and checks beforehand that it will work."""

from __future__ import annotations

import asyncio
from getpass import getuser
from pathlib import Path
from socket import gethostname
from time import sleep
from typing import Annotated, Optional

import typer
from rich.console import Console

from ibkr_depth_pipeline.cli.errors import FAILED, echo_if_read, errors_as_exit_codes
from ibkr_depth_pipeline.cli.status_table import render_status, status_json
from ibkr_depth_pipeline.cli.universe_table import render_universe, universe_json
from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.formatting import parse_duration, short_duration
from ibkr_depth_pipeline.gateways import load_gateways
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.sink.dump_requests import DumpRefused, ask_for_dump
from ibkr_depth_pipeline.sink.status import HAND_OVER_SECS, ask_to_hand_over, read_health
from ibkr_depth_pipeline.sink.symbol_keys import request_focus
from ibkr_depth_pipeline.starter import write_starter
from ibkr_depth_pipeline.universe import Universe, load_universe
from ibkr_depth_pipeline.universe.changes import UniverseFile

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # the plain traceback: it never shows the values of variables
    help="Records IBKR market depth of a universe of symbols into Redis.\n\n"
    "Settings come from the environment or from .env (see .env.example): IBKR_HOST, IBKR_PORT, REDIS_URL and more. "
    "The symbols come from the file that SYMBOL_CONFIG_PATH names (config/ibkr_symbols.yaml).\n\n"
    "Begin with: ibkr_ingest_run init (in an empty folder), then ibkr_ingest_run check",
)

_LONGEST_SECS = 1e9

Symbols = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads this form under Python 3.10
    typer.Option("--symbol", help="Only this symbol; may be given more than once. Default: the whole universe."),
]


def _universe(path: Path, symbols: list[str] | None) -> Universe:
    universe = load_universe(path)
    return universe.subset(symbols) if symbols else universe


def _symbols_to_show(settings: Settings, symbols: list[str] | None) -> tuple[str, ...]:
    """Those of the universe; while its file is bad, those that a running ingest has in force."""
    try:
        return _universe(settings.symbol_config_path, symbols).symbols
    except ConfigurationError:
        feed = asyncio.run(read_health(settings.redis_target, settings.ibkr_gateway_name, ())).feed
        if symbols or not feed.running or feed.figures is None:
            raise
        return tuple(symbol for symbol in feed.figures.symbols if symbol != "unknown")


@app.command()
def run(
    symbol: Symbols = None,
    duration: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=_LONGEST_SECS, help="Stop by itself after so many seconds. Default: run until Ctrl-C."
        ),
    ] = None,
    once: Annotated[
        bool,
        typer.Option(
            "--once",
            help="Give up if the gateway is away or not ready for IBKR_START_TIMEOUT_SECS (if that is 0, for "
            "IBKR_CONNECT_TIMEOUT_SECS) from the start on. Default: keep trying.",
        ),
    ] = False,
    standby: Annotated[
        bool,
        typer.Option(
            "--standby",
            help="While another ingest records, connect under an id of its own (IBKR_STANDBY_CLIENT_ID), resolve every "
            "contract, and wait to take over. Default: IBKR_STANDBY.",
        ),
    ] = False,
    reserve: Annotated[
        bool,
        typer.Option(
            "--reserve",
            help="The same, and give a recording that was taken over back, and end, once another one stands by.",
        ),
    ] = False,
) -> None:
    """Record until Ctrl-C or SIGTERM; then cancel every subscription, flush and disconnect, and exit with 0.

    So does SIGHUP, as the terminal is closed; under nohup it is ignored. Without a terminal (systemd, a container)
    SIGHUP reads the universe again. A change of its file is followed anyway, and costs no line and no connection.

    A gateway that is away or not ready is waited for, unless --once or IBKR_START_TIMEOUT_SECS sets a limit. The log
    goes to stderr, one JSON object a line. Exit code 1 if it fails, 2 if a setting or a symbol is wrong.

    Examples:

      ibkr_ingest_run run

      ibkr_ingest_run run --symbol AAPL --symbol MSFT --duration 120

      ibkr_ingest_run run --standby

      IBKR_PORT=4002 IBKR_LOG_LEVEL=WARNING ibkr_ingest_run run
    """
    with errors_as_exit_codes():
        from ibkr_depth_pipeline.ingest.run import run_ingest  # commands that need no gateway start without it

        settings = load_settings(ibkr_standby="reserve" if reserve else "on" if standby else None)
        file = UniverseFile(settings.symbol_config_path, tuple(symbol or ()), settings.ibkr_max_concurrent_depth)
        universe = file.load()
        configure_logging(settings.ibkr_log_level)
        outcome = run_ingest(settings, universe, duration, once=once, file=file)
    summary = outcome.summary
    echo_if_read(f"{sum(summary.snapshots.values())} snapshots of {len(summary.snapshots)} symbols stored")
    if not summary.drained:
        typer.echo("error: Redis did not take everything in time; the last snapshots are lost", err=True)
        raise typer.Exit(FAILED)


@app.command()
def check(
    symbol: Symbols = None,
    orders: Annotated[
        bool,
        typer.Option(
            "--orders",
            help="Also ask for open orders, to learn whether the gateway's Read-Only API is on. Where it is, TWS may "
            "open a dialog about write access.",
        ),
    ] = False,
) -> None:
    """Check what must be right before a run: one line each, ok, warn or FAIL.

    Nothing is subscribed to. Exit code 1 if one fails, 2 if a setting or a --symbol is wrong.
    """
    with errors_as_exit_codes():
        from ibkr_depth_pipeline.ingest.checklist import Verdict, run_checklist

        settings = load_settings()
        configure_logging("CRITICAL")
        findings = asyncio.run(run_checklist(settings, symbol or (), orders=orders))
    for finding in findings:
        # texts of a gateway or a Redis may hold line ends
        typer.echo(f"{finding.verdict.value:<4} {finding.subject}: {' '.join(finding.text.split())}")
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def init() -> None:
    """Write .env and config/ into this folder, as a start: the settings with their defaults, and a small universe.

    A file that is there already is left as it is. Exit code 1 if a file can't be written.
    """
    with errors_as_exit_codes():
        for file in write_starter(Path.cwd()):
            typer.echo(f"{'wrote' if file.written else 'kept '} {file.path}")
    typer.echo(
        "next: put your gateway's address and REDIS_URL into .env and your symbols into config/ibkr_symbols.yaml, "
        "then run: ibkr_ingest_run check"
    )


@app.command()
def status(
    symbol: Symbols = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead.")] = False,
) -> None:
    """Show the health of a running ingest from Redis alone: each symbol, its figures, the feed.

    Exit code 0 if all is well; 1 if a symbol is stale or was never recorded, if no ingest runs or it has no gateway,
    or if Redis can't be asked; 2 if a setting or a --symbol is wrong.
    """
    with errors_as_exit_codes():
        settings = load_settings()
        configure_logging("CRITICAL")
        symbols = _symbols_to_show(settings, symbol)
        report = asyncio.run(read_health(settings.redis_target, settings.ibkr_gateway_name, symbols))
    if as_json:
        typer.echo(status_json(report))
    else:
        Console().print(render_status(report))
    if not report.is_well:
        raise typer.Exit(FAILED)


@app.command()
def focus(
    name: Annotated[str, typer.Argument(help="The instrument, by its name in the universe.")],
    for_: Annotated[
        str, typer.Option("--for", help="How long: seconds, or with a unit, such as 90s, 10m, 1h. 0 ends it.")
    ] = "10m",
) -> None:
    """Let an instrument keep a slot for a while, as if it were pinned, in the ingest that runs.

    Sets the key raw:ibkr:depth:focus:NAME, as any program may. One slot is left for the others to take turns in. Exit
    code 1 if no ingest runs, if it does not record the instrument, or if it has one slot only; 2 if a word is wrong.
    """
    with errors_as_exit_codes():
        settings, secs = load_settings(), parse_duration(for_)
        configure_logging("CRITICAL")
        feed = asyncio.run(read_health(settings.redis_target, settings.ibkr_gateway_name, ())).feed
        figures = feed.figures
        if not feed.running or figures is None:
            raise _refused(f"no focus: {feed.problem}")
        if name not in figures.symbols:
            raise _refused(f"no focus: {name!r} is not among what is recorded ({', '.join(figures.symbols)})")
        if secs and figures.batch_size < 2 and len(figures.symbols) > 1:
            raise _refused("no focus: there is only one slot, and the others take turns in it")
        asyncio.run(request_focus(settings.redis_target, name, f"{getuser()}@{gethostname()}", secs))
    typer.echo(f"{name} keeps a slot for {short_duration(secs)}" if secs else f"{name} is in focus no longer")


@app.command()
def dump(
    gateway: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--gateway", help="Of this one, by its name; may be given more than once. Default: of all."),
    ] = None,
) -> None:
    """Have the running ingest write the last minutes of its wire to a tape (docs/tapes.md), and print its path.

    If GATEWAYS_CONFIG_PATH lists several gateways, each ingest of them does. Exit code 1 if no ingest runs, or if one
    can't write; 2 if a setting or a name is wrong.
    """
    with errors_as_exit_codes():
        configure_logging("CRITICAL")
        of = _gateways(gateway or [])
        by, failures = f"{getuser()}@{gethostname()}", 0
        for settings in of:
            name = settings.ibkr_gateway_name
            feed = asyncio.run(read_health(settings.redis_target, name, ())).feed
            try:
                if not feed.running:
                    raise DumpRefused(f"no dump of {name}: {feed.problem}")
                answer = asyncio.run(ask_for_dump(settings.redis_target, name, by))
                typer.echo(f"{name} on {answer.host}: {answer.path}")
            except DumpRefused as refusal:
                failures += 1
                typer.echo(f"error: {refusal}", err=True)
    if failures:
        raise typer.Exit(FAILED)


@app.command()
def handover() -> None:
    """Have the running ingest give the recording to its standby, and end; print which run records then.

    Exit code 1 if no ingest runs, no standby is ready, or it has not happened within 10 s; 2 if a setting is wrong.
    """
    with errors_as_exit_codes():
        settings = load_settings()
        configure_logging("CRITICAL")
        target, name = settings.redis_target, settings.ibkr_gateway_name
        feed = asyncio.run(read_health(target, name, ())).feed
        if not feed.running or feed.figures is None:
            raise _refused(f"no hand-over: {feed.problem}")
        if not any(each.is_ready for each in feed.standbys):
            raise _refused("no hand-over: no standby is ready (IBKR_STANDBY)")
        before = feed.figures.run.run_id
        asyncio.run(ask_to_hand_over(target, name, before, f"{getuser()}@{gethostname()}"))
        until = monotonic() + HAND_OVER_SECS
        while monotonic() < until:
            figures = asyncio.run(read_health(target, name, ())).feed.figures
            if figures is not None and figures.run.run_id != before:
                typer.echo(f"run {figures.run.run_id} on {figures.run.host}, pid {figures.run.pid}, records now")
                return
            sleep(0.1)
    raise _refused(f"run {before} has not handed over within {HAND_OVER_SECS} s")


def _gateways(names: list[str]) -> list[Settings]:
    """The settings of the gateways that are listed, or of those called so. Raises ConfigurationError."""
    settings = {each.ibkr_gateway_name: each for each in (gateway.settings() for gateway in load_gateways())}
    unknown = [name for name in names if name not in settings]
    if unknown:
        raise ConfigurationError("--gateway", [f"{name!r} is none of {', '.join(settings)}" for name in unknown])
    return [settings[name] for name in names] if names else list(settings.values())


def _refused(why: str) -> typer.Exit:
    typer.echo(f"error: {why}", err=True)
    return typer.Exit(FAILED)


@app.command()
def universe(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead.")] = False,
) -> None:
    """List what the running ingest has in force: each instrument, its venue, hours, share of slot time, next turn.

    Read from Redis alone. Exit code 1 if no ingest runs, or if its universe file holds something that it could not put
    in force; 2 if a setting is wrong.
    """
    with errors_as_exit_codes():
        settings = load_settings()
        configure_logging("CRITICAL")
        report = asyncio.run(read_health(settings.redis_target, settings.ibkr_gateway_name, ()))
    feed = report.feed
    if as_json:
        typer.echo(universe_json(feed))
    else:
        Console().print(render_universe(feed))
    if not feed.running or feed.figures is None or feed.figures.universe_problem:
        raise typer.Exit(FAILED)


if __name__ == "__main__":
    app()
