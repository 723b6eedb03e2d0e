"""A whole flush in one go: packed commands out on connections of our own, and their replies read in bulk.

redis-py connects and authenticates; then the socket is used as it is. redis-py's pipelines pack command by command and
arm a timer for each reply: at full speed that was more than half of a recording's time (docs/benchmarks.md).

To a cluster each part goes to the node that owns its key, all nodes at the same time. With replicas to wait for, a
flush counts only once they have it: what a master that dies had acknowledged is not lost with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

import hiredis
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import AskError, ClusterDownError, RedisError, ResponseError

from ibkr_depth_pipeline.redis_link.aio import Client, ClusterClient
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE, is_deposed, refused
from ibkr_depth_pipeline.redis_link.internals import RawConnection
from ibkr_depth_pipeline.redis_link.replies import Replies, ReplyReceiver
from ibkr_depth_pipeline.redis_link.routing import RETRIES, Share
from ibkr_depth_pipeline.sink.connection import ANSWER_TIMEOUT_SECS, WAIT_MS

_ASKING = b"*1\r\n$6\r\nASKING\r\n"


class NotReplicated(RedisError):
    """Too few replicas have what was sent: it may be lost with its master."""


class Part(NamedTuple):
    """Commands on one key, packed as Redis reads them; they go out together and in order. `replies`: how many."""

    key: str
    packed: Sequence[bytes]
    replies: int


Answer = list[Any] | Exception
"""The replies to a part, with what Redis refused as exceptions among them; or why nothing is known of any of them."""


Outcome = list[Answer] | Exception
"""An answer for each part; or, of what is in UNREACHABLE, why nothing is known of any."""


class Wire(Protocol):
    """Sends flushes, one after the other: the next one once the outcome of the one before is known."""

    def can_send(self) -> bool:
        """Whether a connection stands, so that `write` and `expect` may be called."""

    def write(self, packed: Sequence[bytes]) -> None:
        """Sends what the parts of a flush hold, without waiting. `expect` is to follow in this turn of the loop."""

    def expect(self, parts: Sequence[Part], deliver: Callable[[Outcome], None]) -> None:
        """The outcome of these parts is delivered later, in the callback that reads the last reply or finds the
        connection lost; not at all if `close` comes first."""

    async def exchange(self, parts: Sequence[Part]) -> list[Answer]:
        """Connects if need be, sends all parts and waits for every reply. Raises what is in UNREACHABLE."""

    async def close(self) -> None:
        """Closes the connections; the next exchange makes others."""


def open_wire(client: Client, min_replicas: int = 0) -> Wire:
    """The wire to where `client` leads, with replicas to wait for; connects at the first exchange."""
    if isinstance(client, ClusterClient):
        return ClusterWire(client, min_replicas)
    return ReplicatedWire(lambda: RawConnection.like_those_of(client), min_replicas)


def packed_of(parts: Sequence[Part]) -> Sequence[bytes]:
    """All that these parts hold, in order."""
    return [each for part in parts for each in part.packed]


class ServerWire:
    """To one Redis server, by a connection that `make_connection` makes.

    After an error or a cancellation the connection is closed: its replies would be taken for those of the next flush.
    """

    def __init__(self, make_connection: Callable[[], RawConnection]) -> None:
        self._make_connection = make_connection
        self._connection: RawConnection | None = None
        self._receiver: ReplyReceiver | None = None  # once the connection stands
        self._trailer = b""  # sent behind each flush

    def can_send(self) -> bool:
        """See Wire."""
        return self._receiver is not None and not self._receiver.is_lost

    def write(self, packed: Sequence[bytes]) -> None:
        """See Wire."""
        assert self._connection is not None
        try:
            self._connection.write([*packed, self._trailer] if self._trailer else packed)
        except Exception:
            self._connection.abort()

    def expect(self, parts: Sequence[Part], deliver: Callable[[Outcome], None]) -> None:
        """See Wire."""
        assert self._receiver is not None
        self._receiver.expect(sum([part.replies for part in parts]), partial(self._take, parts, deliver))

    def _take(self, parts: Sequence[Part], deliver: Callable[[Outcome], None], replies: Replies) -> None:
        if isinstance(replies, Exception):
            if self._connection is not None:
                self._connection.abort()
            self.drop()
            deliver(replies)
        elif len(parts) == 1:
            deliver([replies])
        else:
            rest = iter(replies)
            deliver([list(islice(rest, part.replies)) for part in parts])

    async def exchange(self, parts: Sequence[Part]) -> list[Answer]:
        """See Wire."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        try:
            await self._open()
            self.write(packed_of(parts))
            self.expect(parts, lambda found: None if outcome.done() else outcome.set_result(found))
            answers = await outcome
        except BaseException:
            self.drop()
            raise
        if isinstance(answers, Exception):
            raise answers
        return answers

    async def _open(self) -> None:
        if not self.can_send():
            self.drop()
            receiver = ReplyReceiver(ANSWER_TIMEOUT_SECS)
            self._connection = self._make_connection()
            await self._connection.open(receiver)
            self._receiver = receiver

    def drop(self) -> None:
        """Closes the connection, at once; nothing is delivered any more."""
        connection, self._connection = self._connection, None
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.forget()
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        """See Wire."""
        self.drop()


