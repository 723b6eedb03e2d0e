"""The only home of what redis-py does not document. docs/architecture.md lists what each is for.

The test of this module fails if a version of redis-py lacks one of them or changes its signature; the upper bound of
`redis` in pyproject.toml keeps such a version away until then.

A command is bounded in time on its connection, not by redis-py's own `socket_timeout`: with one, redis-py sends through
asyncio.wait_for, which before Python 3.12 may swallow a cancellation (cpython issue 86296), and the canceller would
wait without end.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import hiredis
import redis
import redis.asyncio as aioredis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import (
    Connection,
    ConnectionPool,
    DefaultParser,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.client import Pipeline as SyncPipeline
from redis.cluster import RedisCluster as SyncCluster
from redis.connection import SSLConnection as SyncSSLConnection
from redis.connection import parse_url as parse_url_for_sync
from redis.exceptions import ConnectionError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE, is_deposed
from ibkr_depth_pipeline.redis_link.routing import Command
from ibkr_depth_pipeline.redis_link.url import RedisTarget, sentinel_options

if sys.version_info >= (3, 11):
    from asyncio import timeout as timeout
else:
    from async_timeout import timeout as timeout  # redis-py brings it for older Pythons

T = TypeVar("T")
Options = dict[str, Any]

NO_MORE_REPLIES = object()
"""Returned by a reply parser that has no whole reply left."""


# ---- connections that are bounded in time


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


class _LeavesDeposed(_Bounded):
    """Closed if the server is deposed, so that the next command asks the Sentinels again. redis-py does that for a
    replica only, and not if a script of Redis before 7 reports the refusal."""

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
    """Leaves no connection with a former master: redis-py closes only those that are not in use at the time, here the
    others follow when they are given back."""

    async def get_master_address(self) -> tuple[str, int]:
        former = self.master_address
        address: tuple[str, int] = await super().get_master_address()  # type: ignore[no-untyped-call]
        if former not in (None, address):
            await self.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
        return address


# ---- clients of one server or of Sentinels


class SentinelClient(aioredis.Redis):
    """The master that Sentinels name. A new connection asks them again, so that it leads to the present master."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Closes it, and the connections to the Sentinels."""
        await super().aclose(close_connection_pool)
        for each in self.connection_pool.sentinel_manager.sentinels:  # type: ignore[attr-defined]
            await each.aclose()


def server_client(target: RedisTarget, options: Options) -> aioredis.Redis:
    given = _given(target)
    connection: type = {SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}.get(given.pop("connection_class"), _Tcp)
    return aioredis.Redis.from_pool(ConnectionPool(connection_class=connection, **options, **given))


def master_client(target: RedisTarget, options: Options) -> SentinelClient:
    """The client of the master that the Sentinels of `target` name."""
    given = _given(target, without=("host", "port"))
    encrypted = given.pop("connection_class") is SSLConnection
    sentinels: Any = Sentinel([])  # type: ignore[no-untyped-call]
    sentinels.sentinels = [_sentinel(target, node, options) for node in target.nodes]
    client: SentinelClient = sentinels.master_for(
        target.service,
        SentinelClient,
        _MasterPool,
        connection_class=_TlsMaster if encrypted else _Master,
        **options,
        **given,
    )
    return client


def _sentinel(target: RedisTarget, node: tuple[str, int], options: Options) -> aioredis.Redis:
    tls = {name: value for name, value in _given(target).items() if name.startswith("ssl_")}
    connection = _Tls if target.plain.startswith("rediss") else _Tcp
    host, port = node
    bounds = {**options, **sentinel_options(target)}
    return aioredis.Redis.from_pool(ConnectionPool(connection_class=connection, host=host, port=port, **bounds, **tls))


def _given(target: RedisTarget, without: Sequence[str] = ()) -> Options:
    """What the URL sets, as redis-py's options, but for those `without`."""
    given = {"connection_class": None, **parse_url(target.plain)}
    return {name: value for name, value in given.items() if name not in without}


def sync_options(target: RedisTarget, without: Sequence[str]) -> Options:
    """What the URL sets, as options of redis-py's client without an event loop, but for those `without`."""
    parsed: Any = parse_url_for_sync
    given = dict(parsed(target.plain))
    if given.pop("connection_class", None) is SyncSSLConnection:
        given["ssl"] = True
    return {name: value for name, value in given.items() if name not in without}


def raw_pipeline(client: aioredis.Redis | redis.Redis, commands: Sequence[Command], transaction: bool = False) -> Any:
    """A pipeline of these commands. Its replies are as RESP2 has them: no callback shapes them by command."""
    made: Any = SyncPipeline if isinstance(client, redis.Redis) else Pipeline
    pipe = made(client.connection_pool, {}, transaction=transaction, shard_hint=None)
    for command in commands:
        pipe.execute_command(*command)
    return pipe


