"""The operator's checklist: what must be right before a run. Nothing is subscribed to, nothing is left behind."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from ibkr_depth_pipeline.clock import monotonic, unix_ms
from ibkr_depth_pipeline.errors import ClientIdsExhausted, ConfigurationError, GatewayError, SinkUnavailable
from ibkr_depth_pipeline.gateway.connecting import ConnectRound
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.tws_session import GatewayCallbacks
from ibkr_depth_pipeline.gateway_facts import read_starting_point
from ibkr_depth_pipeline.gateways import load_gateways
from ibkr_depth_pipeline.ingest.connection import ids_to_try
from ibkr_depth_pipeline.ingest.resolver import resolve_symbols
from ibkr_depth_pipeline.model import Instrument, Unresolved
from ibkr_depth_pipeline.settings import Settings, names_without_setting, unreadable_env_lines
from ibkr_depth_pipeline.sink.advice import entries_of, redis_advice
from ibkr_depth_pipeline.sink.connection import check_writable
from ibkr_depth_pipeline.sink.stream_fence import recorded_contracts, streams_ahead
from ibkr_depth_pipeline.universe import Universe, load_universe

USUAL_SLOTS = 3
_SLOW_FIRST_ROW_SECS = 1.0


class Verdict(Enum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class ChecklistItem:
    """One line of the checklist."""

    verdict: Verdict
    subject: str
    text: str


async def run_checklist(
    settings: Settings, symbols: Sequence[str] = (), *, orders: bool = False
) -> list[ChecklistItem]:
    """Every finding, in the order in which an operator would check; of the whole universe, or of `symbols` alone.

    orders: ask the gateway for open orders, too, to learn whether it is read-only. A TWS that is opens a dialog then.

    Raises ConfigurationError for a bad name in `symbols`, and nothing for what it checks.
    """
    universe, findings = _universe(settings.symbol_config_path, settings.ibkr_max_concurrent_depth)
    if symbols:
        universe = (universe or Universe(())).subset(symbols)
    findings = [*_unknown_settings(), *findings]
    wanted = len(universe.specs) if universe else 0
    findings += check_rotation(settings, wanted) if wanted else []
    findings += await _redis(settings, universe)
    return findings + await _gateway(settings, universe, orders)


def _unknown_settings() -> list[ChecklistItem]:
    names = names_without_setting()
    text = f"{', '.join(names)}: no such setting, so it changes nothing; the names stand in .env.example"
    unknown = [ChecklistItem(Verdict.WARN, "settings", text)] if names else []
    return unknown + [ChecklistItem(Verdict.WARN, "settings", text) for text in unreadable_env_lines()]


def _universe(path: Path, slots: int) -> tuple[Universe | None, list[ChecklistItem]]:
    try:
        universe = load_universe(path)
        universe.check_pins(slots, str(path.absolute()))
    except ConfigurationError as error:
        return None, [
            ChecklistItem(Verdict.FAIL, "universe", f"{error.where}: {problem}") for problem in error.problems
        ]
    return universe, [ChecklistItem(Verdict.OK, "universe", f"{len(universe.specs)} symbols in {path}")]


def check_rotation(settings: Settings, symbols: int) -> Iterator[ChecklistItem]:
    """Whether dwell and slots are sensible for so many symbols. Pure."""
    slots, dwell = settings.ibkr_max_concurrent_depth, settings.ibkr_rotation_secs
    cycle = math.ceil(symbols / slots) * dwell
    text = f"{slots} slots, {dwell:g} s dwell: each of {symbols} symbols is on for {dwell:g} s every {cycle:g} s"
    if symbols > slots and dwell < _SLOW_FIRST_ROW_SECS:
        yield ChecklistItem(Verdict.WARN, "rotation", f"{text}; first rows take about as long as the dwell")
    else:
        yield ChecklistItem(Verdict.OK, "rotation", text)
    if slots > USUAL_SLOTS:
        yield ChecklistItem(
            Verdict.WARN, "slots", f"{slots} asked for; an account has {USUAL_SLOTS} unless quote boosters add more"
        )


async def _redis(settings: Settings, universe: Universe | None) -> list[ChecklistItem]:
    symbols = universe.symbols if universe else ()
    try:
        version = await check_writable(settings.redis_target, settings.ibkr_redis_min_replicas)
        advice = await redis_advice(settings.redis_target, entries_of(settings, len(symbols)))
        ahead = await streams_ahead(settings.redis_target, symbols, unix_ms())
    except SinkUnavailable as error:
        return [ChecklistItem(Verdict.FAIL, "redis", str(error))]
    text = f"{settings.redis_url_masked} is reachable and writable (version {version})"
    known = "".join(f"; {each.text}" for each in advice if not each.is_warning)
    findings = [ChecklistItem(Verdict.OK, "redis", text + known)]
    findings += [ChecklistItem(Verdict.WARN, each.subject, each.text) for each in advice if each.is_warning]
    if ahead:
        symbol, newest = max(ahead.items(), key=lambda item: item[1])
        days = (newest - unix_ms()) / 86_400_000
        text = f"{len(ahead)} streams end later than this host's clock, {symbol} by {days:.1f} days: every ts stands "
        text += "until then; docs/redis-schema.md, Ids ahead of the clock, says how to mend it"
        findings.append(ChecklistItem(Verdict.WARN, "stream ids", text))
    return findings


async def _gateway(settings: Settings, universe: Universe | None, orders: bool) -> list[ChecklistItem]:
    gateway = TwsGateway.of_settings(settings, request_ids=itertools.count(1), callbacks=GatewayCallbacks())
    findings: list[ChecklistItem] = []
    try:
        findings += await _connection(gateway, settings)
        if findings[-1].verdict is not Verdict.FAIL:
            findings.append(await _read_only(gateway) if orders else _NOT_ASKED_FOR_ORDERS)
            findings = await _with_clock(gateway, findings)
            findings += _facts(settings, gateway.accounts)
            findings += await _venues(gateway, universe, settings) if universe else []
    except GatewayError as error:
        findings.append(ChecklistItem(Verdict.FAIL, "gateway", str(error)))
    finally:
        gateway.disconnect()
    return findings


def _facts(settings: Settings, accounts: Sequence[str]) -> Iterator[ChecklistItem]:
    """What ibkr_gateway_facts has found of this gateway, if it has run."""
    known, path = read_starting_point(settings, accounts), settings.ibkr_gateway_facts
    if known.problem:
        yield ChecklistItem(Verdict.WARN, "facts", f"{path} is ignored: {known.problem}")
    elif known.seen_ts is not None:
        slots = "no number of slots" if known.slots is None else f"{known.slots} slots"
        pause = "" if known.release_pause is None else f", free {known.release_pause:g} s after a cancel"
        yield ChecklistItem(Verdict.OK, "facts", f"{path}: {slots}{pause}; the recorder begins with that")


async def _connection(gateway: TwsGateway, settings: Settings) -> list[ChecklistItem]:
    taken: list[int] = []
    unanswered: list[int] = []
    where = f"{settings.ibkr_host}:{settings.ibkr_port} answers"
    try:
        client_id = await gateway.connect(ids_to_try(settings), terms=ConnectRound(taken.append, unanswered.append))
    except ClientIdsExhausted as error:
        return [ChecklistItem(Verdict.OK, "gateway", where), ChecklistItem(Verdict.FAIL, "client id", str(error))]
    greeting = gateway.greeting
    answers = [ChecklistItem(Verdict.OK, "gateway", f"{where}, {greeting}")]
    if greeting.warning:
        answers.append(ChecklistItem(Verdict.WARN, "gateway version", greeting.warning))
    return [*answers, _client_id(client_id, taken, unanswered)]


def _client_id(client_id: int, taken: list[int], unanswered: list[int]) -> ChecklistItem:
    problems = [f"{', '.join(map(str, taken))} in use"] if taken else []
    if unanswered:
        problems.append(f"{', '.join(map(str, unanswered))} not answered (set another IBKR_CLIENT_ID)")
    if problems:
        return ChecklistItem(Verdict.WARN, "client id", f"{'; '.join(problems)}; {client_id} is free")
    return ChecklistItem(Verdict.OK, "client id", f"{client_id} is free")


_NOT_ASKED_FOR_ORDERS = ChecklistItem(
    Verdict.OK, "read-only", "this program can't send orders; whether the gateway takes any is asked with --orders only"
)


async def _with_clock(gateway: TwsGateway, findings: list[ChecklistItem]) -> list[ChecklistItem]:
    """The first finding, that the gateway answers, says how far its clock is; a line of its own warns if it is far.

    The gateway sends whole seconds: their middle is taken, and half a second and half the round trip left open.
    """
    asked_ms, began = unix_ms(), monotonic()
    unix_secs = await gateway.server_time()
    round_trip = monotonic() - began
    offset = unix_secs + 0.5 - asked_ms / 1000 - round_trip / 2
    error = 0.5 + round_trip / 2
    text = f"its clock is {offset:+.1f} s from this host's, within {error:.1f} s"
    answers = replace(findings[0], text=f"{findings[0].text}; {text}")
    if abs(offset) <= 1 + error:
        return [answers, *findings[1:]]
    warned = ChecklistItem(Verdict.WARN, "clock", f"the gateway answers, but {text}; ts is this host's: let NTP set it")
    return [answers, *findings[1:], warned]


async def _read_only(gateway: TwsGateway) -> ChecklistItem:
    if await gateway.is_read_only():
        return ChecklistItem(Verdict.OK, "read-only", "the gateway refuses orders, and this program can't send any")
    text = "this program can't send orders, but the gateway would take them from others: tick Read-Only API there"
    return ChecklistItem(Verdict.WARN, "read-only", text)


async def _venues(gateway: TwsGateway, universe: Universe, settings: Settings) -> list[ChecklistItem]:
    resolutions = await resolve_symbols(gateway, universe.specs)
    elsewhere = await _recorded_elsewhere(settings, universe)
    findings = []
    for symbol, found in resolutions.items():
        owner = elsewhere.get((found.con_id, found.exchange))
        if isinstance(found, Instrument) and owner is not None:
            text = f"{owner!r} of another gateway and {symbol!r} come to one and the same contract, {found.con_id} on "
            findings.append(ChecklistItem(Verdict.FAIL, f"venue of {symbol}", f"{text}{found.exchange}; list it once"))
            continue
        if isinstance(found, Unresolved):
            findings.append(ChecklistItem(Verdict.FAIL, f"venue of {symbol}", found.reason))
        else:
            text = f"{found.exchange} (listed on {found.primary_exchange or 'no exchange'}, contract {found.con_id})"
            findings.append(ChecklistItem(Verdict.OK, f"venue of {symbol}", text))
    return findings


async def _recorded_elsewhere(settings: Settings, universe: Universe) -> dict[tuple[int, str], str]:
    """(con_id, venue) -> symbol of what other gateways record, by Redis; empty if that can't be read now."""
    with contextlib.suppress(ConfigurationError, SinkUnavailable):
        paths = {gateway.settings().symbol_config_path for gateway in load_gateways() if gateway.name}
        others = [path for path in paths if path.absolute() != settings.symbol_config_path.absolute()]
        symbols = {symbol for path in others for symbol in load_universe(path).symbols} - set(universe.symbols)
        return await recorded_contracts(settings.redis_target, sorted(symbols))
    return {}