class ReplicatedWire(ServerWire):
    """As a ServerWire, but that `replicas` of the server must have everything; 0 asks for none.

    If too few have it within WAIT_MS the answer to each part that was not refused is NotReplicated. The part may be
    sent again: WAIT then waits for all that the server had by then, not only for what it had not had before, also on
    another connection. A server that lacks replicas or refuses as one that is no master is left: the next exchange
    finds the master.

    `lacks_replicas`: whether the newest exchange found too few, also if everything was refused.
    """

    def __init__(self, make_connection: Callable[[], RawConnection], replicas: int) -> None:
        super().__init__(make_connection)
        self.lacks_replicas = False
        self._replicas = replicas
        wait: Any = ("WAIT", replicas, WAIT_MS)
        self._trailer = hiredis.pack_command(wait) if replicas else b""
        self._wait = [Part("", [self._trailer], 1)] if replicas else []

    def expect(self, parts: Sequence[Part], deliver: Callable[[Outcome], None]) -> None:
        """See Wire."""
        super().expect([*parts, *self._wait], partial(self._take_judged, deliver))

    def _take_judged(self, deliver: Callable[[Outcome], None], outcome: Outcome) -> None:
        deliver(outcome if isinstance(outcome, Exception) else self._judged(outcome))

    def _judged(self, answers: list[Answer]) -> list[Answer]:
        """The answers to the parts, without that to the WAIT. Closes the connection if another may be master by now."""
        if not self._replicas:
            self._leave_deposed(answers)
            return answers
        *answers, waited = answers
        reached = waited if isinstance(waited, Exception) else waited[0]
        self.lacks_replicas = isinstance(reached, int) and reached < self._replicas
        self._leave_deposed(answers)
        if isinstance(reached, int) and not self.lacks_replicas:
            return answers
        why = reached if isinstance(reached, Exception) else f"{reached} of {self._replicas} replicas have it"
        return [answer if _is_refused(answer) else NotReplicated(f"not replicated: {why}") for answer in answers]

    def _leave_deposed(self, answers: list[Answer]) -> None:
        # of a block the second reply, to its first XADD, shows it; the rest is left, as this is done for each flush
        replies = [reply for answer in answers if not isinstance(answer, Exception) for reply in answer[:2]]
        if self.lacks_replicas or any(isinstance(reply, ResponseError) and is_deposed(reply) for reply in replies):
            self.drop()


def _is_refused(answer: Answer) -> bool:
    """Whether there is nothing that a replica could have. The last reply of a block that was carried out is a list,
    even if all of it was stored before: that must be waited for."""
    return isinstance(answer, Exception) or isinstance(answer[-1], Exception)


