"""Opens a connection to the gateway, under the first client id that is answered.

A connection has two stages. Until the gateway agrees on a protocol version, it does not know the client id. While
nothing comes back, another connection is tried beside the first one, never more than two at once: a process that was
frozen answers the old one when it thaws, a gateway that was mute often only a new one. As soon as one of them gets its
version, the other is closed before either sends startApi: two of ours never compete for one client id (326). After
startApi the id is ours or refused; that connection alone is waited for, and an id that stays unanswered is given up for
the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ibkr_depth_pipeline.gateway.backoff import ConnectBackoff
from ibkr_depth_pipeline.gateway.endpoint import Endpoint
from ibkr_depth_pipeline.gateway.tws_session import TwsSession

SECOND_TRY_SECS = 1.0
"""A connection that gets no version for so long gets another one beside it, at most every so often."""

_MOST_AT_ONCE = 2

IDS_UNANSWERED_PER_ROUND = 2
"""So many client ids that are not answered end a round: it may be the gateway that is silent, and not about an id."""


def _ignore(_client_id: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class ConnectRound:
    """One round of connections, over all client ids in turn.

    on_conflict(client_id) hears of each id that another client has (326), on_unanswered(client_id) of each that is
    given up without an answer. patience: seconds for which a connection that is not answered is held open at least,
    where that is longer than the timeout. until: the loop's time at which the round ends in any case.
    """

    on_conflict: Callable[[int], None] = _ignore
    on_unanswered: Callable[[int], None] = _ignore
    patience: float = 0.0
    until: float = float("inf")
    backoff: ConnectBackoff | None = None


@dataclass(slots=True)
class _Try:
    session: TwsSession
    task: asyncio.Task[bool]
    began: float


@dataclass(slots=True)
class Connector:
    """Connects to one gateway; `timeout` is how long it may take to answer, in seconds.

    Ids that were not answered are tried last from then on.
    """

    endpoint: Endpoint
    timeout: float
    make_session: Callable[[Callable[[TwsSession], None]], TwsSession]
    _unanswered: list[int] = field(default_factory=list)
    _tries: list[_Try] = field(default_factory=list)

    async def connect(self, client_ids: Sequence[int], terms: ConnectRound) -> tuple[TwsSession, int]:
        """The session that stands, and its client id.

        Raises GatewayNotListening where no TCP connection can be made, ClientIdsExhausted where all ids are taken,
        GatewayUnavailable where nothing answers in time, or refuses, or is no gateway.
        """
        ends = min(terms.until, _now() + max(self.timeout, terms.patience))
        hung: list[int] = []
        for client_id in self._in_order(client_ids):
            chosen = await self._version_agreed(client_id, min(terms.until, max(ends, _now() + self.timeout)), terms)
            last = len(hung) + 1 >= min(IDS_UNANSWERED_PER_ROUND, len(client_ids))
            answer = await self._answer(chosen, min(terms.until, max(_now() + self.timeout, ends if last else 0.0)))
            if answer:
                self._put_last(client_id, hung=False)
                return chosen.session, client_id
            if answer is False:
                terms.on_conflict(client_id)
                continue
            hung.append(client_id)
            self._put_last(client_id, hung=True)
            terms.on_unanswered(client_id)
            if last or _now() >= terms.until:
                break
        if hung:
            raise self.endpoint.id_not_answered(hung[-1], self.timeout)
        raise self.endpoint.ids_in_use(client_ids[0], client_ids[-1])

    def _in_order(self, client_ids: Sequence[int]) -> list[int]:
        shunned = [each for each in self._unanswered if each in client_ids]
        return [each for each in client_ids if each not in shunned] + shunned

    def _put_last(self, client_id: int, *, hung: bool) -> None:
        others = [each for each in self._unanswered if each != client_id]
        self._unanswered = [*others, client_id] if hung else others

    # ---- the first stage

    async def _version_agreed(self, client_id: int, ends: float, terms: ConnectRound) -> _Try:
        """The first connection that gets its version, or has ended. The others are closed."""
        began = due = _now()
        try:
            while True:
                if _now() >= due:
                    await self._make_room()
                    self._dial(client_id)
                    due = _now() + _until_next(terms)
                await self._wait(min(due, ends) - _now())
                chosen = self._first()
                if chosen is not None:
                    await self._close_all(but=chosen)
                    return chosen
                if _now() >= ends:
                    raise self.endpoint.not_answered(round(_now() - began, 1))
        except BaseException:
            await self._close_all()
            raise

    def _dial(self, client_id: int) -> None:
        session = self.make_session(self._version_came)
        self._tries.append(_Try(session, session.dial(self.endpoint, client_id), _now()))

    def _version_came(self, session: TwsSession) -> None:
        """Called before the client id is sent: whoever is first goes on alone."""
        if any(each.session.version_agreed.done() for each in self._tries if each.session is not session):
            session.close()

    def _first(self) -> _Try | None:
        agreed = [each for each in self._tries if each.session.version_agreed.done()]
        return next(iter(agreed + [each for each in self._tries if each.task.done()]), None)

    async def _make_room(self) -> None:
        """Of two the older one goes when its time is over, the younger one otherwise."""
        if len(self._tries) == _MOST_AT_ONCE:
            overdue = _now() - self._tries[0].began >= self.timeout
            await self._tries.pop(0 if overdue else 1).session.give_up()

    async def _wait(self, secs: float) -> None:
        happenings: set[asyncio.Future[Any]] = {each.task for each in self._tries}
        happenings |= {each.session.version_agreed for each in self._tries}
        await asyncio.wait(happenings, timeout=max(0.0, secs), return_when=asyncio.FIRST_COMPLETED)

    async def _close_all(self, but: _Try | None = None) -> None:
        for each in [each for each in self._tries if each is not but]:
            await each.session.give_up()
        self._tries.clear()

    # ---- the second stage

    async def _answer(self, chosen: _Try, limit: float) -> bool | None:
        """Whether the id is ours; None where there is no answer until `limit`. Raises what ends the connection."""
        try:
            await asyncio.wait({chosen.task}, timeout=max(0.0, limit - _now()))
            return chosen.task.result() if chosen.task.done() else None
        finally:
            if not chosen.session.is_open:
                await chosen.session.give_up()


def _until_next(terms: ConnectRound) -> float:
    return max(SECOND_TRY_SECS, terms.backoff.pause(_now()) if terms.backoff else 0.0)


def _now() -> float:
    return asyncio.get_running_loop().time()
