"""A whole flush to a cluster in one go: each part to the node that owns its key, all nodes at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ClusterDownError, MovedError

from ibkr_depth_pipeline.redis_link.cluster import UNREACHABLE, ClusterClient
from ibkr_depth_pipeline.sink.replicas import ReplicatedWire
from ibkr_depth_pipeline.sink.wire import Answer, Part, Wire

_ASKING = b"*1\r\n$6\r\nASKING\r\n"

_Numbered = dict[int, Part]


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
        """See Wire. Raises what is in UNREACHABLE where nothing is known of any part."""
        await self._client.find_nodes()
        answers: dict[int, Answer] = {}
        await self._send(self._by_owner(dict(enumerate(parts)), answers), answers)
        moved = {at: answer for at, answer in answers.items() if isinstance(answer, AskError)}
        if any(isinstance(answer, ClusterDownError) for answer in answers.values()):
            self._client.refresh_soon()
        if moved:
            await self._client.refresh_soon()
            await self._send_on({at: (parts[at], why) for at, why in moved.items()}, answers)
        told = [answers[at] for at in range(len(parts))]
        failures = [answer for answer in told if isinstance(answer, Exception)]
        if told and len(failures) == len(told):
            raise failures[0]
        return told

    async def close(self) -> None:
        """Close the connections; the next exchange makes others."""
        lines, self._lines = self._lines, {}
        for line in lines.values():
            await line.close()

    def _by_owner(self, parts: _Numbered, answers: dict[int, Answer]) -> dict[ClusterNode, _Numbered]:
        shares: dict[ClusterNode, _Numbered] = {}
        for at, part in parts.items():
            try:
                shares.setdefault(self._client.owner(part.key), {})[at] = part
            except UNREACHABLE as uncovered:
                answers[at] = uncovered
        return shares

    async def _send_on(self, moved: dict[int, tuple[Part, AskError]], answers: dict[int, Answer]) -> None:
        """Send again what was refused because of where it was sent."""
        shares = self._by_owner({at: part for at, (part, why) in moved.items() if isinstance(why, MovedError)}, answers)
        asking: set[int] = set()
        for at, (part, why) in moved.items():
            node = None if isinstance(why, MovedError) else self._client.get_node(why.host, why.port)
            if node is not None:
                shares.setdefault(node, {})[at] = Part(part.key, [_ASKING, *part.packed], part.replies + 1)
                asking.add(at)
        await self._send(shares, answers)
        for at in asking:
            answer = answers[at]
            answers[at] = answer if isinstance(answer, Exception) else answer[1:]

    async def _send(self, shares: dict[ClusterNode, _Numbered], answers: dict[int, Answer]) -> None:
        told = await asyncio.gather(
            *(self._line(node).exchange(list(share.values())) for node, share in shares.items())
        )
        for share, of_node in zip(shares.values(), told, strict=True):
            answers.update(zip(share, map(_judged, of_node), strict=True))

    def _line(self, node: ClusterNode) -> _Line:
        line = self._lines.get(node.name)
        if line is None:
            line = self._lines[node.name] = _Line(self._client, node, self._replicas)
        return line


class _Line:
    """To one node. Once it has failed it is left alone until it answers a PING, see ClusterClient: so one that hangs
    holds the others up only once."""

    def __init__(self, client: ClusterClient, node: ClusterNode, replicas: int) -> None:
        maker: Any = _Maker(node)
        self._client = client
        self._node = node
        self._wire = ReplicatedWire(Wire(maker), replicas)

    async def exchange(self, parts: Sequence[Part]) -> list[Answer]:
        """An answer for each part, never an exception for all."""
        try:
            self._client.check(self._node)
            return await self._wire.exchange(parts)
        except UNREACHABLE as error:
            self._client.has_failed(self._node)
            return [error] * len(parts)

    async def close(self) -> None:
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