# ---- clusters


class BareCluster(RedisCluster):
    """redis-py's client of a cluster, with its list of nodes and its connections within reach."""

    def __init__(self, target: RedisTarget, options: Options) -> None:
        given = _given(target, without=("host", "port", "db"))
        encrypted = given.pop("connection_class") is SSLConnection
        super().__init__(
            startup_nodes=[ClusterNode(host, port) for host, port in target.nodes],
            require_full_coverage=False,
            reinitialize_steps=0,
            ssl=encrypted,
            **options,
            **given,
        )
        # its constructor knows only redis-py's own two classes of connections
        connection = _Tls if encrypted else _Tcp
        self.connection_kwargs["connection_class"] = connection
        for node in self.nodes_manager.startup_nodes.values():
            node.connection_class = connection

    @property
    def knows_slots(self) -> bool:
        """Whether it is known which node owns which slot."""
        return bool(self.nodes_manager.slots_cache)

    def masters(self) -> set[str]:
        """The names of the nodes that own slots, as far as is known."""
        return {nodes[0].name for nodes in self.nodes_manager.slots_cache.values() if nodes}

    def has_left(self, node: ClusterNode) -> bool:
        """Whether no node of that name belongs to the cluster."""
        return node.name not in self.nodes_manager.nodes_cache

    async def look_up_slots(self, failed: str | None) -> None:
        """Asks the cluster which node owns which slot, the node called `failed` last. Failures are ignored."""
        with suppress(*UNREACHABLE):
            await self.nodes_manager.initialize(last_failed_node_name=failed)

    async def exchange(self, node: ClusterNode, commands: Sequence[Command]) -> list[Any]:
        """The replies of `node` to these commands, in one go, with what it refused as exceptions among them.

        Raises what is in UNREACHABLE; then, and when cancelled, the connection is closed with what is unread.
        """
        connection: Any = node.acquire_connection()
        try:
            if connection.should_reconnect():
                await connection.disconnect()
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await _reply(connection) for _ in commands]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            node.release(connection)
            if self.nodes_manager.nodes_cache.get(node.name) is not node:  # nothing else closes it
                await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        """Closes all connections. redis-py's own leaves some open if it has planned to look for the nodes again."""
        await super().aclose()
        for kind in ("nodes_cache", "startup_nodes"):
            await self.nodes_manager.aclose(kind)


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refused:
        return refused


def look_up_slots(client: SyncCluster) -> None:
    """Asks the cluster which node owns which slot. Failures are ignored."""
    with suppress(*UNREACHABLE):
        client.nodes_manager.initialize()


# ---- a connection whose socket is used as it is


class RawConnection:
    """A connection outside of any pool: once redis-py has opened it, its bytes are written and read past redis-py."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transport: Any = None

    @classmethod
    def like_those_of(cls, client: aioredis.Redis) -> RawConnection:
        """To where `client` leads; not open yet."""
        pool: Any = client.connection_pool
        return cls(pool.make_connection())

    @classmethod
    def to_node(cls, node: ClusterNode) -> RawConnection:
        """To a node of a cluster; not open yet."""
        return cls(node.connection_class(**{**node.connection_kwargs, "retry": Retry(NoBackoff(), 0)}))

    async def open(self, protocol: asyncio.BufferedProtocol) -> None:
        """Connects, authenticates and selects the database. Then `protocol` gets what comes, and the connection's end.

        The StreamReader that redis-py reads by would wake a task for each reply.
        """
        await self._connection.connect()
        reader: asyncio.StreamReader = self._connection._reader
        self._transport = self._connection._writer.transport
        if reader.at_eof() or self._transport.is_closing():
            raise ConnectionError("Redis closed the connection")
        self._transport.set_protocol(protocol)

    def write(self, chunks: Sequence[bytes]) -> None:
        """Hands packed commands to the transport, all at once."""
        self._transport.write(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def abort(self) -> None:
        """Cuts it: the protocol gets its end."""
        self._transport.abort()

    def close(self) -> None:
        """Closes it, without waiting for the other side."""
        self._connection._close()


def reply_parser() -> Any:
    """Parses replies fed to it as bytes; `gets` returns one, an exception for an error, or NO_MORE_REPLIES."""
    return hiredis.Reader(
        protocolError=ConnectionError, replyError=DefaultParser.parse_error, notEnoughData=NO_MORE_REPLIES
    )
