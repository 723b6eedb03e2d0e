"""Opens a connection to the gateway under the first client id that is answered, and schedules the attempts.

A connection has two stages. Until the gateway agrees on a protocol version, it does not know the client id. While it
does not answer, another connection is tried beside the first one, never more than two at once: a process that was
suspended answers the old one, a gateway that did not respond often only a new one. When one of them gets its version,
the other is closed before either sends startApi, so that two of our own never compete for one client id (326). After
startApi the id is ours or refused; that connection alone is awaited, and an id that stays unanswered is given up for
the next one (docs/ibkr-market-depth.md, "Connecting").
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.clock import loop_time
from ibkr_depth_pipeline.gateway.endpoint import Endpoint
from ibkr_depth_pipeline.gateway.tws_session import TwsSession

SECOND_TRY_SECS = 1.0
"""Time without a version after which another connection is tried; also the least interval between connections."""

_MOST_AT_ONCE = 2

IDS_UNANSWERED_PER_ROUND = 2
"""Unanswered client ids that end a round: then the gateway itself may not respond, under any id."""

FIRST_PAUSE_SECS = 0.2

QUICK_PHASE_SECS = 30.0
"""How long connections are tried in quick succession: a gateway that restarts its API is usually back by then."""

REFUSED_PAUSE_SECS = 5.0
"""Longest pause if nothing listens: a refused TCP connection costs no gateway anything."""


class ConnectBackoff:
    """The pauses between connections to a gateway that does not answer, in seconds, with equal jitter. Pure.

    For QUICK_PHASE_SECS from `begin` on they double from FIRST_PAUSE_SECS up to `quick`; from then on from twice
    `quick` up to `slow`. The first connection that is accepted after nothing has listened for longer than the quick
    phase starts one more quick phase: a gateway that has just started is connected to within seconds. Thousands of
    connections can make a gateway unusable (docs/ibkr-market-depth.md, "Connecting"), hence the slow phase.
    """

    def __init__(self, quick: float, slow: float, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._quick = Backoff(FIRST_PAUSE_SECS, quick)
        self._slow = Backoff(2 * quick, max(quick, slow))
        self._jitter = jitter
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Starts the quick phase: the gateway was lost, or there was no connection yet."""
        self._began = now
        self._quick_tries = self._slow_tries = 0
        self._only_refused = True

    def accepted(self, now: float) -> None:
        """A TCP connection was accepted, with or without an answer."""
        if self._only_refused and now - self._began > QUICK_PHASE_SECS:
            self.begin(now)
        self._only_refused = False

    def pause(self, now: float) -> float:
        """The pause from the connection that is opened now to the next one."""
        if now - self._began < QUICK_PHASE_SECS:
            self._quick_tries += 1
            return self._quick.jittered(self._quick_tries, self._jitter)
        self._slow_tries += 1
        return self._slow.jittered(self._slow_tries, self._jitter)

    def of_refused(self, pause: float) -> float:
        """`pause`, bounded as it is if nothing listens."""
        return min(pause, max(self._quick.longest, REFUSED_PAUSE_SECS))


