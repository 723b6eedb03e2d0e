"""Links for programs without an event loop, opened for any URL: bounded in time, repeating nothing by themselves.

A link sends many commands of one key each at once, as pipeline.py does for asyncio: in one pipeline, or in one to each
node of a cluster, one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import ConnectionError
from redis.retry import Retry
from redis.sentinel import Sentinel

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.redis_link.failures import LOST, UNREACHABLE, redirect_of
from ibkr_depth_pipeline.redis_link.internals import look_up_slots, raw_pipeline, sync_options
from ibkr_depth_pipeline.redis_link.routing import Command, FailedNodes, Refresh, Share, key_of, route
from ibkr_depth_pipeline.redis_link.url import Kind, RedisTarget, connection_options, sentinel_options

_SCANNED_AT_ONCE = 1_000


class SyncLink(Protocol):
    """The way to a Redis. Threads may share it."""

    def ask_each(self, commands: Sequence[Command]) -> list[Any]:
        """The reply to each command, as RESP2 has it, or the exception that stands for it.

        Raises redis-py's exceptions if nothing can be reached.
        """

    def keys(self, pattern: str) -> Iterator[bytes]:
        """Every key that matches, some perhaps more than once. Raises redis-py's exceptions."""

    def close(self) -> None:
        """Closes the connections. Repeatable."""


def open_link(target: RedisTarget, *, connect_timeout: float, answer_timeout: float) -> SyncLink:
    """The link to `target`; connects at the first command. Times are seconds."""
    options = {**connection_options(connect_timeout, answer_timeout), "retry": Retry(NoBackoff(), 0)}
    if target.kind is Kind.CLUSTER:
        return _Cluster(target, options)
    if target.kind is Kind.SENTINEL:
        return _Server(*_master(target, options))
    return _Server(redis.Redis.from_url(target.plain, **options))


def _master(target: RedisTarget, options: dict[str, Any]) -> tuple[redis.Redis, list[redis.Redis]]:
    given = sync_options(target, without=("host", "port"))
    tls = {name: value for name, value in given.items() if name.startswith("ssl")}
    made: Any = Sentinel  # untyped in redis-py, as is its client for clusters
    sentinels = made(target.nodes, sentinel_kwargs={**options, **tls, **sentinel_options(target)})
    client: redis.Redis = sentinels.master_for(target.service, **options, **given)
    return client, sentinels.sentinels


class _Server:
    def __init__(self, client: redis.Redis, others: Sequence[redis.Redis] = ()) -> None:
        self._client = client
        self._others = others

    def ask_each(self, commands: Sequence[Command]) -> list[Any]:
        return _pipelined(self._client, commands)

    def keys(self, pattern: str) -> Iterator[bytes]:
        return iter(self._client.scan_iter(match=pattern, count=_SCANNED_AT_ONCE))

    def close(self) -> None:
        self._client.close()
        for each in self._others:
            each.close()


class _Cluster:
    """redis-py's client for a cluster connects when it is made, so it is made at the first command."""

    def __init__(self, target: RedisTarget, options: dict[str, Any]) -> None:
        given = sync_options(target, without=("host", "port", "db"))
        self._options = {**options, **given, "require_full_coverage": False}
        self._nodes = target.nodes
        self._made: Any = None
        self._lock = threading.Lock()
        self._failed = FailedNodes()

    @property
    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                node: Any = ClusterNode
                startup = [node(host, port) for host, port in self._nodes]
                self._made = RedisCluster(startup_nodes=startup, **self._options)
            return self._made

    def ask_each(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        client = self._client
        keys = [key_of(command) for command in commands]
        steps = route(keys, owner_of=self._owner_or_error, node_at=client.get_node, redirect_of=redirect_of)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Refresh):
                    look_up_slots(client)
                    step = steps.send(())
                else:
                    step = steps.send([self._ask_node(share, commands) for share in step])
        except StopIteration as done:
            replies: list[Any] = done.value
            return replies

    def _owner_or_error(self, key: Any) -> Any:
        try:
            return self._client.get_node_from_key(key)
        except UNREACHABLE as uncovered:
            return uncovered

    def _ask_node(self, share: Share[Any], commands: Sequence[Command]) -> list[Any]:
        """The replies of a node. One that has failed is left alone for a pause: the next commands probe it."""
        name = share.node.name
        wanted: list[Command] = [commands[place] for place in share.places]
        if share.asking:
            wanted = [word for command in wanted for word in (("ASKING",), command)]
        if self._failed.rests(name, monotonic()):
            return [ConnectionError(f"{name} does not answer")] * len(share.places)
        try:
            replies = _pipelined(self._client.get_redis_connection(share.node), wanted)
        except UNREACHABLE as error:
            replies = [error] * len(wanted)
        if any(isinstance(reply, LOST) for reply in replies):
            self._failed.failed(name, monotonic())
            look_up_slots(self._client)
        else:
            self._failed.answered(name)
        return replies[1::2] if share.asking else replies

    def keys(self, pattern: str) -> Iterator[bytes]:
        return iter(self._client.scan_iter(match=pattern, count=_SCANNED_AT_ONCE))

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None


def _pipelined(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    return list(raw_pipeline(client, commands).execute(raise_on_error=False)) if commands else []
