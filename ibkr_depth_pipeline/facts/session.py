"""Carries out the experiments against a gateway: connects, sends what they request, and passes on what comes.

Only depth requests, cancels and questions are ever sent: gateway/ib_client.py refuses every other message.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from typing_extensions import assert_never

from ibkr_depth_pipeline.clock import loop_time, unix_ms
from ibkr_depth_pipeline.errors import ClientIdsExhausted, GatewayError, GatewayUnavailable, QuestionUnanswered
from ibkr_depth_pipeline.facts import account_experiments, line_experiments
from ibkr_depth_pipeline.facts.assumptions import ASSUMPTIONS, EXPERIMENTS
from ibkr_depth_pipeline.facts.evidence import (
    AskClock,
    CancelLine,
    ClockSample,
    ConnectAnew,
    ErrorMessage,
    Evidence,
    ExperimentFailed,
    FactCommand,
    FactLimits,
    RequestLine,
    ResolveSymbols,
    Steps,
    WaitFor,
)
from ibkr_depth_pipeline.gateway.connecting import ConnectRound
from ibkr_depth_pipeline.gateway.events import ConnectionLost, GatewayEvent
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.tws_session import GatewayCallbacks
from ibkr_depth_pipeline.gateway_facts import AccountDigest, FactEntry, GatewayFacts, in_words
from ibkr_depth_pipeline.hours.instruments import ALWAYS_OPEN
from ibkr_depth_pipeline.ingest.composition import rows_requested
from ibkr_depth_pipeline.ingest.connection import ids_to_try
from ibkr_depth_pipeline.ingest.open_markets import OpenMarkets
from ibkr_depth_pipeline.ingest.resolver import resolve_symbols
from ibkr_depth_pipeline.model import DepthRow, Instrument
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.tasks import RunTasks, at_most, signals_caught
from ibkr_depth_pipeline.universe import SymbolSpec, Universe

SPARE_SYMBOLS = (
    *("AAPL", "GBP.USD", "MSFT", "USD.JPY", "IWM", "EUR.GBP", "QQQ", "AUD.USD", "NVDA", "USD.CAD", "AMZN", "USD.CHF"),
    *("GOOGL", "META", "TSLA", "IBM", "JPM"),
)
"""Liquid contracts that fill the slots beside those asked for."""

POLL_SECS = 0.05
"""Conditions that depend on the time are evaluated so often."""

RECONNECT_STEP_SECS = 0.5
DRAIN_SECS = 2.0
_NEEDS_CONSENT = "early_cancel"
_PAIR = re.compile(r"[A-Z]{3}\.[A-Z]{3}")

_STEPS: Mapping[str, Callable[[Evidence], Steps]] = {
    "connection": account_experiments.connection,
    "contracts": account_experiments.contracts,
    "slots": account_experiments.slots,
    "release": account_experiments.release,
    "no_depth": account_experiments.no_depth,
    "venues": line_experiments.venues,
    "drop": line_experiments.drop,
    "early_cancel": line_experiments.early_cancel,
}

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "contracts": (),
    "slots": ("contracts",),
    "release": ("contracts", "slots"),
    "no_depth": ("contracts",),
    "venues": ("contracts",),
    "drop": ("contracts", "slots"),
    "early_cancel": ("contracts", "slots", "venues"),
}
"""Experiment -> those whose findings it needs."""


def chosen_experiments(only: Collection[str], *, early_cancel: bool) -> tuple[str, ...]:
    """What to carry out, in order: everything, or `only` these and what they need; early_cancel: it is allowed."""
    wanted = set(only or EXPERIMENTS)
    wanted |= {need for name in wanted for need in _NEEDS.get(name, ())}
    return tuple(name for name in EXPERIMENTS if name in wanted and (early_cancel or name != _NEEDS_CONSENT))


def specs_of(universe: Universe, names: Sequence[str]) -> tuple[SymbolSpec, ...]:
    """The entries of these names: the universe's own; EUR.USD and its kind are pairs, all others plain entries.

    Raises ConfigurationError for a bad or doubled name.
    """
    known = set(universe.symbols)
    return tuple(
        replace(spec, symbol=spec.name[:3], currency=spec.name[4:], sec_type="CASH")
        if _PAIR.fullmatch(spec.name) and spec.name not in known
        else spec
        for spec in universe.subset(names).specs
    )


class FactsSession:
    """One run of the experiments; created and run in one event loop, once.

    specs: the symbols asked for. on_progress takes one line of text for each step.
    """

    def __init__(
        self,
        settings: Settings,
        specs: Sequence[SymbolSpec],
        limits: FactLimits | None = None,
        *,
        only: Collection[str] = (),
        early_cancel: bool = False,
        on_progress: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._settings = settings
        self._limits = limits or FactLimits()
        self._chosen = chosen_experiments(only, early_cancel=early_cancel)
        self._early_cancel = early_cancel
        self._on_progress = on_progress
        asked = tuple(spec.name for spec in specs)
        spares = specs_of(Universe(()), [each for each in SPARE_SYMBOLS if each not in asked])
        self._specs = {spec.name: spec for spec in (*specs, *spares)}
        ids = itertools.count(1)
        self.evidence = Evidence(
            self._limits, ids, asked, rows_requested(settings), tuple(spec.name for spec in spares)
        )
        self._gateway = TwsGateway.of_settings(
            settings,
            request_ids=ids,
            callbacks=GatewayCallbacks(
                on_event=self._on_event, on_row=self._on_row, on_read_end=self._on_read_end, on_error=self._on_error
            ),
            id_setting="IBKR_FACTS_CLIENT_ID",
        )
        self._client_id = 0
        self._account: AccountDigest | None = None
        self._lost = ""
        self._news = asyncio.Event()
        self._stop = asyncio.Event()
        self._stopped_by = ""
        self._tasks = RunTasks(self._stop)
        self._ends = math.inf

    def stop(self, by: str = "stop") -> None:
        """Ends the run early: what was found so far is reported."""
        self._stopped_by = self._stopped_by or by
        self._stop.set()

    async def run(self) -> GatewayFacts:
        """Returns what was found, also after `stop` or a lost connection. Raises GatewayError without a gateway."""
        began = unix_ms()
        self._ends = loop_time() + self._limits.total
        ended_early = ""
        try:
            if not await self._tasks.unless_stopped(self._work()):
                ended_early = f"interrupted ({self._stopped_by})"
        except GatewayError as error:
            if not self._client_id:
                raise
            ended_early = str(error)
        finally:
            await self._clean_up()
        return self._facts(began, ended_early)

    async def _work(self) -> None:
        await self._connect()
        for name in self._chosen:
            if loop_time() >= self._ends:
                return
            self._on_progress(f"{name} ...")
            await self._carry_out(name)

    async def _connect(self) -> None:
        began = loop_time()
        self._client_id = await self._gateway.connect(ids_to_try(self._settings, self._settings.ibkr_facts_client_id))
        self.evidence.greeting_secs = loop_time() - began
        self.evidence.server_version = self._gateway.server_version
        self._account = AccountDigest.of(self._gateway.accounts)
        where = f"{self._settings.ibkr_host}:{self._settings.ibkr_port}"
        self._on_progress(f"connected to {where}, {self._gateway.greeting}, client id {self._client_id}")

    # ---- an experiment

    async def _carry_out(self, name: str) -> None:
        facts = [each.fact for each in ASSUMPTIONS if each.experiment == name]
        steps = _STEPS[name](self.evidence)
        try:
            result: Any = None
            while True:
                self.evidence.now = loop_time()
                command = steps.send(result)
                result = await self._do(command)
        except StopIteration:
            pass
        except (ExperimentFailed, QuestionUnanswered) as why:
            self.evidence.fail(facts, str(why))
            self._on_progress(f"  not seen: {why}")
        for fact in facts:
            if fact in self.evidence.findings:
                self._on_progress(f"  {fact}: {in_words(self.evidence.findings[fact].seen)}")

    async def _do(self, command: FactCommand) -> Any:
        match command:
            case RequestLine(line, cancel_at_once):
                self._gateway.subscribe(line.request, line.instrument, line.rows_asked)
                if cancel_at_once:
                    self._gateway.cancel(line.request)
                await self._gateway.drain()
                line.sent_at = loop_time()
                line.cancelled_at = line.sent_at if cancel_at_once else math.inf
            case CancelLine(line):
                self._gateway.cancel(line.request)
                await self._gateway.drain()
                line.cancelled_at = min(line.cancelled_at, loop_time())
            case WaitFor():
                await self._wait(command)
            case ResolveSymbols(names):
                return await self._resolve(names)
            case AskClock():
                asked_at = time.time()
                told = await self._gateway.server_time()
                return ClockSample(asked_at, told, time.time())
            case ConnectAnew():
                return await self._connect_anew()
            case _:
                assert_never(command)
        return None

    async def _wait(self, wait: WaitFor) -> None:
        until = min(wait.until, self._ends)
        while True:
            if self._lost:
                raise GatewayUnavailable(f"the connection to the gateway was lost: {self._lost}")
            self.evidence.now = now = loop_time()
            if wait.condition() or now >= until:
                return
            self._news.clear()
            await at_most(min(POLL_SECS, until - now), self._wait_for_news())

    async def _wait_for_news(self) -> None:
        await self._news.wait()

    async def _resolve(self, names: Sequence[str]) -> Mapping[str, Any]:
        specs = [self._specs.get(name) or SymbolSpec(name) for name in names]
        found = await resolve_symbols(self._gateway, specs)
        if self.evidence.details_secs is None and self._gateway.answer_secs:
            self.evidence.details_secs = self._gateway.answer_secs
        markets, now = OpenMarkets(lambda _: ALWAYS_OPEN), unix_ms()
        for name, each in found.items():
            if isinstance(each, Instrument):
                markets.wish(name, None)
                markets.resolved(each, now)
                if opens := markets.closed_until(name, now):
                    moment = datetime.fromtimestamp(opens / 1000, timezone.utc)
                    self.evidence.closed[name] = moment.strftime("%Y-%m-%d %H:%M UTC")
        return found

    async def _connect_anew(self) -> float:
        """Seconds until the same client id was granted; inf if it was not in time, so that another one is used."""
        self._gateway.disconnect()
        began = loop_time()
        for line in self.evidence.lines.values():
            line.cancelled_at = min(line.cancelled_at, began)
        tries = 0
        while loop_time() < began + self._limits.release:
            try:
                await self._gateway.connect([self._client_id])
                return round(loop_time() - began, 2) if tries else 0.0
            except (ClientIdsExhausted, GatewayUnavailable):
                tries += 1
                await asyncio.sleep(RECONNECT_STEP_SECS)
        self._client_id = await self._gateway.connect(
            ids_to_try(self._settings, self._settings.ibkr_facts_client_id), terms=ConnectRound()
        )
        return math.inf

    # ---- what comes

    def _on_row(self, request: int, row: DepthRow) -> None:
        self.evidence.row(request, row, loop_time())

    def _on_error(self, request: int, code: int, text: str) -> None:
        self.evidence.error(ErrorMessage(loop_time(), request, code, text))

    def _on_read_end(self) -> None:
        self._news.set()

    def _on_event(self, event: GatewayEvent) -> None:
        if isinstance(event, ConnectionLost):
            self._lost = event.text
            self._news.set()

    # ---- the end

    async def _clean_up(self) -> None:
        """Cancels what has had rows; closing the connection ends the rest."""
        if self._gateway.is_connected:
            for line in self.evidence.lines.values():
                if line.has_rows and line.cancelled_at == math.inf:
                    self._gateway.cancel(line.request)
            await at_most(DRAIN_SECS, self._gateway.drain())
        self._gateway.disconnect()
        await self._tasks.end()

    def _facts(self, began: int, ended_early: str) -> GatewayFacts:
        return GatewayFacts(
            host=self._settings.ibkr_host,
            port=self._settings.ibkr_port,
            account=self._account,
            began_ts=began,
            ended_ts=unix_ms(),
            ended_early=ended_early,
            symbols=self.evidence.symbols,
            rows_asked=self.evidence.rows_asked,
            facts={each.fact: self._entry(each.fact, ended_early) for each in ASSUMPTIONS},
        )

    def _entry(self, fact: str, ended_early: str) -> FactEntry:
        known = next(each for each in ASSUMPTIONS if each.fact == fact)
        found = self.evidence.findings.get(fact)
        if found is None:
            return FactEntry(assumed=known.assumed, source=known.source, reason=self._reason(fact, ended_early))
        return FactEntry(
            assumed=known.assumed,
            source=known.source,
            seen=found.seen,
            seen_ts=unix_ms(),
            note=found.note,
            at_least=found.at_least,
            as_assumed=None if known.holds is None else known.holds(found.seen),
        )

    def _reason(self, fact: str, ended_early: str) -> str:
        experiment = next(each.experiment for each in ASSUMPTIONS if each.fact == fact)
        if fact in self.evidence.reasons:
            return self.evidence.reasons[fact]
        if experiment == _NEEDS_CONSENT and not self._early_cancel:
            return "not tried: it may cost a slot until the connection ends; allow it with --early-cancel"
        if experiment not in self._chosen:
            return "not asked for (--only)"
        return ended_early or "not seen in the time there was"


def run_facts(
    settings: Settings,
    specs: Sequence[SymbolSpec],
    limits: FactLimits | None = None,
    *,
    only: Collection[str] = (),
    early_cancel: bool = False,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> GatewayFacts:
    """Carries out the experiments, in a blocking call; the parameters are FactsSession's. A signal ends it early."""

    async def main() -> GatewayFacts:
        session = FactsSession(settings, specs, limits, only=only, early_cancel=early_cancel, on_progress=on_progress)
        with signals_caught(session.stop):
            return await session.run()

    return asyncio.run(main())