class ClusterWire:
    """To a cluster. A node that is away costs its own parts only: their answers are exceptions, the others are sent.

    `replicas` of the node must have what was sent, see ReplicatedWire.
    """

    def __init__(self, client: ClusterClient, replicas: int = 0) -> None:
        self._client = client
        self._replicas = replicas
        self._nodes: dict[str, _NodeWire] = {}

    def can_send(self) -> bool:
        """False: which nodes can be sent to is known only in `exchange`."""
        return False

    def write(self, packed: Sequence[bytes]) -> None:
        """See Wire: never called."""
        raise NotImplementedError

    def expect(self, parts: Sequence[Part], deliver: Callable[[Outcome], None]) -> None:
        """See Wire: never called."""
        raise NotImplementedError

    async def exchange(self, parts: Sequence[Part]) -> list[Answer]:
        """See Wire. Raises what is in UNREACHABLE if nothing is known of the cluster, or every master has failed."""

        async def send(share: Share[ClusterNode]) -> list[Answer]:
            return await self._node(share.node).send([parts[place] for place in share.places], share.asking)

        answers: list[Answer] = await self._client.route([part.key for part in parts], send)
        if any(isinstance(answer, ClusterDownError) for answer in answers):
            self._client.refresh_soon()
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        if failures and len(failures) == len(parts) and self._client.is_away():
            raise failures[0]
        return answers

    async def close(self) -> None:
        """See Wire."""
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.close()

    def _node(self, node: ClusterNode) -> _NodeWire:
        wire = self._nodes.get(node.name)
        if wire is None:
            wire = self._nodes[node.name] = _NodeWire(self._client, node, self._replicas)
        return wire


class _NodeWire:
    """To one node. Once it has failed it is left alone until it answers a PING, see ClusterClient, and once it lacks
    replicas, until it has them: so a node holds the others up only once."""

    def __init__(self, client: ClusterClient, node: ClusterNode, replicas: int) -> None:
        self._client = client
        self._node = node
        self._replicas = replicas
        self._wire = ReplicatedWire(lambda: RawConnection.to_node(node), replicas)
        self._probe: asyncio.Task[None] | None = None

    async def send(self, parts: Sequence[Part], asking: bool) -> list[Answer]:
        """An answer for each part, never an exception for all. Redirects stand for the whole of their parts."""
        if not asking:
            return [_judged(answer) for answer in await self._exchange(parts)]
        behind = [Part(part.key, [_ASKING, *part.packed], part.replies + 1) for part in parts]
        answers = await self._exchange(behind)
        return [answer if isinstance(answer, Exception) else _judged(answer[1:]) for answer in answers]

    async def _exchange(self, parts: Sequence[Part]) -> list[Answer]:
        try:
            self._client.check(self._node)
            if self._probe is not None and not self._probe.done():
                return [NotReplicated(f"not sent: {self._node.name} lacks replicas")] * len(parts)
            answers = await self._wire.exchange(parts)
        except UNREACHABLE as error:
            self._client.has_failed(self._node)
            return [error] * len(parts)
        if self._wire.lacks_replicas:
            self._probe = asyncio.ensure_future(self._wait_for_replicas())
        return answers

    async def _wait_for_replicas(self) -> None:
        """Until enough of them have all that the node has. Reads may go to it meanwhile."""
        try:
            while True:
                if await self._has_replicas() or self._node.name not in self._client.masters():
                    return
                await asyncio.sleep(RETRIES.first)
        except UNREACHABLE:  # also if it is a replica by now: that refuses WAIT
            self._client.has_failed(self._node)

    async def _has_replicas(self) -> bool:
        self._client.refresh_soon(self._node.name)  # nothing is sent that it could refuse, if another has its slots
        # the PING, as WAIT waits for what there was at the connection's last command
        replies = await self._client.exchange(self._node, [("PING",), ("WAIT", self._replicas, WAIT_MS)])
        if error := refused(replies):
            raise error
        return bool(replies[1] >= self._replicas)

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self._wire.close()


def _judged(answer: Answer) -> Answer:
    """`answer`, or, if the node was not the one to ask, that alone: of such a part nothing was carried out."""
    if isinstance(answer, Exception):
        return answer
    if len(answer) > 1 and isinstance(answer[0], Exception):
        return answer  # without its MULTI each command went by itself
    return next((reply for reply in answer if isinstance(reply, (AskError, ClusterDownError))), answer)
