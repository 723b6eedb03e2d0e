"""`ibkr_gateway_sim`: the simulated gateway as a program of its own."""

import asyncio
import ipaddress
import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer
import yaml
from pydantic import BaseModel

from ibkr_depth_pipeline.simulation import (
    AtEnd,
    EarlyCancel,
    GatewayOptions,
    ReplayOptions,
    ReplayPace,
    Scenario,
    SimulatedGateway,
    apply_changes,
    load_scenario,
    parse_changes,
    shipped_scenarios,
)
from ibkr_depth_pipeline.simulation.archive_tape import archived_symbols

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_JOURNAL_ENTRIES_IN_MEMORY = 1000
_Value = TypeVar("_Value")

_BOOKS, _WHERE, _GATEWAY, _FAULTS = "Books", "Where it listens", "How the gateway behaves", "Faults and records"


@app.command()
def main(
    host: Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=_WHERE)] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", rich_help_panel=_WHERE)] = 7497,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written once it listens: host and port as JSON.", rich_help_panel=_WHERE)
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Allow a host other than loopback.", rich_help_panel=_WHERE)
    ] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same books and contracts.", rich_help_panel=_BOOKS)] = 0,
    rows_per_second: Annotated[
        float, typer.Option(min=0, help="Depth rows a second and symbol; 0 is a still market.", rich_help_panel=_BOOKS)
    ] = 200.0,
    rate: Annotated[
        list[str] | None, typer.Option(metavar="SYMBOL=ROWS", help="Rate of one symbol.", rich_help_panel=_BOOKS)
    ] = None,
    replay: Annotated[
        list[Path] | None, typer.Option(help="Recorded depth to play; may be repeated.", rich_help_panel=_BOOKS)
    ] = None,
    replay_symbol: Annotated[
        list[str] | None,
        typer.Option(help="Symbol of each --replay, in order; else the file name says.", rich_help_panel=_BOOKS),
    ] = None,
    replay_archive: Annotated[
        Path | None, typer.Option(help="An archive's folder: play a day of all its symbols.", rich_help_panel=_BOOKS)
    ] = None,
    replay_date: Annotated[
        datetime | None,
        typer.Option(
            "--date", formats=["%Y-%m-%d"], help="The UTC date to play of --replay-archive.", rich_help_panel=_BOOKS
        ),
    ] = None,
    replay_pace: Annotated[
        ReplayPace, typer.Option(help="The file's own time, a fixed rate, or as it is read.", rich_help_panel=_BOOKS)
    ] = ReplayPace.REAL,
    replay_speed: Annotated[
        float,
        typer.Option(
            "--replay-speed", "--speed", min=0.001, help="Factor on the recording's own time.", rich_help_panel=_BOOKS
        ),
    ] = 1.0,
    replay_rate: Annotated[
        float, typer.Option(min=0.001, help="Changes a second, for --replay-pace rate.", rich_help_panel=_BOOKS)
    ] = 200.0,
    replay_limit: Annotated[
        int | None, typer.Option(min=1, help="Play only that many changes.", rich_help_panel=_BOOKS)
    ] = None,
    replay_end: Annotated[
        AtEnd, typer.Option(help="Fall silent at the end, or start over.", rich_help_panel=_BOOKS)
    ] = AtEnd.STOP,
    slots: Annotated[
        int, typer.Option(min=0, help="Simultaneous depth subscriptions of the account.", rich_help_panel=_GATEWAY)
    ] = 3,
    slot_free_delay: Annotated[
        float, typer.Option(min=0, help="Seconds until a cancelled slot is free.", rich_help_panel=_GATEWAY)
    ] = 0.0,
    slots_held_after_drop: Annotated[
        float,
        typer.Option("--slots-held", min=0, help="Seconds a lost client's slots stay taken.", rich_help_panel=_GATEWAY),
    ] = 0.0,
    client_id_held_after_drop: Annotated[
        float,
        typer.Option(
            "--client-id-held", min=0, help="Seconds a lost client's id stays taken.", rich_help_panel=_GATEWAY
        ),
    ] = 0.0,
    first_row_delay: Annotated[
        float, typer.Option(min=0, help="Seconds from a depth request to its first row.", rich_help_panel=_GATEWAY)
    ] = 0.05,
    latency: Annotated[
        float, typer.Option(min=0, help="Seconds that everything sent takes.", rich_help_panel=_GATEWAY)
    ] = 0.0,
    rows_after_cancel: Annotated[
        float,
        typer.Option("--late-rows", min=0, help="Seconds rows go on after a cancel.", rich_help_panel=_GATEWAY),
    ] = 0.0,
    early_cancel: Annotated[
        EarlyCancel, typer.Option(help="What a cancel before the first row does.", rich_help_panel=_GATEWAY)
    ] = EarlyCancel.HONOURED,
    nasdaq_name: Annotated[
        str, typer.Option(help="The name listed for that venue: ISLAND or NASDAQ.", rich_help_panel=_GATEWAY)
    ] = "ISLAND",
    strict_catalogue: Annotated[
        bool, typer.Option("--strict", help="Make up no contracts.", rich_help_panel=_GATEWAY)
    ] = False,
    read_only_api: Annotated[
        bool, typer.Option(help="Answer requests about orders with 321.", rich_help_panel=_GATEWAY)
    ] = True,
    refuse: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SYMBOL=CODE", help="Refuse a symbol with any code: 354, 10092.", rich_help_panel=_GATEWAY
        ),
    ] = None,
    server_version: Annotated[
        int, typer.Option(help="Newest protocol version it speaks, 100 to 178.", rich_help_panel=_GATEWAY)
    ] = 176,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="OPTION=VALUE",
            help="Any other option, as a scenario's `gateway` has it: greeting_delay=3.",
            rich_help_panel=_GATEWAY,
        ),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_FILE", help="A shipped scenario, or a YAML or JSON file of one.", rich_help_panel=_FAULTS
        ),
    ] = None,
    list_scenarios: Annotated[
        bool, typer.Option("--list-scenarios", help="Say what scenarios there are, and end.", rich_help_panel=_FAULTS)
    ] = False,
    journal: Annotated[
        Path | None, typer.Option(help="Everything received and sent, as JSON lines.", rich_help_panel=_FAULTS)
    ] = None,
    journal_rows: Annotated[
        bool, typer.Option(help="Put every row into the journal, not only counts.", rich_help_panel=_FAULTS)
    ] = True,
) -> None:
    """A stand-in for TWS or IB Gateway: market depth on the real socket protocol, without an account.

    Any API client can connect as to TWS; books are synthetic unless a recording is played. Ctrl-C stops it.

    Examples:

      ibkr_gateway_sim

      ibkr_gateway_sim --port 4002 --slots 1 --rows-per-second 1000

      ibkr_gateway_sim --set greeting_delay=3 --set "venue_refusals={'*@ISLAND': 354}"

      ibkr_gateway_sim --replay aapl_2012-06-21_l10.csv.gz --replay-pace fast --journal sent.jsonl

      ibkr_gateway_sim --slots 60 --replay-archive archive --date 2026-01-05 --speed 10
    """
    if list_scenarios:
        for name, each in shipped_scenarios().items():
            typer.echo(f"{name:35} {each.about}")
        return
    if not allow_remote and not _is_loopback(host):
        _fail(f"--host {host}: not a loopback address; say --allow-remote to serve others")
    how = ReplayOptions(
        path=Path(),
        pace=replay_pace,
        speed=replay_speed,
        rate=replay_rate,
        at_end=replay_end,
        limit=replay_limit,
    )
    try:
        options = GatewayOptions(
            host=host,
            port=port,
            seed=seed,
            server_version=server_version,
            slots=slots,
            read_only_api=read_only_api,
            strict_catalogue=strict_catalogue,
            nasdaq_name=nasdaq_name.upper(),
            refusals=_pairs("--refuse", refuse, int),
            rows_per_second=rows_per_second,
            symbol_rates=_pairs("--rate", rate, float),
            replays=(
                *_replays(replay or [], replay_symbol or [], how),
                *_archived_replays(replay_archive, replay_date, how),
            ),
            latency=latency,
            first_row_delay=first_row_delay,
            slot_free_delay=slot_free_delay,
            rows_after_cancel=rows_after_cancel,
            early_cancel=early_cancel,
            slots_held_after_drop=slots_held_after_drop,
            client_id_held_after_drop=client_id_held_after_drop,
            keep_rows=journal_rows and journal is not None,
            journal_file=journal,
            journal_entries=_JOURNAL_ENTRIES_IN_MEMORY,
        )
        options = apply_changes(_changes(option or []), options)
        chosen = load_scenario(scenario) if scenario else Scenario(())
        asyncio.run(_serve(SimulatedGateway(chosen.applied_to(options), chosen.steps), ready_file))
    except (OSError, ValueError) as problem:
        _fail(str(problem))


