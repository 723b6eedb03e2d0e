"""Resolves symbols to concrete venues: asks the gateway, and chooses with gateway/venues.py.

`QuestionSchedule` (pure) decides which symbols to ask about, and when: in their order, a bounded number at once; an
unanswered question is repeated with a back-off, and holds up no other. Answers are kept: a connection that breaks costs
the questions that were open on it, and those are asked again on the next one. An answer that is missing, or that is
about the gateway's state, is no verdict on a symbol.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.clock import loop_time, unix_ms
from ibkr_depth_pipeline.errors import GatewayError, GatewayUnavailable, QuestionUnanswered
from ibkr_depth_pipeline.futures import Expiry, RollRule
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.venues import (
    INDEX_SYMBOLS,
    ContractAnswer,
    ContractOwners,
    ContractQuery,
    Resolution,
    resolve,
)
from ibkr_depth_pipeline.model import Instrument, Unresolved
from ibkr_depth_pipeline.universe import SymbolSpec

NO_EXCHANGES = "the gateway lists no exchanges with market depth"
NOT_ANSWERED = "the gateway has not answered yet"

PATIENT_TRIES = 3
"""How often a bounded look-up asks one question: that takes some 14 s."""

_DEPTH_EXCHANGES = "(depth exchanges)"  # in the schedule, beside the symbols

AT_ONCE = 20
"""Most open questions at once, of those asked for the first time and of those asked again, each."""

FIRST_PATIENCE_SECS = 2.0
LONGEST_PATIENCE_SECS = 60.0
"""How long to wait for an answer before the question is asked again: at first, and at most after doubling."""

LOST_PAUSE_SECS = 0.1
"""The pause before a question is asked again whose connection broke."""

SPACING_SECS = 5.0
"""The least time from an answer to the next question about the same symbol: farm reports may come in storms."""

SLOWNESS_KEPT = 0.9
"""The share of the slowest answer so far that each further answer leaves in memory."""


def patience_secs(unanswered: int, slowest: float = 0.0, first: float = FIRST_PATIENCE_SECS) -> float:
    """How long to wait for an answer after `unanswered` that never came; slowest: the seconds that answers take."""
    return Backoff(max(first, 2 * slowest), LONGEST_PATIENCE_SECS).pause(unanswered + 1)


class QuestionSchedule:
    """Schedules the questions about symbols, each of which waits, is asked about, or is done. Pure.

    The caller asks what `due` returns, and reports the result. first_patience, spacing: FIRST_PATIENCE_SECS and
    SPACING_SECS, in a test fewer. `now` is monotonic seconds.
    """

    def __init__(
        self,
        symbols: Iterable[str],
        at_once: int = AT_ONCE,
        *,
        first_patience: float = FIRST_PATIENCE_SECS,
        spacing: float = SPACING_SECS,
    ) -> None:
        self._at_once = at_once
        self._first_patience = first_patience
        self._spacing = spacing
        self._rank = {symbol: rank for rank, symbol in enumerate(symbols)}
        self._waiting: dict[str, float] = dict.fromkeys(self._rank, float("-inf"))
        self._asked: dict[str, tuple[float, bool]] = {}  # since when, and whether an earlier question got no answer
        self._unanswered: dict[str, int] = {}
        self._answered_at: dict[str, float] = {}
        self._slowest = 0.0  # seconds that answers take

    @property
    def is_done(self) -> bool:
        """Whether every symbol has its answer."""
        return not self._waiting and not self._asked

    def add(self, symbol: str) -> None:
        """Let a symbol be asked about, again if it is done; nothing changes while it is asked about."""
        self._rank.setdefault(symbol, len(self._rank))
        if symbol not in self._asked:
            self._waiting[symbol] = self._answered_at.get(symbol, float("-inf")) + self._spacing

    def forget(self, symbol: str) -> None:
        """Ask about the symbol no more; its questions and answers so far count no more."""
        for table in (self._waiting, self._asked, self._unanswered, self._answered_at):
            table.pop(symbol, None)

    def ensure(self, symbol: str) -> None:
        """As `add`, but a symbol that waits already keeps its back-off."""
        if symbol not in self._waiting and symbol not in self._asked:
            self._waiting[symbol] = float("-inf")

    def hurry(self, now: float) -> list[str]:
        """Let every symbol that waits be asked about now: the gateway's state has changed.

        Returns those whose open question is old and may be lost: they wait again.
        """
        old = [symbol for symbol, (since, _) in self._asked.items() if since < now - self._first_patience]
        for symbol in old:
            del self._asked[symbol]
        for symbol in (*self._waiting, *old):
            self.add(symbol)
        return old

    def due(self, now: float) -> list[tuple[str, float]]:
        """The symbols to ask about now, each with the seconds to wait for its answer."""
        chosen: list[tuple[str, float]] = []
        for symbol in sorted(self._waiting, key=self._rank.__getitem__):
            again = symbol in self._unanswered
            if self._waiting[symbol] <= now and self._room(again) > 0:
                del self._waiting[symbol]
                self._asked[symbol] = (now, again)
                chosen.append((symbol, self._patience(symbol)))
        return chosen

    def next_at(self) -> float | None:
        """When `due` has something to return if no answer comes before; None: never."""
        times = [at for symbol, at in self._waiting.items() if self._room(symbol in self._unanswered) > 0]
        return min(times, default=None)

    def answered(self, symbol: str, now: float, took: float = 0.0) -> None:
        """Take a symbol for done: the gateway has answered after `took` seconds, or it is given up."""
        self._slowest = max(took, self._slowest * SLOWNESS_KEPT)
        for table in (self._asked, self._waiting, self._unanswered):
            table.pop(symbol, None)
        self._answered_at[symbol] = now

    def unanswered(self, symbol: str, now: float) -> int:
        """Let a symbol be asked about again, with more patience: no answer came. Returns how often in a row.

        It is asked about no sooner than this question's patience is over.
        """
        since, _ = self._asked.pop(symbol)
        self._waiting[symbol] = max(now, since + self._patience(symbol))
        self._unanswered[symbol] = self._unanswered.get(symbol, 0) + 1
        return self._unanswered[symbol]

    def lost(self, symbol: str, now: float) -> None:
        """Let a symbol be asked about again: the connection broke."""
        del self._asked[symbol]
        self._waiting[symbol] = now + LOST_PAUSE_SECS

    def _patience(self, symbol: str) -> float:
        return patience_secs(self._unanswered.get(symbol, 0), self._slowest, self._first_patience)

    def _room(self, again: bool) -> int:
        return self._at_once - sum(each is again for _, each in self._asked.values())


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The gateway gave no answer about a symbol, for `reason`; that is no verdict on it."""

    symbol: str
    reason: str


