"""`ibkr_market_box`: a whole market on this machine, for a first look and for development."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibkr_depth_pipeline.box.market import BoxOptions, open_market
from ibkr_depth_pipeline.box.processes import BoxError
from ibkr_depth_pipeline.box.script import NAMES, planned_faults, read_script

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def market_box(
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the Dagster UI; 3000 or the next free one unless given."),
    ] = None,
    symbol: Annotated[
        list[str] | None,
        typer.Option(help="Record this symbol, not config/ibkr_symbols.yaml; repeat it for more."),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0, help="Stop by itself this many seconds after the ingest is launched.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the run folder (logs, Dagster's history) after a clean stop.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="Folder with ibkr_symbols.yaml and dagster.yaml; the repository's unless given.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"Play this fault; repeat it for more. One of {NAMES}.")
    ] = None,
    at: Annotated[
        list[float] | None,
        typer.Option(min=0, help="When: seconds after the first row is stored; one for each --fault."),
    ] = None,
    script: Annotated[
        Path | None,
        typer.Option(help="Play the faults of this YAML file: - {at: 20, fault: gateway_away, seconds: 30}"),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No line per rotation: links, alerts and faults alone.")
    ] = False,
) -> None:
    """Start a Redis, a simulated IBKR gateway, its web page and Dagster, and play a trading day until Ctrl-C.

    The probe runs first, then the ingest starts; the archive, the checks and the watchdog are on. In a terminal a key
    plays a fault: the gateway goes away, a slot is stolen, Redis stops, the ingest is killed, a symbol falls silent,
    the session closes. Each says what to look at, and what was measured.

    Needs no network, no TWS and no open market. Everything listens on loopback, on the usual port or the next free
    one, and ends with this command.

    Settings such as IBKR_ROTATION_SECS are taken from the environment. Those that name a gateway or a Redis, and any
    .env file, are not: the box uses only what it has started itself.
    """
    try:
        faults = (*planned_faults(fault or (), at or ()), *(read_script(script) if script else ()))
        options = BoxOptions(
            port=port,
            symbols=tuple(symbol or ()),
            duration_secs=duration,
            keep=keep,
            config=config,
            faults=tuple(sorted(faults, key=lambda each: each.at)),
            quiet=quiet,
        )
        held = open_market(options, say=typer.echo)
    except BoxError as error:
        typer.echo(f"ibkr_market_box: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if held else 1)
