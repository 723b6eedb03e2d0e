"""Symbols -> concrete venues, by asking the gateway and choosing with gateway/venues.py.

What the gateway has answered is kept: a connection that breaks costs the questions that were open on it, and those are
asked again on the next one. An answer that is missing, or that speaks of the gateway's state, is no verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ibkr_depth_pipeline.errors import GatewayError, GatewayUnavailable, QuestionUnanswered
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.gateway.venues import INDEX_SYMBOLS, ContractAnswer, ContractQuery, Resolution, resolve
from ibkr_depth_pipeline.ingest.question_schedule import QuestionSchedule
from ibkr_depth_pipeline.model import Unresolved
from ibkr_depth_pipeline.universe import SymbolSpec

NO_EXCHANGES = "the gateway lists no exchanges with market depth"
NOT_ANSWERED = "the gateway has not answered yet"

PATIENT_TRIES = 3
"""How often one question is asked by somebody who can't wait for ever: that takes some 14 s."""

_DEPTH_EXCHANGES = "(depth exchanges)"  # in the schedule, beside the symbols


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """What was asked of a symbol in vain, which says nothing of it."""

    symbol: str
    reason: str


def query_of(spec: SymbolSpec) -> ContractQuery:
    """What the universe asks for, with the defaults of a US stock, or of an index where the name is one's."""
    return ContractQuery(
        symbol=spec.symbol,
        sec_type=spec.sec_type or ("IND" if spec.symbol in INDEX_SYMBOLS else "STK"),
        currency=spec.currency or "USD",
        exchange=spec.exchange,
        primary_exchange=spec.primary_exchange,
        con_id=spec.con_id,
    )


class Resolver:
    """Asks for contracts and depth exchanges until each symbol has a venue or a verdict.

    ready() returns once the gateway may be asked; what it raises ends `results`. most_tries is after how many questions
    in vain something is given up, with a NoAnswer for each symbol that it concerns; None: never.
    """

    def __init__(
        self,
        gateway: TwsGateway,
        specs: Iterable[SymbolSpec],
        *,
        ready: Callable[[], Awaitable[object]],
        most_tries: int | None = None,
    ) -> None:
        self._gateway = gateway
        self._wanted = {spec.symbol: query_of(spec) for spec in specs}
        self._ready = ready
        self._most_tries = most_tries
        self._schedule = QuestionSchedule([_DEPTH_EXCHANGES, *self._wanted])
        self._why_no_list = NOT_ANSWERED
        self._list_given_up = False
        self._contracts: dict[str, list[ContractAnswer]] = {}  # whose venue waits for the depth exchanges
        self._questions: dict[asyncio.Future[list[Any]], str] = {}
        self._news = asyncio.Event()

    def ask(self, symbol: str) -> None:
        """Ask about it, anew where it has its answer already."""
        if symbol not in self._contracts:
            self._schedule.add(symbol)
        self._news.set()

    def hurry(self) -> None:
        """The gateway's state has changed: ask at once for whatever waits."""
        given_up = set(self._schedule.hurry(_now()))
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

    async def results(self, *, for_ever: bool = False) -> AsyncIterator[Resolution | NoAnswer]:
        """What is found, as the answers come; until every symbol has one, or for whatever `ask` brings later."""
        try:
            while for_ever or not self.is_done:
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
            self._schedule.want(_DEPTH_EXCHANGES)  # of this connection, or since a farm came back
        for symbol, patience in self._schedule.due(_now()):
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
            timeout = None if at is None else max(0.0, at - _now())
            pending: set[asyncio.Future[Any]] = {*self._questions, news}
            await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        self._news.clear()

    # ---- what the answers lead to

    def _found(self) -> list[Resolution | NoAnswer]:
        """Whatever can be said by now, in the order in which it was asked."""
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
        self._schedule.answered(symbol, _now(), self._gateway.answer_secs)

    def _failed(self, symbol: str, error: GatewayError | ConnectionError) -> list[Resolution | NoAnswer]:
        if isinstance(error, ConnectionError) or type(error) is GatewayUnavailable:
            self._schedule.lost(symbol, _now())
            return []
        if symbol == _DEPTH_EXCHANGES:
            self._why_no_list = str(error)
        if isinstance(error, QuestionUnanswered) or symbol == _DEPTH_EXCHANGES:
            tries = self._schedule.unanswered(symbol, _now())
            return self._given_up(symbol, str(error)) if tries == self._most_tries else []
        self._schedule.answered(symbol, _now())
        return [Unresolved(symbol, str(error))]

    def _given_up(self, symbol: str, why: str) -> list[Resolution | NoAnswer]:
        self._schedule.answered(symbol, _now())
        if symbol != _DEPTH_EXCHANGES:
            return [NoAnswer(symbol, why)]
        self._list_given_up = True
        return []

    def _resolved(self, symbol: str) -> list[Resolution | NoAnswer]:
        """The venue, or the verdict; nothing while the depth exchanges are needed and not known."""
        deep = self._gateway.known_depth_exchanges
        found: Resolution | NoAnswer = resolve(self._wanted[symbol], self._contracts[symbol], deep)
        if isinstance(found, Unresolved) and found.con_id and not deep:
            if not self._list_given_up:
                return []
            found = NoAnswer(symbol, self._why_no_list)
        del self._contracts[symbol]
        return [found]


async def resolve_symbols(gateway: TwsGateway, specs: Iterable[SymbolSpec]) -> Mapping[str, Resolution]:
    """The venue of each symbol, or why it has none or none is known, in the order of `specs`.

    Raises GatewayUnavailable where the connection is gone.
    """
    asked = tuple(specs)

    async def ready() -> None:
        if not gateway.is_connected:
            raise GatewayUnavailable("the connection to the gateway was lost")

    found: dict[str, Resolution] = {}
    async for each in Resolver(gateway, asked, ready=ready, most_tries=PATIENT_TRIES).results():
        found[each.symbol] = Unresolved(each.symbol, each.reason) if isinstance(each, NoAnswer) else each
    return {spec.symbol: found[spec.symbol] for spec in asked}


def _now() -> float:
    return asyncio.get_running_loop().time()
