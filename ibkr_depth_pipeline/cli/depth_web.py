"""`ibkr_depth_web`: the recorded market on a web page."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Optional

import typer

from ibkr_depth_pipeline.cli.errors import echo_if_read, errors_as_exit_codes
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.web.server import serve

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

HostOption = Annotated[
    Optional[str],  # noqa: UP045 - typer reads this form under Python 3.10
    typer.Option("--host", metavar="ADDRESS", help="Address to listen on. Default: IBKR_WEB_HOST."),
]
PortOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--port", metavar="PORT", help="Port, 0 for any that is free. Default: IBKR_WEB_PORT."),
]


@app.command()
def main(host: HostOption = None, port: PortOption = None) -> None:
    """Show what is being recorded on a web page, from Redis alone: nothing on the page changes anything.

    \b
    Examples:
      ibkr_depth_web
      ibkr_depth_web --port 8080
      REDIS_URL=redis://127.0.0.1:6380/0 ibkr_depth_web
      ibkr_depth_web --host 0.0.0.0     # asks for the token that it prints

    It prints the address and serves until Ctrl-C. Settings: REDIS_URL, IBKR_GATEWAY_NAME, IBKR_WEB_HOST,
    IBKR_WEB_PORT, IBKR_WEB_NAMES, IBKR_WEB_TOKEN, from the environment or .env. docs/web.md describes the page.

    \b
    Exit code: 0, 1 if the address is taken, 2 for bad settings.
    """
    with errors_as_exit_codes():
        given: dict[str, Any] = {"ibkr_web_host": host, "ibkr_web_port": port}
        settings = load_settings(**{name: value for name, value in given.items() if value is not None})
        asyncio.run(serve(settings, lambda address: echo_if_read(f"Market       {address}")))


if __name__ == "__main__":
    app()
