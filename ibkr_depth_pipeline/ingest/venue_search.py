"""Resolves symbols' venues during a run: all from the start on, those without one again and again, and all that age.

`ContractRefresh` (pure) decides when contracts are resolved again: at their roll, on a new day, after a reconnect. A
refresh is no doubt: the gateway may refuse sound contracts around its restart, so that an answer without a contract
changes nothing, unless the contract's depth was refused as well.

`ContractGate` lets a resolved contract into the recording once it is known that no other ingest records it. Two
gateways may come to one contract on one venue by entries that are worded differently, so only their ingests can notice
it: by claims in Redis (sink/claims.py). The second one to come is refused with both names, and waits until the first
one records it no more. While Redis is away nothing is refused: nobody can store anything then.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.clock import loop_time, unix_ms
from ibkr_depth_pipeline.errors import NothingToRecord, SinkUnavailable
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.venues import Place, Resolution, place_of, refused_contract
from ibkr_depth_pipeline.ingest.connection import FailureLog
from ibkr_depth_pipeline.ingest.resolver import FIRST_PATIENCE_SECS, SPACING_SECS, NoAnswer, Resolver
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.model import Instrument, Unresolved
from ibkr_depth_pipeline.sink.claims import AT_ONCE, ContractClaims
from ibkr_depth_pipeline.tasks import first_of
from ibkr_depth_pipeline.universe import SymbolSpec

FIRST_PAUSE_SECS = 1.0
"""The pause before all symbols are resolved again if none has a venue; it doubles from one time to the next."""

REFRESH_CYCLE_SECS = 1.0
"""How often contracts that roll are looked for."""

_UNANSWERED_FROM = 3
"""From which look on answers that are missing are worth a line; that is after 2 to 7 s."""


class VenueSearch:
    """Resolves venues beside a recording; `take` is called with each result as soon as it is known.

    Questions go out while `connected` is set, over any number of connections. Until a first symbol has a venue, that
    another has none is no verdict: the gateway may not be ready, and `wait_for_first`, beside `run`, asks again.
    first_patience, spacing: see QuestionSchedule.
    """

    def __init__(
        self,
        gateway: TwsGateway,
        specs: Iterable[SymbolSpec],
        *,
        connected: asyncio.Event,
        take: Callable[[Resolution], None],
        first_patience: float = FIRST_PATIENCE_SECS,
        spacing: float = SPACING_SECS,
        wall_ms: Callable[[], int] = unix_ms,
    ) -> None:
        asked = tuple(specs)
        self._unknown = {spec.name for spec in asked}
        self._doubted: dict[str, Unresolved] = {}
        self._resolver = Resolver(
            gateway,
            asked,
            ready=connected.wait,
            first_patience=first_patience,
            spacing=spacing,
            wall_ms=wall_ms,
        )
        self._wall_ms = wall_ms
        self._refresh = ContractRefresh()
        self._take = take
        self._connected = connected
        self._log = get_log()
        self._first_found = asyncio.Event()
        self._was_unready = False
        self.unresolved: dict[str, str] = {}
        """symbol -> why it has no venue."""

    async def run(self) -> None:
        """Resolve until cancelled."""
        async for found in self._resolver.results(endless=True):
            if not isinstance(found, NoAnswer):
                self._found(found)

    async def wait_for_first(self, until: float, longest_pause: float) -> None:
        """Wait for a first venue; whenever every symbol was found to have none, resolve all again, with back-off.

        What is in the way is logged once and then rarely, missing answers included. Raises NothingToRecord at `until`,
        the loop's time.
        """
        failures, pauses = FailureLog(), self._pauses(longest_pause)
        for attempt in itertools.count(1):
            pause = min(next(pauses), max(0.0, until - loop_time()))
            await first_of(self._first_found.wait(), asyncio.sleep(pause))
            if self._first_found.is_set():
                return
            if loop_time() >= until:
                self._give_up()
            if self._connected.is_set() and (attempt >= _UNANSWERED_FROM or not self._unknown):
                reason = str(self._nothing_yet())
                if failures.is_worth_a_line(attempt, reason, loop_time()):
                    self._log.warning("gateway_not_ready", reason=reason, attempt=attempt)
            if not self._unknown:
                self._was_unready = True
                self._unknown |= self._doubted.keys()
                self.resolve_missing()

    @staticmethod
    def _pauses(longest: float) -> Iterator[float]:
        backoff = Backoff(FIRST_PAUSE_SECS, longest)
        for failures in itertools.count(1):
            yield backoff.jittered(failures)

    def _give_up(self) -> None:
        for doubted in self._doubted.values():
            self._take(doubted)  # why, for each
        raise self._nothing_yet()

    def _nothing_yet(self) -> NothingToRecord:
        """Why no symbol can be recorded so far, for each."""
        missing = sorted(self._unknown - self.unresolved.keys())
        return NothingToRecord({**self.unresolved, **{each: self._resolver.why_unknown(each) for each in missing}})

    def nothing_found(self) -> NothingToRecord | None:
        """Why nothing can be recorded, if every symbol was found to have no venue; else None."""
        known = bool(self.unresolved) and not self._unknown - self.unresolved.keys()
        return NothingToRecord(self.unresolved) if known and not self._first_found.is_set() else None

    def resolve_again(self, symbol: str) -> None:
        """Resolve the symbol again, unless that is under way: its depth is refused, or it has no venue."""
        self._refresh.doubted(symbol)
        self._resolver.ask(symbol)

    def add(self, spec: SymbolSpec) -> None:
        """Resolve this entry, too, or again if it has changed."""
        self.forget(spec.name)
        self._unknown.add(spec.name)
        self._resolver.add(spec)

    def forget(self, symbol: str) -> None:
        """Resolve the symbol no more."""
        self._unknown.discard(symbol)
        self._doubted.pop(symbol, None)
        self.unresolved.pop(symbol, None)
        self._refresh.forget(symbol)
        self._resolver.forget(symbol)

    async def refresh(self) -> None:
        """Resolve again what rolls, when it rolls, and on a new day everything; until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_CYCLE_SECS)
            for symbol in self._refresh.due(self._wall_ms() / 1000):
                self._resolver.ask(symbol)

    def refresh_all(self) -> None:
        """Resolve everything again that was not resolved lately: the connection is another one."""
        for symbol in self._refresh.reconnected(self._wall_ms() / 1000):
            self._resolver.ask(symbol)

    def resolve_missing(self) -> None:
        """Resolve all symbols without a venue now: the gateway's state has changed."""
        for symbol in self.unresolved:
            self._resolver.ask(symbol)
        self._resolver.hurry()

    def _found(self, resolution: Resolution) -> None:
        now = self._wall_ms() / 1000
        if isinstance(resolution, Unresolved) and self._refresh.keeps(resolution, now):
            self._log.info("contract_kept", symbol=resolution.symbol, reason=resolution.reason)
            return
        self._refresh.resolved(resolution, now)
        self._unknown.discard(resolution.symbol)
        if isinstance(resolution, Unresolved):
            self.unresolved[resolution.symbol] = resolution.reason
            if not self._first_found.is_set():
                self._doubted[resolution.symbol] = resolution
                return
        else:
            self.unresolved.pop(resolution.symbol, None)
            self._log.info(
                "symbol_resolved",
                symbol=resolution.symbol,
                con_id=resolution.con_id,
                exchange=resolution.exchange,
                primary_exchange=resolution.primary_exchange,
                **_more_of(resolution),
            )
            self._ask_for_doubted()
        self._take(resolution)

    def _ask_for_doubted(self) -> None:
        """Pass on the verdicts on other symbols: the gateway is ready. Resolve them again if it was not before."""
        self._first_found.set()
        for doubted in self._doubted.values():
            self._take(doubted)
            if self._was_unready:
                self._resolver.ask(doubted.symbol)
        self._doubted.clear()