async def _serve(gateway: SimulatedGateway, ready_file: Path | None) -> None:
    """Serves until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with gateway:
        typer.echo(f"Simulated gateway listening on {gateway.host}:{gateway.port}")
        if ready_file is not None:
            _write_atomically(ready_file, json.dumps({"host": gateway.host, "port": gateway.port}))
        await stop.wait()


def _replays(paths: Sequence[Path], symbols: Sequence[str], how: ReplayOptions) -> tuple[ReplayOptions, ...]:
    if len(symbols) > len(paths):
        raise ValueError(f"--replay-symbol is given {len(symbols)} times for {len(paths)} of --replay")
    named = [*symbols, *[None] * (len(paths) - len(symbols))]
    return tuple(replace(how, path=path, symbol=symbol) for path, symbol in zip(paths, named, strict=True))


def _archived_replays(folder: Path | None, day: datetime | None, how: ReplayOptions) -> tuple[ReplayOptions, ...]:
    if (folder is None) != (day is None):
        raise ValueError("--replay-archive and --date: give both or neither")
    if folder is None or day is None:
        return ()
    symbols = archived_symbols(folder, day.date())
    return tuple(replace(how, path=folder, symbol=symbol, day=day.date()) for symbol in symbols)


def _pairs(option: str, texts: Sequence[str] | None, convert: Callable[[str], _Value]) -> dict[str, _Value]:
    """`SYMBOL=VALUE` texts as a mapping. Raises ValueError naming the option and the text that is none."""
    pairs = {}
    for text in texts or ():
        symbol, equals, value = text.partition("=")
        try:
            pairs[symbol] = convert(value)
        except ValueError:
            equals = ""
        if not equals or not symbol:
            raise ValueError(f"{option} {text}: not SYMBOL=NUMBER")
    return pairs


def _changes(texts: Sequence[str]) -> BaseModel:
    """`OPTION=VALUE` texts, the value in YAML, as GatewayChanges. Raises ValueError naming the text that is none."""
    document = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            document[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals or not name:
            raise ValueError(f"--set {text}: not OPTION=VALUE")
    try:
        return parse_changes(document)
    except ValueError as problem:
        raise ValueError(f"--set {problem}") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _fail(message: str) -> NoReturn:
    typer.echo(f"ibkr_gateway_sim: {message}", err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    app()
