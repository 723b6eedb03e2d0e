"""`ibkr_gateway_facts`: checks the assumptions of docs/ibkr-market-depth.md with one's own gateway, read-only."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ibkr_depth_pipeline.cli.errors import FAILED, errors_as_exit_codes
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.facts.assumptions import ASSUMPTIONS, EXPERIMENTS
from ibkr_depth_pipeline.facts.evidence import FactLimits
from ibkr_depth_pipeline.facts.scenario import ABOUT, scenario_text
from ibkr_depth_pipeline.facts.session import run_facts, specs_of
from ibkr_depth_pipeline.gateway_facts import FactEntry, GatewayFacts, in_words, key_path, read_facts
from ibkr_depth_pipeline.logs import configure_logging
from ibkr_depth_pipeline.probe.venue_cache import VenueCache
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.universe import SymbolSpec, Universe, load_universe

_DEFAULT_SYMBOLS = ("SPY", "EUR.USD")
_SIGNAL_EXIT = 128
_LIMITS = FactLimits()

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Symbols = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads this form under Python 3.10
    typer.Option("--symbol", "--symbol2", metavar="NAME", help="A symbol to watch; default: SPY and EUR.USD."),
]
Only = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--only", metavar="EXPERIMENT", help=f"Only this, and what it needs: {', '.join(EXPERIMENTS)}."),
]
EarlyCancel = Annotated[
    bool, typer.Option("--early-cancel", help="Also try, last, a cancel before the first row; it may cost a slot.")
]
BesideRecorder = Annotated[
    bool, typer.Option("--beside-recorder", help="Go on although a recorder runs, and take slots from it.")
]
Out = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--out", metavar="FILE", help="Where the facts go, as JSON. Default: IBKR_GATEWAY_FACTS."),
]
ScenarioFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--scenario", metavar="FILE", help="Where the scenario goes. Default: beside the facts, .yaml."),
]


@app.command()
def main(
    symbol: Symbols = None,
    only: Only = None,
    early_cancel: EarlyCancel = False,
    beside_recorder: BesideRecorder = False,
    out: Out = None,
    scenario: ScenarioFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON instead of the table.")] = False,
    total: Annotated[float, typer.Option(min=1, max=3600, help="Seconds after which the run ends.")] = _LIMITS.total,
    first_row: Annotated[
        float, typer.Option(min=0.1, max=600, help="Longest wait for a first row, in seconds.")
    ] = _LIMITS.first_row,
    granted: Annotated[
        float, typer.Option(min=0.05, max=60, help="A request without an error for so long has its slot.")
    ] = _LIMITS.granted,
    advice: Annotated[
        float, typer.Option(min=0.05, max=60, help="How long rows are awaited after an error about a request.")
    ] = _LIMITS.advice,
    watch: Annotated[float, typer.Option(min=0.1, max=3600, help="How long rows are watched.")] = _LIMITS.watch,
    late_rows: Annotated[
        float, typer.Option(min=0.1, max=600, help="How long rows are awaited after a cancel.")
    ] = _LIMITS.late_rows,
    release: Annotated[
        float, typer.Option(min=0.1, max=600, help="Longest wait for a slot that was given back.")
    ] = _LIMITS.release,
    most_slots: Annotated[int, typer.Option(min=1, max=60, help="Slots that are tried at most.")] = _LIMITS.most_slots,
    most_venues: Annotated[
        int, typer.Option(min=1, max=40, help="Venues of a symbol that are tried at most.")
    ] = _LIMITS.most_venues,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also write the log to stderr.")] = False,
) -> None:
    """Find out what your gateway does where the documentation only has reports. Takes some five minutes.

    It subscribes to market depth and cancels, and asks for contracts and the time; it can't send orders. Stop the
    recorder first: this needs every slot of the account. Ctrl-C ends it, and what was found so far is kept.

    \b
    Examples:
      ibkr_gateway_facts --symbol SPY --symbol2 EUR.USD
      ibkr_gateway_facts --only slots --only release
      ibkr_gateway_sim --scenario config/gateway_facts.yaml

    The facts are written as JSON, from which the probe and the recorder take their first slots and pauses
    (IBKR_GATEWAY_FACTS), and as a scenario that lets ibkr_gateway_sim behave as your gateway did. Neither holds an
    account number; a third file, .account.key, has what recognizes yours: keep it to yourself.

    Settings come from the environment or .env: IBKR_HOST, IBKR_PORT, IBKR_FACTS_CLIENT_ID and more.

    \b
    Exit code:
      0    the experiments were carried out
      1    the gateway can't be reached or was lost, or a recorder runs
      2    bad input or settings
      130  ended by Ctrl-C
    """
    with errors_as_exit_codes():
        _check_names(only or ())
        settings = load_settings()
        configure_logging(settings.ibkr_log_level if verbose else "CRITICAL")
        specs = specs_of(_universe(settings), symbol or _DEFAULT_SYMBOLS)
        out = out or settings.ibkr_gateway_facts
        scenario = scenario or out.with_suffix(".yaml")
        earlier = _earlier(out)
        _refuse_foreign(scenario)
        _refuse_beside_recorder(settings, [spec.name for spec in specs], allowed=beside_recorder)
        limits = FactLimits(
            total=total,
            first_row=first_row,
            granted=granted,
            advice=advice,
            watch=watch,
            late_rows=late_rows,
            release=release,
            most_slots=most_slots,
            most_venues=most_venues,
        )
        found = _found(settings, specs, limits, only or (), early_cancel)
        kept = found if earlier is None else found.with_earlier(earlier)
        _write_facts(out, kept)
        _write(scenario, scenario_text(kept))
    if as_json:
        typer.echo(found.without_key().as_json(), nl=False)
    else:
        Console(highlight=False).print(_table(found))
        typer.echo(f"{_summary(found)}\nwritten: {out} and {scenario}")
    raise typer.Exit(_exit_code(found))


def _check_names(only: Sequence[str]) -> None:
    unknown = [name for name in only if name not in EXPERIMENTS]
    if unknown:
        problem = f"--only {unknown[0]}: there is no such experiment; there are {', '.join(EXPERIMENTS)}"
        raise ConfigurationError("options", [problem])


def _universe(settings: Settings) -> Universe:
    path = settings.symbol_config_path
    return load_universe(path) if path.exists() else Universe(())


def _refuse_beside_recorder(settings: Settings, symbols: Sequence[str], *, allowed: bool) -> None:
    runs = asyncio.run(_recorder_runs(settings, symbols))
    if runs is None:
        typer.echo("warning: Redis can't be reached, so whether a recorder runs is unknown", err=True)
    elif runs and not allowed:
        typer.echo(
            "error: a recorder runs (its heartbeats or its lease are in Redis): its slots would count as taken, and "
            "this would take slots from it. Stop it, or go on all the same with --beside-recorder",
            err=True,
        )
        raise typer.Exit(FAILED)


async def _recorder_runs(settings: Settings, symbols: Sequence[str]) -> bool | None:
    cache = VenueCache(settings.redis_target, settings.ibkr_gateway_name)
    try:
        return await cache.detect_ingest(symbols)
    finally:
        await cache.close()


def _found(
    settings: Settings, specs: Sequence[SymbolSpec], limits: FactLimits, only: Sequence[str], early_cancel: bool
) -> GatewayFacts:
    return run_facts(
        settings,
        specs,
        limits,
        only=only,
        early_cancel=early_cancel,
        on_progress=lambda line: typer.echo(line, err=True),
    )


def _earlier(path: Path) -> GatewayFacts | None:
    """What an earlier run has left at `path`. Raises ConfigurationError for any other file: it is not replaced."""
    try:
        return read_facts(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problem = f"is not replaced, as it is no file of this program ({error}); remove it, or name another with --out"
        raise ConfigurationError(str(path), [problem]) from None


def _refuse_foreign(scenario: Path) -> None:
    if scenario.exists() and not scenario.read_text(encoding="utf-8", errors="replace").startswith(f"about: {ABOUT}"):
        problem = "is not replaced, as it is no scenario of this program; remove it, or name another with --scenario"
        raise ConfigurationError(str(scenario), [problem])


def _write_facts(path: Path, facts: GatewayFacts) -> None:
    """The facts, which may be shown to anybody, and the key of the account's digest, which is nobody else's."""
    if facts.account is not None and facts.account.salt is not None:
        _write(key_path(path), f"{facts.account.salt}\n", mode=0o600)
    _write(path, facts.without_key().as_json())


def _write(path: Path, text: str, mode: int = 0o666) -> None:
    """Replaces the file as a whole. Raises ConfigurationError if it can't."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(text)
        beside.replace(path)
    except OSError as error:
        raise ConfigurationError(str(path), [f"can't be written: {error}"]) from None