def query_of(spec: SymbolSpec) -> ContractQuery:
    """What the universe asks for, with the defaults of a US stock or an index if it holds too little.

    A con_id needs none: the gateway's answer says what it is.
    """
    says_enough = spec.con_id is not None
    kind = spec.sec_type or ("IND" if spec.symbol in INDEX_SYMBOLS else "STK")
    has_no_usual = says_enough or spec.exchange or spec.primary_exchange or kind in ("FUT", "CONTFUT", "FOP")
    return ContractQuery(
        symbol=spec.symbol,
        sec_type=spec.sec_type if says_enough else kind,
        currency=spec.currency or (None if has_no_usual else "USD"),
        exchange=spec.exchange,
        primary_exchange=spec.primary_exchange,
        con_id=spec.con_id,
        name=spec.name,
        local_symbol=spec.local_symbol or "",
        trading_class=spec.trading_class or "",
        multiplier=spec.multiplier or "",
        expiry=None if spec.expiry is None else Expiry.parse(spec.expiry),
        strike=spec.strike or 0.0,
        right=spec.right or "",
        roll=spec.roll or RollRule(),
    )


class Resolver:
    """Asks for contracts and depth exchanges until each symbol has a venue or a verdict.

    ready() returns once the gateway may be asked; what it raises ends `results`. most_tries: after how many unanswered
    questions to give up, with a NoAnswer for each symbol concerned; None: never. first_patience, spacing: see
    QuestionSchedule.
    """

    def __init__(
        self,
        gateway: TwsGateway,
        specs: Iterable[SymbolSpec],
        *,
        ready: Callable[[], Awaitable[object]],
        most_tries: int | None = None,
        first_patience: float = FIRST_PATIENCE_SECS,
        spacing: float = SPACING_SECS,
        wall_ms: Callable[[], int] = unix_ms,
    ) -> None:
        self._gateway = gateway
        self._wanted = {spec.name: query_of(spec) for spec in specs}
        self._ready = ready
        self._most_tries = most_tries
        self._wall_ms = wall_ms
        self._schedule = QuestionSchedule(
            [_DEPTH_EXCHANGES, *self._wanted], first_patience=first_patience, spacing=spacing
        )
        self._why_no_list = NOT_ANSWERED
        self._list_given_up = False
        self._contracts: dict[str, list[ContractAnswer]] = {}  # whose venue waits for the depth exchanges
        self._questions: dict[asyncio.Future[list[Any]], str] = {}
        self._news = asyncio.Event()
        self._owners = ContractOwners()
        self._endless = False

    def ask(self, symbol: str) -> None:
        """Ask about the symbol, again if it has its answer already."""
        if symbol in self._wanted and symbol not in self._contracts:
            self._schedule.add(symbol)
        self._news.set()

    def add(self, spec: SymbolSpec) -> None:
        """Ask about this entry, too; questions and answers about one of its name before count no more."""
        self.forget(spec.name)
        self._wanted[spec.name] = query_of(spec)
        self.ask(spec.name)

    def forget(self, symbol: str) -> None:
        """Ask about the symbol no more; an answer that is on its way is dropped."""
        self._wanted.pop(symbol, None)
        self._contracts.pop(symbol, None)
        self._owners.forget(symbol)
        self._owners.forget(symbol)
        self._schedule.forget(symbol)
        for question in [question for question, whose in self._questions.items() if whose == symbol]:
            del self._questions[question]
            question.cancel()
        self._news.set()

    def hurry(self) -> None:
        """Ask at once about every symbol that waits: the gateway's state has changed."""
        given_up = set(self._schedule.hurry(loop_time()))
        for question in [question for question, symbol in self._questions.items() if symbol in given_up]:
            del self._questions[question]
            question.cancel()
        self._news.set()

    @property
    def is_done(self) -> bool:
        """Whether every symbol has its answer."""
        return self._schedule.is_done and not self._contracts

    def why_unknown(self, symbol: str) -> str:
        """What is missing of a symbol without an answer."""
        return self._why_no_list if symbol in self._contracts else NOT_ANSWERED

    async def results(self, *, endless: bool = False) -> AsyncIterator[Resolution | NoAnswer]:
        """The results, as the answers come, until every symbol has one; endless: also of later calls of `ask`."""
        self._endless, self._owners.for_good = endless, not endless
        try:
            while endless or not self.is_done:
                if not self.is_done:
                    await self._ready()
                    self._ask_what_is_due()
                await self._next_event()
                for found in self._found():
                    yield found
        finally:
            for question in self._questions:
                question.cancel()
            await asyncio.gather(*self._questions, return_exceptions=True)

    def _ask_what_is_due(self) -> None:
        if self._contracts and not self._gateway.known_depth_exchanges and not self._list_given_up:
            self._schedule.ensure(_DEPTH_EXCHANGES)  # of this connection, or since a farm came back
        for symbol, patience in self._schedule.due(loop_time()):
            if symbol == _DEPTH_EXCHANGES:
                question: Coroutine[Any, Any, list[Any]] = self._gateway.depth_exchanges(patience)
            else:
                question = self._gateway.contracts(self._wanted[symbol], patience)
            self._questions[asyncio.ensure_future(question)] = symbol

    async def _next_event(self) -> None:
        """Wait for an answer, for a call of `ask` or `hurry`, or until something is due."""
        news = asyncio.ensure_future(self._news.wait())
        try:
            at = self._schedule.next_at()
            timeout = None if at is None else max(0.0, at - loop_time())
            pending: set[asyncio.Future[Any]] = {*self._questions, news}
            await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        self._news.clear()

    # ---- what the answers lead to

    def _found(self) -> list[Resolution | NoAnswer]:
        """The results by now, in the order of the questions."""
        found: list[Resolution | NoAnswer] = []
        for question in [question for question in self._questions if question.done()]:
            symbol = self._questions.pop(question)
            try:
                answer = question.result()
            except (GatewayError, ConnectionError) as error:
                found += self._failed(symbol, error)
            else:
                self._answered(symbol, answer)
        for symbol in list(self._contracts):
            found += self._resolved(symbol)
        return found

    def _answered(self, symbol: str, answer: list[Any]) -> None:
        if symbol != _DEPTH_EXCHANGES:
            self._contracts[symbol] = answer
        elif not answer:
            self._failed(symbol, QuestionUnanswered(NO_EXCHANGES))
            return
        self._schedule.answered(symbol, loop_time(), self._gateway.answer_secs)

    def _failed(self, symbol: str, error: GatewayError | ConnectionError) -> list[Resolution | NoAnswer]:
        if isinstance(error, ConnectionError) or type(error) is GatewayUnavailable:
            self._schedule.lost(symbol, loop_time())
            return []
        if symbol == _DEPTH_EXCHANGES:
            self._why_no_list = str(error)
        if isinstance(error, QuestionUnanswered) or symbol == _DEPTH_EXCHANGES:
            tries = self._schedule.unanswered(symbol, loop_time())
            return self._given_up(symbol, str(error)) if tries == self._most_tries else []
        self._schedule.answered(symbol, loop_time())
        return self._verdict(Unresolved(symbol, str(error)))

    def _given_up(self, symbol: str, why: str) -> list[Resolution | NoAnswer]:
        self._schedule.answered(symbol, loop_time())
        if symbol != _DEPTH_EXCHANGES:
            return [NoAnswer(symbol, why)]
        self._list_given_up = True
        return []

    def _resolved(self, symbol: str) -> list[Resolution | NoAnswer]:
        """The venue, or the verdict; nothing while the depth exchanges are needed and not known."""
        deep = self._gateway.known_depth_exchanges
        found: Resolution | NoAnswer = resolve(
            self._wanted[symbol], self._contracts[symbol], deep, self._wall_ms() / 1000
        )
        if not deep and self._needs_list(symbol, found):
            if not self._list_given_up:
                return []
            found = NoAnswer(symbol, self._why_no_list)
        del self._contracts[symbol]
        return [found] if isinstance(found, NoAnswer) else self._verdict(found)

    def _needs_list(self, symbol: str, found: Resolution | NoAnswer) -> bool:
        """Whether the depth exchanges decide: which of several contracts it is, or whether its venues have depth."""
        several = len({answer.con_id for answer in self._contracts[symbol]}) > 1
        return several or (isinstance(found, Unresolved) and found.con_id != 0)

    def _verdict(self, found: Resolution) -> list[Resolution | NoAnswer]:
        """The resolution, unless another entry records the contract on that venue; and who lost a venue to it."""
        if not isinstance(found, Instrument):
            self._owners.forget(found.symbol)
            return [found]
        own, *others = self._owners.register(found)
        while self._owners.outdated and self._endless:
            self.ask(self._owners.outdated.pop())
        return [own, *(others if self._endless else ())]


async def resolve_symbols(
    gateway: TwsGateway, specs: Iterable[SymbolSpec], *, first_patience: float = FIRST_PATIENCE_SECS
) -> Mapping[str, Resolution]:
    """The venue of each symbol, or why it has none or none is known, in the order of `specs`.

    Raises GatewayUnavailable if the connection is gone.
    """
    asked = tuple(specs)

    async def ready() -> None:
        if not gateway.is_connected:
            raise GatewayUnavailable("the connection to the gateway was lost")

    found: dict[str, Resolution] = {}
    resolver = Resolver(gateway, asked, ready=ready, most_tries=PATIENT_TRIES, first_patience=first_patience)
    async for each in resolver.results():
        found[each.symbol] = Unresolved(each.symbol, each.reason) if isinstance(each, NoAnswer) else each
    return {spec.name: found[spec.name] for spec in asked}
