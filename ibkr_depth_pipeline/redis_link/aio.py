"""Clients for asyncio, opened for any URL: bounded in time, repeating nothing by themselves.

A cluster's client works on with the nodes that answer while others do not. Of its own redis-py would look for the nodes
in the midst of a command, and wait for each one that hangs; here that is done beside the commands, and a node that has
failed must answer a PING before it is sent anything again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE, redirect_of, refused
from ibkr_depth_pipeline.redis_link.internals import BareCluster, master_client, server_client
from ibkr_depth_pipeline.redis_link.routing import FailedNodes, Refresh, Share, route
from ibkr_depth_pipeline.redis_link.url import Kind, RedisTarget, connection_options, parse_redis_url


class ClusterClient(BareCluster):
    """A cluster. Close it: it may have tasks of its own."""

    def __init__(self, target: RedisTarget, options: dict[str, Any]) -> None:
        super().__init__(target, options)
        self._failed = FailedNodes()
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._refreshing: asyncio.Task[None] | None = None

    async def find_nodes(self) -> None:
        """Finds the nodes unless they are known. Raises what is in UNREACHABLE."""
        if not self.knows_slots:
            try:
                await self.initialize()
            except UNREACHABLE:
                if not self.knows_slots:
                    raise  # else they are found, and only the one that was asked for its commands is dead

    async def route(
        self, keys: Sequence[Any], send: Callable[[Share[ClusterNode]], Awaitable[Sequence[Any]]]
    ) -> list[Any]:
        """Sends a command for each key to the node that takes it, all nodes at the same time. See routing.route.

        `send` returns a reply, or an exception, for each of a share's places. Raises what is in UNREACHABLE if nothing
        is known of the cluster.
        """
        await self.find_nodes()
        steps = route(keys, owner_of=self._owner_or_error, node_at=self.get_node, redirect_of=redirect_of)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Refresh):
                    await self.refresh()
                    step = steps.send(())
                else:
                    step = steps.send(await asyncio.gather(*map(send, step)))
        except StopIteration as done:
            replies: list[Any] = done.value
            return replies

    def owner(self, key: Any) -> ClusterNode:
        """The node that takes commands for `key`, as far as is known. Raises what is in UNREACHABLE if none does."""
        node = self.get_node_from_key(key)
        assert node is not None  # None is for replicas
        return node

    def _owner_or_error(self, key: Any) -> ClusterNode | Exception:
        try:
            return self.owner(key)
        except UNREACHABLE as uncovered:
            return uncovered

    def check(self, node: ClusterNode) -> None:
        """Raises ConnectionError while `node` has failed and has not answered since."""
        if node.name in self._failed:
            raise ConnectionError(f"{node.name} does not answer")

    def is_away(self) -> bool:
        """Whether every node that owns slots has failed, and none has answered since."""
        return all(name in self._failed for name in self.masters())

    def has_failed(self, node: ClusterNode) -> None:
        """Records that `node` is away or knows nothing: it is probed until it answers, and the slots are read again."""
        if node.name not in self._failed:
            self._failed.failed(node.name, monotonic())
            self._probes[node.name] = asyncio.ensure_future(self._probe(node))

    async def _probe(self, node: ClusterNode) -> None:
        try:
            while True:
                self.refresh_soon(node.name)
                if await self._answers(node):
                    return
                next_try = self._failed.failed(node.name, monotonic())
                await asyncio.sleep(next_try - monotonic())
        finally:
            self._failed.answered(node.name)
            self._probes.pop(node.name, None)

    async def _answers(self, node: ClusterNode) -> bool:
        try:
            return refused(await self.exchange(node, [("PING",)])) is None or self.has_left(node)
        except UNREACHABLE:
            return self.has_left(node)  # then nothing is sent to it

    async def refresh(self) -> None:
        """Asks the cluster which node owns which slot. Failures are ignored."""
        await asyncio.wait([self.refresh_soon()])  # others wait for it, too: neither's cancellation is the other's

    def refresh_soon(self, failed: str | None = None) -> asyncio.Task[None]:
        """As refresh, in a task; the node called `failed` is asked last."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.ensure_future(self.look_up_slots(failed))
        return self._refreshing

    async def aclose(self) -> None:
        """Closes the connections and ends the probes. Repeatable; a later command opens them again."""
        tasks = [*self._probes.values(), *([self._refreshing] if self._refreshing is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._probes.clear()  # a probe that had not begun could not remove itself
        self._failed.clear()
        await super().aclose()


Client = redis.Redis | ClusterClient


def open_client(url: str, *, connect_timeout: float, answer_timeout: float) -> Client:
    """A client for `url`; connects at the first command. Replies come as RESP2 has them. Times are seconds.

    Raises ValueError, without a part of the URL, if it is none.
    """
    target = parse_redis_url(url)
    options = {**connection_options(connect_timeout, answer_timeout), "retry": Retry(NoBackoff(), 0)}
    match target.kind:
        case Kind.SERVER:
            return server_client(target, options)
        case Kind.SENTINEL:
            return master_client(target, options)
        case Kind.CLUSTER:
            return ClusterClient(target, options)