def _table(facts: GatewayFacts) -> Table:
    """One row for each fact."""
    table = Table(box=box.SIMPLE_HEAD, title=f"{facts.host}:{facts.port}", title_justify="left", pad_edge=False)
    for column in ("fact", "assumed", "seen"):
        table.add_column(column, overflow="fold", ratio=1)
    for each in ASSUMPTIONS:
        entry = facts.facts[each.fact]
        table.add_row(each.asks, entry.assumed, _seen(entry))
    return table


def _summary(facts: GatewayFacts) -> str:
    """How many facts are as assumed, otherwise, without an assumption, and not seen, in one line."""
    seen = [each for each in facts.facts.values() if each.seen_ts is not None]
    counts = Counter(each.as_assumed for each in seen)
    return (
        f"{counts[True]} as assumed, {counts[False]} otherwise, {counts[None]} where nothing definite is assumed, "
        f"{len(facts.facts) - len(seen)} not seen"
    )


def _seen(entry: FactEntry) -> Text:
    if entry.seen_ts is None:
        return Text(f"not seen: {entry.reason}", style="dim")
    style = {True: "green", False: "yellow", None: ""}[entry.as_assumed]
    note = f" ({entry.note})" if entry.note else ""
    return Text(f"{'at least ' if entry.at_least else ''}{in_words(entry.seen)}{note}", style=style)


def _exit_code(found: GatewayFacts) -> int:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if found.ended_early == f"interrupted ({each.name})":
            return _SIGNAL_EXIT + each
    return FAILED if found.ended_early else 0


if __name__ == "__main__":
    app()
