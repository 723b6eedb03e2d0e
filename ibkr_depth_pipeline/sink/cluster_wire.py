"""A whole flush to a cluster in one go: each part to the node that owns its key, all nodes at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ClusterDownError, MovedError

from ibkr_depth_pipeline.redis_link.cluster import FIRST_PAUSE_SECS, UNREACHABLE, ClusterClient
from ibkr_depth_pipeline.sink.connection import WAIT_MS
from ibkr_depth_pipeline.sink.replicas import NotReplicated, ReplicatedWire
from ibkr_depth_pipeline.sink.wire import Answer, Part, Wire

_ASKING = b"*1\r\n$6\r\nASKING\r\n"


class ClusterWire:
    """As Wire, to a cluster. A node that is away costs its own parts only: their answers say so, the others are sent.

    `replicas` of the node must have what was sent, see ReplicatedWire. What a node refuses because another one has the
    key by now is sent there, once: nothing of it was carried out.
    """

    def __init__(self, client: ClusterClient, replicas: int = 0) -> None:
        self._client = client
        self._replicas = replicas
        self._lines: dict[str, _Line] = {}

    async def exchange(self, parts: Sequence[Part]) -> list[Answer]:
        """See Wire. Raises what is in UNREACHABLE where nothing is known of the cluster, or every master has failed."""
        await self._client.find_nodes()
        answers = await self._send(dict(enumerate(parts)))
        if any(isinstance(answer, ClusterDownError) for answer in answers.values()):
            self._client.refresh_soon()
        moved = {at: parts[at] for at, answer in answers.items() if isinstance(answer, MovedError)}
        if moved:
            await self._client.refresh()
            answers.update(await self._send(moved))
        for at, answer in answers.items():
            if isinstance(answer, AskError):  # or MOVED once more, which names the owner as well
                answers[at] = await self._send_to_importer(parts[at], answer)
        failures = [answer for answer in answers.values() if isinstance(answer, Exception)]
        if failures and len(failures) == len(parts) and self._client.is_away():
            raise failures[0]
        return [answers[at] for at in range(len(parts))]

    async def close(self) -> None:
        """Close the connections; the next exchange makes others."""
        lines, self._lines = self._lines, {}
        for line in lines.values():
            await line.close()

    async def _send(self, parts: dict[int, Part]) -> dict[int, Answer]:
        """Each part to the owner of its key, as far as that is known."""
        shares, nobodys = self._client.shares({at: part.key for at, part in parts.items()})
        told = await asyncio.gather(*(self._line(node).exchange([parts[at] for at in share]) for node, share in shares))
        answers: dict[int, Answer] = dict(nobodys)
        for (_, share), of_node in zip(shares, told, strict=True):
            answers.update(zip(share, map(_judged, of_node), strict=True))
        return answers

    async def _send_to_importer(self, part: Part, why: AskError) -> Answer:
        """The slot is on its way to another node, which has the key already, or will: only this once it is asked."""
        node = self._client.get_node(why.host, why.port)
        if node is None:
            return why
        [answer] = await self._line(node).exchange([Part(part.key, [_ASKING, *part.packed], part.replies + 1)])
        return answer if isinstance(answer, Exception) else _judged(answer[1:])

    def _line(self, node: ClusterNode) -> _Line:
        line = self._lines.get(node.name)
        if line is None:
            line = self._lines[node.name] = _Line(self._client, node, self._replicas)
        return line


class _Line:
    """To one node. Once it has failed it is left alone until it answers a PING, see ClusterClient, and once it lacks
    replicas, until it has them: so a node holds the others up only once."""

    def __init__(self, client: ClusterClient, node: ClusterNode, replicas: int) -> None:
        maker: Any = _Maker(node)
        self._client = client
        self._node = node
        self._replicas = replicas
        self._wire = ReplicatedWire(Wire(maker), replicas)
        self._looking: asyncio.Task[None] | None = None

    async def exchange(self, parts: Sequence[Part]) -> list[Answer]:
        """An answer for each part, never an exception for all."""
        try:
            self._client.check(self._node)
            if self._looking is not None and not self._looking.done():
                return [NotReplicated(f"not sent: {self._node.name} lacks replicas")] * len(parts)
            answers = await self._wire.exchange(parts)
        except UNREACHABLE as error:
            self._client.has_failed(self._node)
            return [error] * len(parts)
        if self._wire.lacks_replicas:
            self._looking = asyncio.ensure_future(self._look_for_replicas())
        return answers

    async def _look_for_replicas(self) -> None:
        """Until enough of them have all that the node has. To read from it, it may be asked meanwhile."""
        try:
            while True:
                if await self._has_replicas() or self._node.name not in self._client.masters():
                    return
                await asyncio.sleep(FIRST_PAUSE_SECS)
        except UNREACHABLE:  # also where it is a replica by now: that refuses WAIT
            self._client.has_failed(self._node)

    async def _has_replicas(self) -> bool:
        self._client.refresh_soon(self._node.name)  # nothing is sent that it could refuse, if another has its slots
        async with self._client.borrowed(self._node) as connection:
            # the PING, as WAIT waits for what there was at the connection's last command
            await connection.send_packed_command(
                connection.pack_commands([("PING",), ("WAIT", self._replicas, WAIT_MS)])
            )
            await connection.read_response()
            return bool(await connection.read_response() >= self._replicas)

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._wire.close()


class _Maker:
    """Makes connections to one node, as a pool does."""

    def __init__(self, node: ClusterNode) -> None:
        self.connection_pool = self
        self._node = node

    def make_connection(self) -> Any:
        """A connection that is not connected yet."""
        node = self._node
        return node.connection_class(**{**node.connection_kwargs, "retry": Retry(NoBackoff(), 0)})


def _judged(answer: Answer) -> Answer:
    """`answer`, or, where the node was not the one to ask, that alone: of such a part nothing was carried out."""
    if isinstance(answer, Exception):
        return answer
    if len(answer) > 1 and isinstance(answer[0], Exception):
        return answer  # without its MULTI each command went by itself
    return next((reply for reply in answer if isinstance(reply, (AskError, ClusterDownError))), answer)
