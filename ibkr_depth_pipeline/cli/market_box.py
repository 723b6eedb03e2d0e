"""`ibkr_market_box`: a whole market on this machine, for a first look and for development."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibkr_depth_pipeline.box.market import BoxOptions, open_market
from ibkr_depth_pipeline.box.processes import BoxError

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
) -> None:
    """Start a Redis, a simulated IBKR gateway and Dagster, and ingest the universe until Ctrl-C.

    Needs no network, no TWS and no open market. Everything listens on loopback, on the usual port or the next free
    one, and ends with this command.

    Settings such as IBKR_ROTATION_SECS are taken from the environment. Those that name a gateway or a Redis, and any
    .env file, are not: the box uses only what it has started itself.
    """
    options = BoxOptions(port=port, symbols=tuple(symbol or ()), duration_secs=duration, keep=keep, config=config)
    try:
        held = open_market(options, say=typer.echo)
    except BoxError as error:
        typer.echo(f"ibkr_market_box: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if held else 1)
