"""redis-py's client for a cluster, which goes on with the nodes that answer while others do not.

redis-py finds the nodes and their slots. Of its own it would do so again in the midst of a command, and wait for each
node that hangs; here that is done beside the commands, and a node that has failed must answer a PING before it is asked
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import ClusterDownError, ConnectionError, RedisClusterException, RedisError
from redis.exceptions import TimeoutError as NoAnswer

UNREACHABLE = (RedisError, RedisClusterException, OSError, TimeoutError, asyncio.TimeoutError)
"""What redis-py raises when a command could not be carried out or its answer is unknown."""

LOST = (ConnectionError, NoAnswer, ClusterDownError, OSError)
"""After one of these a cluster may look different."""

FIRST_PAUSE_SECS, LONGEST_PAUSE_SECS = 0.05, 0.5
"""Between two looks for a node that has failed, and for who has its slots by now."""


class ClusterClient(RedisCluster):
    """A cluster. Close it: it may have tasks of its own."""

    _looking: dict[str, asyncio.Task[None]]
    _refreshing: asyncio.Task[None] | None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._looking = {}
        self._refreshing = None

    async def find_nodes(self) -> None:
        """Look for the nodes, where that was not done yet. Raises what is in UNREACHABLE."""
        if not self.nodes_manager.slots_cache:
            try:
                await self.initialize()
            except UNREACHABLE:
                if not self.nodes_manager.slots_cache:
                    raise  # else they are found, and only the one that was asked for its commands is dead

    def owner(self, key: Any) -> ClusterNode:
        """The node that takes commands for `key`, as far as is known. Raises what is in UNREACHABLE where none does."""
        node = self.get_node_from_key(key)
        assert node is not None  # that it may be is for replicas
        return node

    def shares(self, keys: Mapping[int, Any]) -> tuple[list[tuple[ClusterNode, list[int]]], dict[int, Exception]]:
        """Which of the numbered keys are whose, and why some are nobody's."""
        places: dict[str, tuple[ClusterNode, list[int]]] = {}
        nobodys: dict[int, Exception] = {}
        for place, key in keys.items():
            try:
                node = self.owner(key)
            except UNREACHABLE as uncovered:
                nobodys[place] = uncovered
            else:
                places.setdefault(node.name, (node, []))[1].append(place)
        return list(places.values()), nobodys

    def masters(self) -> set[str]:
        """The names of the nodes that own slots, as far as is known."""
        return {nodes[0].name for nodes in self.nodes_manager.slots_cache.values() if nodes}

    @asynccontextmanager
    async def borrowed(self, node: ClusterNode) -> AsyncIterator[Any]:
        """A connection to `node`, to be given back with nothing unread: it is closed where the block fails."""
        connection: Any = node.acquire_connection()
        try:
            if connection.should_reconnect():
                await connection.disconnect()
            yield connection
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            node.release(connection)
            if self.nodes_manager.nodes_cache.get(node.name) is not node:  # nobody will close it
                await connection.disconnect(nowait=True)

    def has_failed(self, node: ClusterNode) -> None:
        """It was away, or knew nothing: look for it, and for another one in its place."""
        if node.name not in self._looking:
            self._looking[node.name] = asyncio.ensure_future(self._look_for(node))

    def check(self, node: ClusterNode) -> None:
        """Raises ConnectionError while `node` has failed and has not answered since."""
        if node.name in self._looking:
            raise ConnectionError(f"{node.name} does not answer")

    def is_away(self) -> bool:
        """Whether every node that owns slots has failed, and none has answered since."""
        return self.masters() <= self._looking.keys()

    async def refresh(self) -> None:
        """Ask the cluster who owns which slot. That it can't be asked is borne."""
        await asyncio.wait([self.refresh_soon()])  # others wait for it, too: neither its end nor ours is the other's

    def refresh_soon(self, failed: str | None = None) -> asyncio.Task[None]:
        """As refresh, beside what else is done; the node called `failed` is asked last."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.ensure_future(self._refresh(failed))
        return self._refreshing

    async def _refresh(self, failed: str | None) -> None:
        with suppress(*UNREACHABLE):
            await self.nodes_manager.initialize(last_failed_node_name=failed)

    async def _look_for(self, node: ClusterNode) -> None:
        pause = FIRST_PAUSE_SECS
        try:
            while True:
                self.refresh_soon(node.name)
                if await self._answers(node):
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECS)
        finally:
            self._looking.pop(node.name, None)

    async def _answers(self, node: ClusterNode) -> bool:
        try:
            async with self.borrowed(node) as connection:
                await connection.send_command("PING")
                await connection.read_response()
        except UNREACHABLE:
            return node.name not in self.nodes_manager.nodes_cache  # it has left the cluster: nobody asks it again
        return True

    async def aclose(self) -> None:
        """Close the connections, and end what looks for nodes. Repeatable; a command that comes later opens them anew.

        redis-py's own does nothing where it has planned to look for the nodes anew, and leaves connections open.
        """
        tasks = [*self._looking.values(), *([self._refreshing] if self._refreshing is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._looking.clear()  # one that had not begun could not take itself out
        await super().aclose()
        for kind in ("nodes_cache", "startup_nodes"):
            await self.nodes_manager.aclose(kind)
