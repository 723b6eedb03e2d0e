"""redis-py's clients for asyncio, opened for any URL: bounded in time, repeating nothing by themselves.

A command is bounded on its connection, not by redis-py's own `socket_timeout`: with one, redis-py sends through
asyncio.wait_for, which before Python 3.12 may swallow a cancellation (cpython issue 86296), and whoever cancelled would
wait for ever.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any, TypeVar

import redis.asyncio as redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from ibkr_depth_pipeline.redis_link.cluster import ClusterClient
from ibkr_depth_pipeline.redis_link.options import connection_options, sentinel_options
from ibkr_depth_pipeline.redis_link.url import Kind, RedisTarget, parse_redis_url

if sys.version_info >= (3, 11):
    from asyncio import timeout as timeout
else:
    from async_timeout import timeout as timeout  # redis-py brings it where Python is older

T = TypeVar("T")
Client = redis.Redis | ClusterClient


class _Bounded:
    """A connection each of whose steps, to send and to read one reply, takes at most socket_timeout seconds."""

    def __init__(self, *, socket_timeout: float | None = None, **options: Any) -> None:
        super().__init__(socket_timeout=None, **options)  # type: ignore[call-arg]
        self._longest = socket_timeout

    async def send_packed_command(self, *command: Any, **options: Any) -> None:
        await self._in_time(super().send_packed_command(*command, **options))  # type: ignore[misc]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        return await self._in_time(super().read_response(*args, **options))  # type: ignore[misc]

    async def _in_time(self, step: Awaitable[T]) -> T:
        try:
            async with timeout(self._longest):
                return await step
        except asyncio.TimeoutError:
            raise NoAnswer(f"no answer within {self._longest:g} s") from None


class _Tcp(_Bounded, Connection):
    pass


class _Tls(_Bounded, SSLConnection):
    pass


class _Unix(_Bounded, UnixDomainSocketConnection):
    pass


def is_deposed(refused: ResponseError) -> bool:
    """Whether a server refuses a write because it is a replica, or lacks replicas: another may be master by now."""
    return isinstance(refused, ReadOnlyError) or any(code in str(refused) for code in ("READONLY", "NOREPLICAS"))


class _LeavesDeposed(_Bounded):
    """Closed where the server is deposed, so that the next command asks the Sentinels anew. redis-py does that for a
    replica only, and not where a script of Redis before 7 says that it is one."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ResponseError as refused:
            if not is_deposed(refused):
                raise
            await self.disconnect()  # type: ignore[attr-defined]
            raise ConnectionError(str(refused)) from None


class _Master(_LeavesDeposed, SentinelManagedConnection):
    pass


class _TlsMaster(_LeavesDeposed, SentinelManagedSSLConnection):
    pass


class _MasterPool(SentinelConnectionPool):
    """Leaves no connection with a former master: redis-py closes only those that nobody uses at the time, here the
    others follow when they are given back."""

    async def get_master_address(self) -> tuple[str, int]:
        former = self.master_address
        address: tuple[str, int] = await super().get_master_address()  # type: ignore[no-untyped-call]
        if former not in (None, address):
            await self.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
        return address


class SentinelClient(redis.Redis):
    """The master that Sentinels name. A new connection asks them anew, so that it leads to whoever is master then."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close it, and what leads to the Sentinels."""
        await super().aclose(close_connection_pool)
        for each in self.connection_pool.sentinel_manager.sentinels:  # type: ignore[attr-defined]
            await each.aclose()


def open_client(url: str, *, connect_timeout: float, answer_timeout: float) -> Client:
    """A client for `url`; connects at the first command. Replies come as RESP2 has them. Times are seconds.

    Raises ValueError, without a part of the URL, where it is none.
    """
    target = parse_redis_url(url)
    options = {**connection_options(connect_timeout, answer_timeout), "retry": Retry(NoBackoff(), 0)}
    return _OPENERS[target.kind](target, options)


def _server(target: RedisTarget, options: dict[str, Any]) -> Client:
    given = _given(target)
    connection: type = {SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}.get(given.pop("connection_class"), _Tcp)
    return redis.Redis.from_pool(ConnectionPool(connection_class=connection, **options, **given))


def _master(target: RedisTarget, options: dict[str, Any]) -> Client:
    given = _given(target)
    encrypted = given.pop("connection_class") is SSLConnection
    sentinels: Any = Sentinel([])  # type: ignore[no-untyped-call]
    sentinels.sentinels = [_sentinel(target, node, options) for node in target.nodes]
    for name in ("host", "port"):
        given.pop(name, None)
    connection = _TlsMaster if encrypted else _Master
    client: SentinelClient = sentinels.master_for(
        target.service, SentinelClient, _MasterPool, connection_class=connection, **options, **given
    )
    return client


def _sentinel(target: RedisTarget, node: tuple[str, int], options: dict[str, Any]) -> redis.Redis:
    given = {name: value for name, value in _given(target).items() if name.startswith("ssl_")}
    connection = _Tls if target.plain.startswith("rediss") else _Tcp
    host, port = node
    pool = ConnectionPool(
        connection_class=connection, host=host, port=port, **{**options, **sentinel_options(target)}, **given
    )
    return redis.Redis.from_pool(pool)


def _cluster(target: RedisTarget, options: dict[str, Any]) -> Client:
    given = _given(target)
    encrypted = given.pop("connection_class") is SSLConnection
    for name in ("host", "port", "db"):
        given.pop(name, None)
    client = ClusterClient(
        startup_nodes=[ClusterNode(host, port) for host, port in target.nodes],
        require_full_coverage=False,
        reinitialize_steps=0,
        ssl=encrypted,
        **options,
        **given,
    )
    # its constructor knows only redis-py's own two classes of connections
    client.connection_kwargs["connection_class"] = _Tls if encrypted else _Tcp
    for node in client.nodes_manager.startup_nodes.values():
        node.connection_class = _Tls if encrypted else _Tcp
    return client


_OPENERS = {Kind.SERVER: _server, Kind.SENTINEL: _master, Kind.CLUSTER: _cluster}


def _given(target: RedisTarget) -> dict[str, Any]:
    """What the URL says, in redis-py's words."""
    return {"connection_class": None, **parse_url(target.plain)}