def _more_of(instrument: Instrument) -> dict[str, object]:
    """What the log has besides of a contract that expires, or that was chosen among several."""
    more: dict[str, object] = {}
    if instrument.expiry:
        more |= {"local_symbol": instrument.local_symbol, "expiry": instrument.expiry}
    if instrument.rolls_at is not None:
        more["rolls_at"] = datetime.fromtimestamp(instrument.rolls_at, timezone.utc).isoformat()
    if instrument.passed_over:
        more["instead_of"] = instrument.passed_over
    return more


# ---- when contracts are resolved again


DAY_SECS = 86_400
RECENT_SECS = 60.0
"""A contract that was resolved so lately is not resolved again after a reconnect: connections may come in storms."""

ROLL_RETRY_SECS = 60.0
"""From a roll whose contract was not found to the next question about it."""


class ContractRefresh:
    """The contracts in force, by name, and when each is to be resolved again."""

    def __init__(self) -> None:
        self._contracts: dict[str, Instrument] = {}
        self._resolved_at: dict[str, float] = {}
        self._asked_at: dict[str, float] = {}
        self._doubted: set[str] = set()

    def doubted(self, name: str) -> None:
        """Note that its depth is refused: the next answer counts in any case."""
        self._doubted.add(name)

    def keeps(self, answer: Instrument | Unresolved, now: float) -> bool:
        """Whether the contract in force stays so in spite of an answer without one."""
        name = answer.symbol
        known = self._contracts.get(name)
        if isinstance(answer, Unresolved) and known is not None and name not in self._doubted:
            return not self._has_rolled(known, now)
        return False

    def resolved(self, answer: Instrument | Unresolved, now: float) -> None:
        """Take note of an answer that counts."""
        name = answer.symbol
        self._doubted.discard(name)
        self._asked_at.pop(name, None)
        self._resolved_at[name] = now
        if isinstance(answer, Instrument):
            self._contracts[name] = answer
        else:
            self._contracts.pop(name, None)

    def forget(self, name: str) -> None:
        """Forget a contract that is no longer recorded."""
        for table in (self._contracts, self._resolved_at, self._asked_at):
            table.pop(name, None)
        self._doubted.discard(name)

    def due(self, now: float) -> list[str]:
        """The names to resolve again: whose roll has come, or that were resolved on an earlier day (UTC)."""
        due = [
            name for name, known in self._contracts.items() if self._has_rolled(known, now) or self._is_old(name, now)
        ]
        return self._ask(due, now)

    def reconnected(self, now: float) -> list[str]:
        """The names to resolve again after a reconnect."""
        return self._ask([name for name in self._contracts if now - self._resolved_at[name] >= RECENT_SECS], now)

    def _ask(self, names: list[str], now: float) -> list[str]:
        """The names among `names` that were not asked for lately."""
        fresh = [name for name in names if not 0 <= now - self._asked_at.get(name, float("-inf")) < ROLL_RETRY_SECS]
        self._asked_at.update(dict.fromkeys(fresh, now))
        return fresh

    @staticmethod
    def _has_rolled(contract: Instrument, now: float) -> bool:
        return contract.rolls_at is not None and contract.rolls_at <= now

    def _is_old(self, name: str, now: float) -> bool:
        return now // DAY_SECS > self._resolved_at[name] // DAY_SECS


