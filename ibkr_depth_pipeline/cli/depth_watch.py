"""`ibkr_depth_watch`: the recorded books, live on a terminal."""

from __future__ import annotations

import asyncio
from typing import Annotated, Optional

import typer
from rich.console import Console

from ibkr_depth_pipeline.cli.errors import errors_as_exit_codes
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.tui.screen import WatchOptions, show_live, show_once

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Symbols = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads this form under Python 3.10
    typer.Argument(
        metavar="[SYMBOL]...", help="Show these ladders first, as many as fit. Default: that of a live symbol."
    ),
]
Once = Annotated[bool, typer.Option("--once", help="Print one frame and end.")]
Every = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=0.1, max=3600, metavar="SECS", help="Between two frames. Default: 0.5; 5 without a terminal."),
]


@app.command()
def main(symbol: Symbols = None, once: Once = False, every: Every = None) -> None:
    """Watch what is being recorded: ladders of ten levels a side, and a table of the universe, from Redis alone.

    \b
    Examples:
      ibkr_depth_watch
      ibkr_depth_watch SPY QQQ
      ibkr_depth_watch --once | less -S
      REDIS_URL=redis://127.0.0.1:6380/0 ibkr_depth_watch AAPL

    \b
    Keys, the same as of the web page: j, k, down, up choose the symbol; left,
    right go back and forward in time, as far as the stream reaches; space
    pauses, 0 is now; + - show less or more time; / filters; a shows the alerts;
    t is light or dark; ? lists all. w shows who held a slot when, s sorts the
    table, r reverses; q quits.

    \b
    State: live   it holds a slot and its rows come
           wait   it waits for its turn; its heartbeat stands
           STALE  its heartbeat is gone: don't trust its book
           none   it was never recorded
           n/a    the gateway gives no depth for it
           ?      Redis is away; the first line says since when
    next: when it has its next turn, `now` while it holds a subscription. A
    price's sign and colour: up or down since the last refresh. A wider terminal
    gets more columns and ladders, from 112 columns on who held a slot when. age: since its last row. ttl: seconds
    for which its heartbeat still stands. rows/s: of the last 5 s. cover: the
    share of the ingest's run in which its book was live.

    Without colours if NO_COLOR is set or the terminal has none. REDIS_URL and IBKR_GATEWAY_NAME come from the
    environment or .env.

    \b
    Exit code: 0, 1 if Redis can't be reached with --once, 2 for bad settings.
    """
    with errors_as_exit_codes():
        settings = load_settings()
        console = Console(highlight=False)
        drawn = console.is_terminal and not console.is_dumb_terminal
        options = WatchOptions(
            settings.redis_target,
            settings.ibkr_gateway_name,
            tuple(dict.fromkeys(symbol or ())),
            every if every is not None else (0.5 if drawn else 5.0),
        )
        asyncio.run(show_once(options, console) if once else show_live(options, console))


if __name__ == "__main__":
    app()
