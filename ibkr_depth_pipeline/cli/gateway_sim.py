"""`ibkr_gateway_sim`: the simulated gateway as a program of its own."""

import asyncio
import inspect
import ipaddress
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

import typer
import yaml
from pydantic import BaseModel

from ibkr_depth_pipeline.simulation import (
    GatewayOptions,
    ReplayOptions,
    Scenario,
    SimulatedGateway,
    apply_changes,
    load_scenario,
    parse_changes,
    shipped_scenarios,
)
from ibkr_depth_pipeline.simulation.archive_tape import archived_symbols
from ibkr_depth_pipeline.simulation.options import Flag
from ibkr_depth_pipeline.tape.files import UnreadableTape
from ibkr_depth_pipeline.tape.player import TapePlayer
from ibkr_depth_pipeline.tape.script import read_scripts

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_JOURNAL_ENTRIES_IN_MEMORY = 1000
_Value = TypeVar("_Value")

_TAPE = "A tape in the place of all that"
_BOOKS, _WHERE, _GATEWAY, _FAULTS = "Books", "Where it listens", "How the gateway behaves", "Faults and records"


def _with_flags(*classes: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds a parameter to a command for each field of the dataclasses that is annotated with a Flag."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        added = [_parameter(each, *pair) for each in classes for pair in _flags_of(each).items()]
        command.__signature__ = signature.replace(parameters=[*added, *own])  # type: ignore[attr-defined]
        return command

    return decorate


def _flags_of(options: type) -> dict[str, tuple[Any, Flag]]:
    """The fields that have a flag: name -> type and flag."""
    hints = get_type_hints(options, include_extras=True)
    return {
        name: (hint.__origin__, flag)
        for name, hint in hints.items()
        for flag in getattr(hint, "__metadata__", ())
        if isinstance(flag, Flag)
    }


def _parameter(options: type, name: str, typed: tuple[Any, Flag]) -> inspect.Parameter:
    kind, flag = typed
    option = typer.Option(*flag.names, help=flag.help, min=flag.least, rich_help_panel=flag.panel)
    default = next(each.default for each in fields(options) if each.name == name)
    return inspect.Parameter(
        _argument(options, name),
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=default,
        annotation=Annotated[kind, option],
    )


def _argument(options: type, name: str) -> str:
    """The name of a field's parameter; those of ReplayOptions begin with `replay_`."""
    return f"replay_{name}" if options is ReplayOptions else name


def _values(options: type, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The fields' values as the flags set them."""
    return {name: flags[_argument(options, name)] for name in _flags_of(options)}


@app.command()
@_with_flags(GatewayOptions, ReplayOptions)
def main(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", rich_help_panel=_WHERE)] = 7497,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written once it listens: host and port as JSON.", rich_help_panel=_WHERE)
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Allow a host other than loopback.", rich_help_panel=_WHERE)
    ] = False,
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
    tape: Annotated[
        Path | None,
        typer.Option(help="Play this tape of ibkr_gateway_tap, and nothing else.", rich_help_panel=_TAPE),
    ] = None,
    tape_speed: Annotated[
        float,
        typer.Option(min=0.0, help="How fast: 1 is the tape's own time, 0 waits for nothing.", rich_help_panel=_TAPE),
    ] = 1.0,
    tape_step: Annotated[
        bool, typer.Option("--tape-step", help="One read of the tape for each line on stdin.", rich_help_panel=_TAPE)
    ] = False,
    refuse: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SYMBOL=CODE", help="Refuse a symbol with any code: 354, 10092.", rich_help_panel=_GATEWAY
        ),
    ] = None,
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
    **flags: Any,
) -> None:
    """A stand-in for TWS or IB Gateway: market depth on the real socket protocol, without an account.

    Any API client can connect as to TWS; books are synthetic unless a recording is played. Ctrl-C stops it.

    Examples:

      ibkr_gateway_sim

      ibkr_gateway_sim --port 4002 --slots 1 --rows-per-second 1000

      ibkr_gateway_sim --set greeting_delay=3 --set "venue_refusals={'*@ISLAND': 354}"

      ibkr_gateway_sim --replay aapl_2012-06-21_l10.csv.gz --replay-pace fast --journal sent.jsonl

      ibkr_gateway_sim --slots 60 --replay-archive archive --date 2026-01-05 --speed 10

      ibkr_gateway_sim --tape spy --tape-speed 10
    """
    if list_scenarios:
        for name, each in shipped_scenarios().items():
            typer.echo(f"{name:35} {each.about}")
        return
    set_by_flags, played = _values(GatewayOptions, flags), ReplayOptions(path=Path(), **_values(ReplayOptions, flags))
    host = set_by_flags["host"]
    if not allow_remote and not _is_loopback(host):
        _fail(f"--host {host}: not a loopback address; say --allow-remote to serve others")
    if tape is not None:
        _play(tape, host, port, tape_speed, tape_step, ready_file)
        return
    set_by_flags["nasdaq_name"] = set_by_flags["nasdaq_name"].upper()
    try:
        options = GatewayOptions(
            port=port,
            refusals=_pairs("--refuse", refuse, int),
            symbol_rates=_pairs("--rate", rate, float),
            replays=(
                *_replays(replay or [], replay_symbol or [], played),
                *_archived_replays(replay_archive, replay_date, played),
            ),
            keep_rows=journal_rows and journal is not None,
            journal_file=journal,
            journal_entries=_JOURNAL_ENTRIES_IN_MEMORY,
            **set_by_flags,
        )
        options = apply_changes(_changes(option or []), options)
        chosen = load_scenario(scenario) if scenario else Scenario(())
        asyncio.run(_serve(SimulatedGateway(chosen.applied_to(options), chosen.steps), ready_file))
    except (OSError, ValueError) as problem:
        _fail(str(problem))


def _play(tape: Path, host: str, port: int, speed: float, step: bool, ready_file: Path | None) -> None:
    try:
        scripts = read_scripts(tape, lambda why: typer.echo(f"warning: {why}", err=True))
        player = TapePlayer(scripts, host, port, speed=speed, step=step)
        asyncio.run(_serve(player, ready_file, player.advance if step else None))
    except (OSError, UnreadableTape) as problem:
        _fail(str(problem))


async def _serve(
    gateway: SimulatedGateway | TapePlayer, ready_file: Path | None, on_line: Callable[[], object] | None = None
) -> None:
    """Serves until SIGINT or SIGTERM. `on_line` is called for each line on stdin."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with gateway:
        typer.echo(f"Simulated gateway listening on {gateway.host}:{gateway.port}")
        if ready_file is not None:
            _write_atomically(ready_file, json.dumps({"host": gateway.host, "port": gateway.port}))
        if on_line is not None:
            loop.add_reader(sys.stdin, lambda: on_line() if sys.stdin.readline() else loop.remove_reader(sys.stdin))
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