def _ignore(_client_id: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class ConnectRound:
    """The terms of one round of connections, over all client ids in turn.

    on_conflict(client_id) is called for each id that another client has (326), on_unanswered(client_id) for each that
    is given up without an answer. patience: seconds for which an unanswered connection is held open, if longer than the
    timeout. until: the loop's time at which the round ends in any case. backoff: paces the connections of the round.
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
    """Connects to one gateway, which may take `timeout` seconds to answer. Unanswered ids are tried last later on."""

    endpoint: Endpoint
    timeout: float
    make_session: Callable[[Callable[[TwsSession], None]], TwsSession]
    _unanswered: list[int] = field(default_factory=list)
    _tries: list[_Try] = field(default_factory=list)

    async def connect(self, client_ids: Sequence[int], terms: ConnectRound) -> tuple[TwsSession, int]:
        """The open session, and its client id.

        Raises GatewayNotListening if no TCP connection can be made, ClientIdsExhausted if all ids are taken, and
        GatewayUnavailable if the peer does not answer in time, refuses, or is no gateway.
        """
        ends = min(terms.until, loop_time() + max(self.timeout, terms.patience))
        hung: list[int] = []
        for client_id in self._in_order(client_ids):
            chosen = await self._version_agreed(
                client_id, min(terms.until, max(ends, loop_time() + self.timeout)), terms
            )
            last = len(hung) + 1 >= min(IDS_UNANSWERED_PER_ROUND, len(client_ids))
            answer = await self._id_granted(
                chosen, min(terms.until, max(loop_time() + self.timeout, ends if last else 0.0))
            )
            if answer:
                self._reorder(client_id, hung=False)
                return chosen.session, client_id
            if answer is False:
                terms.on_conflict(client_id)
                continue
            hung.append(client_id)
            self._reorder(client_id, hung=True)
            terms.on_unanswered(client_id)
            if last or loop_time() >= terms.until:
                break
        if hung:
            raise self.endpoint.id_not_answered(hung[-1], self.timeout)
        raise self.endpoint.ids_in_use(client_ids[0], client_ids[-1])

    def _in_order(self, client_ids: Sequence[int]) -> list[int]:
        unanswered = [each for each in self._unanswered if each in client_ids]
        return [each for each in client_ids if each not in unanswered] + unanswered

    def _reorder(self, client_id: int, *, hung: bool) -> None:
        others = [each for each in self._unanswered if each != client_id]
        self._unanswered = [*others, client_id] if hung else others

    # ---- the first stage

    async def _version_agreed(self, client_id: int, ends: float, terms: ConnectRound) -> _Try:
        """The first connection that gets its version, or has ended; closes the other."""
        began = due = loop_time()
        try:
            while True:
                if loop_time() >= due:
                    await self._make_room()
                    self._dial(client_id)
                    due = loop_time() + _until_next(terms)
                await self._wait(min(due, ends) - loop_time())
                chosen = self._first()
                if chosen is not None:
                    await self._close_all(but=chosen)
                    return chosen
                if loop_time() >= ends:
                    raise self.endpoint.not_answered(round(loop_time() - began, 1))
        except BaseException:
            await self._close_all()
            raise

    def _dial(self, client_id: int) -> None:
        session = self.make_session(self._on_version)
        self._tries.append(_Try(session, session.dial(self.endpoint, client_id), loop_time()))

    def _on_version(self, session: TwsSession) -> None:
        """Closes a session that is not the first to get its version, before it sends its client id."""
        if any(each.session.version_agreed.done() for each in self._tries if each.session is not session):
            session.close()

    def _first(self) -> _Try | None:
        agreed = [each for each in self._tries if each.session.version_agreed.done()]
        return next(iter(agreed + [each for each in self._tries if each.task.done()]), None)

    async def _make_room(self) -> None:
        """Closes one of two connections: the older one if its time is over, else the younger one."""
        if len(self._tries) == _MOST_AT_ONCE:
            overdue = loop_time() - self._tries[0].began >= self.timeout
            await self._tries.pop(0 if overdue else 1).session.abandon()

    async def _wait(self, secs: float) -> None:
        outcomes: set[asyncio.Future[Any]] = {each.task for each in self._tries}
        outcomes |= {each.session.version_agreed for each in self._tries}
        await asyncio.wait(outcomes, timeout=max(0.0, secs), return_when=asyncio.FIRST_COMPLETED)

    async def _close_all(self, but: _Try | None = None) -> None:
        for each in [each for each in self._tries if each is not but]:
            await each.session.abandon()
        self._tries.clear()

    # ---- the second stage

    async def _id_granted(self, chosen: _Try, limit: float) -> bool | None:
        """Whether the id is ours; None if there is no answer until `limit`. Raises what ends the connection."""
        try:
            await asyncio.wait({chosen.task}, timeout=max(0.0, limit - loop_time()))
            return chosen.task.result() if chosen.task.done() else None
        finally:
            if not chosen.session.is_open:
                await chosen.session.abandon()


def _until_next(terms: ConnectRound) -> float:
    return max(SECOND_TRY_SECS, terms.backoff.pause(loop_time()) if terms.backoff else 0.0)
