"""`ibkr_gateway_tap`: records what an API client and a gateway send to each other, fit to be shown to strangers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer

from ibkr_depth_pipeline.tape.files import SUFFIX, LinkEvent, Read, UnreadableTape, read_entries, read_head, stem_of
from ibkr_depth_pipeline.tape.messages import BINARY_IDS, Way
from ibkr_depth_pipeline.tape.proxy import Tap, TapeRecording, TapOptions
from ibkr_depth_pipeline.tape.sanitizer import GREETING_FIELDS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)

_MEGABYTE = 1 << 20


@app.callback(invoke_without_command=True)
def tap(
    context: typer.Context,
    to: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The gateway that clients are led to.")] = None,
    listen: Annotated[int, typer.Option(min=0, max=65535, help="Port for clients; 0 takes a free one.")] = 0,
    out: Annotated[Path | None, typer.Option(help=f"The tape: its parts are FILE-0001{SUFFIX} and so on.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    part_mb: Annotated[int, typer.Option(min=1, help="Compressed megabytes of a part.")] = 64,
    parts: Annotated[int, typer.Option(min=1, help="How many parts are kept: the oldest goes.")] = 20,
    newest_version: Annotated[
        int | None,
        typer.Option(
            min=100,
            metavar="VERSION",
            help="Offer the gateway no newer server version than this, also if the client does: "
            f"{BINARY_IDS - 1} is the newest of which a tape can be played.",
        ),
    ] = None,
    allow_orders: Annotated[
        bool, typer.Option("--allow-orders", help="Forward messages that place, change or cancel orders.")
    ] = False,
) -> None:
    """Stands between an API client and TWS or IB Gateway, forwards all but orders, and records behind.

    Account numbers are replaced by hashes; orders, positions, balances and all else that recording market depth does
    not need are dropped as they are written. Ctrl-C ends it.

    Example: ibkr_gateway_tap --to 127.0.0.1:4001 --listen 4101 --out spy, then IBKR_PORT=4101 for the recorder.
    """
    if context.invoked_subcommand is not None:
        return
    if to is None or out is None:
        _fail("--to HOST:PORT and --out FILE are needed; `ibkr_gateway_tap show FILE` prints a tape")
    to_host, colon, to_port = to.rpartition(":")
    if not colon or not to_host or not to_port.isdigit() or not 0 < int(to_port) < 65536:
        _fail(f"--to {to}: not HOST:PORT, as 127.0.0.1:4001")
    if not out.parent.is_dir():
        _fail(f"--out {out}: the folder {out.parent} does not exist; make it first")
    made_by = f"ibkr_gateway_tap {version('ibkr_depth_pipeline')}"
    sizes = part_mb * _MEGABYTE, parts
    where = to_host.strip("[]"), int(to_port), host, listen, stem_of(out)
    options = TapOptions(*where, *sizes, allow_orders, made_by, newest_version)
    try:
        complete = asyncio.run(_tap(options))
    except OSError as problem:
        _fail(str(problem))
    raise typer.Exit(0 if complete else 1)


async def _tap(options: TapOptions) -> bool:
    """Forwards and records until SIGINT or SIGTERM. Returns whether the tape is complete."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    recording = await TapeRecording.start(options)
    watching = asyncio.ensure_future(recording.watch())
    tap = Tap(options, recording)
    try:
        port = await tap.listen()
        where = f"{options.host}:{port} -> {options.to_host}:{options.to_port}"
        typer.echo(f"Tap on {where}; tape: {options.stem}-*{SUFFIX}" + ("; ORDERS PASS" * options.allow_orders))
        await stop.wait()
    finally:
        await tap.close()
        watching.cancel()
        complete = await recording.close()
    return complete


@app.command()
def show(
    tape: Annotated[Path, typer.Argument(help="A part of a tape, or what the names of its parts begin with.")],
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they stand on the tape.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many entries.")] = None,
) -> None:
    """Print a tape: when, which connection, who sent it, and the fields."""
    try:
        if not as_json:
            head = read_head(tape)
            typer.echo(f"{head['made_by']}, {head['made']}: {head['about']}")
            for note in _notes(head):
                typer.echo(note)
        for number, entry in enumerate(read_entries(tape)):
            if limit is not None and number >= limit:
                break
            for line in _lines(entry, as_json):
                typer.echo(line)
            if not as_json and (version := _newer_version(entry)):
                typer.echo(f"(server version {version}: types are binary from {BINARY_IDS} on; shown, but not played)")
    except (UnreadableTape, OSError) as problem:
        _fail(str(problem))


def _notes(head: dict[str, Any]) -> Iterator[str]:
    """What the head of a dump of the flight recorder holds besides: why, which gateway, which client."""
    for why in head.get("why", ()):
        times = f" ({why['times']} times)" if why["times"] > 1 else ""
        yield f"why: {why['reason'].replace('_', ' ')}" + (f": {why['detail']}" if why["detail"] else "") + times
    for name in ("dumped", "gateway", "client"):
        if name in head:
            told = head[name]
            yield f"{name}: " + (", ".join(f"{k} {v}" for k, v in told.items()) if isinstance(told, dict) else told)


def _lines(entry: Read | LinkEvent, as_json: bool) -> list[str]:
    at = datetime.fromtimestamp(entry.at // 1_000_000_000, timezone.utc).strftime("%H:%M:%S")
    when = f"{at}.{entry.at % 1_000_000_000:09} {entry.connection:>3}"
    if isinstance(entry, LinkEvent):
        told = {"name": entry.name, **entry.detail}
        if as_json:
            return [orjson.dumps({"at": entry.at, "connection": entry.connection, **told}).decode()]
        return [f"{when} ! {entry.name} " + " ".join(f"{name}={value}" for name, value in entry.detail.items())]
    if as_json:
        read = {"way": entry.way.value, "bytes": entry.size, "messages": entry.messages}
        return [orjson.dumps({"at": entry.at, "connection": entry.connection, **read}).decode()]
    return [f"{when} {entry.way.value} {_message(message)}" for message in entry.messages]


def _newer_version(entry: Read | LinkEvent) -> int:
    """The server version of a gateway's greeting in that entry, if its messages can't be played; else 0."""
    is_of_gateway = isinstance(entry, Read) and entry.way is Way.GATEWAY and bool(entry.messages)
    first = entry.messages[0] if isinstance(entry, Read) and is_of_gateway else []
    is_greeting = isinstance(first, list) and len(first) == GREETING_FIELDS and first[0].isdigit()
    version = int(first[0]) if isinstance(first, list) and is_greeting else 0
    return version if version >= BINARY_IDS else 0


def _message(message: list[str] | dict[str, int]) -> str:
    if isinstance(message, dict):
        form = "protobuf" if message["fields"] < 0 else f"{message['fields']} fields"
        return f"[dropped: type {message['type']}, {form}, {message['bytes']} bytes]"
    return "|".join(message)


def _fail(message: str) -> NoReturn:
    typer.echo(f"ibkr_gateway_tap: {message}", err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    app()