# ---- contracts of other ingests


GATE_CYCLE_SECS = 1.0
_CONTRACTS_PER_SEC = 200
"""How often it is checked which contracts other ingests have: every second, of more than 200 more rarely."""


class ContractGate:
    """`offer` each contract that is resolved, `forget` what is not recorded any more; `run` it beside the recording.

    recorded() are the contracts in force, by symbol; take is called with those that pass, and with why others do not;
    resolve_again(symbol) for one whose contract has become free.
    """

    def __init__(
        self,
        claims: ContractClaims,
        recorded: Callable[[], Mapping[str, Instrument]],
        take: Callable[[Resolution], None],
        resolve_again: Callable[[str], None],
    ) -> None:
        self._claims = claims
        self._recorded = recorded
        self._take = take
        self._resolve_again = resolve_again
        self._offered: dict[str, Instrument] = {}  # whether another ingest has them is not known yet
        self._held: dict[str, Instrument] = {}  # another ingest has them
        self._news = asyncio.Event()

    def offer(self, instrument: Instrument) -> None:
        """Take it now if it is claimed already, else as soon as it is known that nobody else has it.

        One that is offered once more, as the gateway has answered meanwhile, keeps its place before others.
        """
        self._held.pop(instrument.symbol, None)
        if self._claims.has(_place(instrument)):
            self._offered.pop(instrument.symbol, None)
            self._take(instrument)
        else:
            self._offered[instrument.symbol] = instrument
            self._news.set()

    def forget(self, symbol: str) -> None:
        """Its contract is another one now, or none."""
        self._offered.pop(symbol, None)
        self._held.pop(symbol, None)

    async def run(self) -> None:
        """Until cancelled."""
        keep_at = 0.0
        while True:
            self._news.clear()
            await self._claim_offered()
            if loop_time() >= keep_at:
                await self._keep()
                keep_at = loop_time() + max(GATE_CYCLE_SECS, len(self._recorded()) / _CONTRACTS_PER_SEC)
            await first_of(self._news.wait(), asyncio.sleep(GATE_CYCLE_SECS))

    async def _claim_offered(self) -> None:
        """Claim what is offered, some at a time, so that of thousands the first need not wait for the last."""
        while offered := list(itertools.islice(self._offered.values(), AT_ONCE)):
            with contextlib.suppress(SinkUnavailable):
                await self._claims.claim({_place(each): each.symbol for each in offered})
            self._let_in(offered)

    def _let_in(self, asked: Iterable[Instrument]) -> None:
        for each in asked:
            instrument = self._offered.get(each.symbol)
            if instrument is None or _place(instrument) != _place(each):
                continue
            if (holder := self._claims.held.get(_place(instrument))) is not None:
                self._refuse(instrument, holder)
            else:
                del self._offered[instrument.symbol]
                self._take(instrument)

    async def _keep(self) -> None:
        """Renew what is recorded and give the rest back; what others have by now is refused, what is free taken up."""
        recorded = list(self._recorded().values())
        with contextlib.suppress(SinkUnavailable):
            await self._claims.keep({_place(each): each.symbol for each in (*self._held.values(), *recorded)})
        for instrument in recorded:
            if (holder := self._claims.held.get(_place(instrument))) is not None:
                self._refuse(instrument, holder)
        for symbol, instrument in list(self._held.items()):
            if _place(instrument) not in self._claims.held:
                del self._held[symbol]
                self._resolve_again(symbol)

    def _refuse(self, instrument: Instrument, holder: str) -> None:
        self._offered.pop(instrument.symbol, None)
        self._held[instrument.symbol] = instrument
        self._take(refused_contract(instrument, holder))


def _place(instrument: Instrument) -> Place:
    return place_of(instrument.con_id, instrument.exchange)
