"""redis-py's clients for programs without an event loop, opened for any URL: bounded in time, repeating nothing.

A link asks many commands of one key each at once, as asking.py does for asyncio: in one pipeline, or in one to each
node of a cluster, one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import SSLConnection, parse_url
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import TimeoutError as NoAnswer
from redis.retry import Retry
from redis.sentinel import Sentinel

from ibkr_depth_pipeline.redis_link.commands import Command, key_of
from ibkr_depth_pipeline.redis_link.options import connection_options, sentinel_options
from ibkr_depth_pipeline.redis_link.url import Kind, RedisTarget

_UNREACHABLE = (RedisError, RedisClusterException, OSError)
_LOST = (ConnectionError, NoAnswer, ClusterDownError, OSError)


class BlockingLink(Protocol):
    """The way to a Redis. Threads may share it."""

    def ask_each(self, commands: Sequence[Command]) -> list[Any]:
        """The reply to each command, as RESP2 has it, or the exception that stands for it.

        Raises redis-py's exceptions where nothing can be reached.
        """

    def keys(self, pattern: str) -> Iterator[bytes]:
        """Every key that matches, some perhaps more than once. Raises redis-py's exceptions."""

    def close(self) -> None:
        """Close the connections. Repeatable."""


def open_link(target: RedisTarget, *, connect_timeout: float, answer_timeout: float) -> BlockingLink:
    """The link to `target`; connects at the first command. Times are seconds."""
    options = {**connection_options(connect_timeout, answer_timeout), "retry": Retry(NoBackoff(), 0)}
    if target.kind is Kind.CLUSTER:
        return _Cluster(target, options)
    if target.kind is Kind.SENTINEL:
        return _Server(*_master(target, options))
    return _Server(redis.Redis.from_url(target.plain, **options))


def _master(target: RedisTarget, options: dict[str, Any]) -> tuple[redis.Redis, list[redis.Redis]]:
    given = _given(target)
    tls = {name: value for name, value in given.items() if name.startswith("ssl")}
    made: Any = Sentinel  # untyped in redis-py, as is its client for clusters
    sentinels = made(target.nodes, sentinel_kwargs={**options, **tls, **sentinel_options(target)})
    client: redis.Redis = sentinels.master_for(target.service, **options, **given)
    return client, sentinels.sentinels


def _given(target: RedisTarget) -> dict[str, Any]:
    """What the URL says, in redis-py's words, but for the address."""
    parsed: Any = parse_url
    given = dict(parsed(target.plain))
    if given.pop("connection_class", None) is SSLConnection:
        given["ssl"] = True
    return {name: value for name, value in given.items() if name not in ("host", "port")}


class _Server:
    def __init__(self, client: redis.Redis, others: Sequence[redis.Redis] = ()) -> None:
        self._client = client
        self._others = others

    def ask_each(self, commands: Sequence[Command]) -> list[Any]:
        return _pipelined(self._client, commands)

    def keys(self, pattern: str) -> Iterator[bytes]:
        return iter(self._client.scan_iter(match=pattern, count=1_000))

    def close(self) -> None:
        self._client.close()
        for each in self._others:
            each.close()


class _Cluster:
    """redis-py's client for a cluster connects when it is made, so it is made at the first command."""

    def __init__(self, target: RedisTarget, options: dict[str, Any]) -> None:
        given = _given(target)
        given.pop("db", None)
        self._options = {**options, **given, "require_full_coverage": False}
        self._nodes = target.nodes
        self._made: Any = None
        self._lock = threading.Lock()

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
        replies = _ask_owners(client, dict(enumerate(commands)))
        moved = {place: commands[place] for place, reply in replies.items() if isinstance(reply, MovedError)}
        if moved:  # nothing of it was carried out, so it may be said again
            _refresh(client)
            replies.update(_ask_owners(client, moved))
        for place, reply in replies.items():
            if isinstance(reply, AskError):
                replies[place] = _ask_importer(client, commands[place], reply)
        return [replies[place] for place in range(len(commands))]

    def keys(self, pattern: str) -> Iterator[bytes]:
        return iter(self._client.scan_iter(match=pattern, count=1_000))

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None


def _ask_owners(client: Any, commands: dict[int, Command]) -> dict[int, Any]:
    replies: dict[int, Any] = {}
    shares: dict[str, tuple[ClusterNode, list[int]]] = {}
    for place, command in commands.items():
        try:
            node = client.get_node_from_key(key_of(command))
        except _UNREACHABLE as uncovered:
            replies[place] = uncovered
        else:
            shares.setdefault(node.name, (node, []))[1].append(place)
    for node, share in shares.values():
        replies.update(zip(share, _ask_node(client, node, [commands[place] for place in share]), strict=True))
    return replies


def _ask_importer(client: Any, command: Command, why: AskError) -> Any:
    """The slot is on its way to another node, which has the key already, or will: only this once it is to be asked."""
    node = client.get_node(why.host, why.port)
    return why if node is None else _ask_node(client, node, [("ASKING",), command])[-1]


def _ask_node(client: Any, node: ClusterNode, commands: Sequence[Command]) -> list[Any]:
    try:
        replies = _pipelined(client.get_redis_connection(node), commands)
    except _UNREACHABLE as error:
        replies = [error] * len(commands)
    if any(isinstance(reply, _LOST) for reply in replies):
        _refresh(client)
    return replies


def _refresh(client: Any) -> None:
    with suppress(*_UNREACHABLE):
        client.nodes_manager.initialize()


def _pipelined(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    if not commands:
        return []
    pipe: Any = Pipeline(client.connection_pool, {}, transaction=False, shard_hint=None)
    for command in commands:
        pipe.execute_command(*command)
    return list(pipe.execute(raise_on_error=False))
