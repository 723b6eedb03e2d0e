"""`ibkr_gateway_sim`: the simulated gateway as a program of its own."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway

app = typer.Typer(add_completion=False)


@app.command()
def main(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 7497,
    ready_file: Annotated[Path | None, typer.Option(help="Written once listening: host and port as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same books and made-up contracts.")] = 0,
    slots: Annotated[int, typer.Option(help="Simultaneous depth subscriptions of the account.")] = 3,
    rows_per_second: Annotated[float, typer.Option(help="Depth rows a second and symbol.")] = 200.0,
) -> None:
    """A stand-in for TWS or IB Gateway: market depth on the real socket protocol, without an account."""
    options = GatewayOptions(host=host, port=port, seed=seed, slots=slots, rows_per_second=rows_per_second)
    asyncio.run(_serve(options, ready_file))


async def _serve(options: GatewayOptions, ready_file: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with SimulatedGateway(options) as gateway:
        typer.echo(f"listening on {gateway.host}:{gateway.port}")
        if ready_file is not None:
            _write_atomically(ready_file, json.dumps({"host": gateway.host, "port": gateway.port}))
        await stop.wait()


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    app()
