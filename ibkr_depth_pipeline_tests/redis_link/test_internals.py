"""What redis-py does not document and internals.py leans on: there, as it is used, and used in that module alone."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio as aioredis
from redis.asyncio import client as aio_client
from redis.asyncio import cluster as aio_cluster
from redis.asyncio import connection as aio_connection
from redis.asyncio import sentinel as aio_sentinel

import ibkr_depth_pipeline
from ibkr_depth_pipeline.redis_link import internals
from ibkr_depth_pipeline.redis_link.aio import ClusterClient, open_client
from ibkr_depth_pipeline.redis_link.internals import SentinelClient as OurSentinelClient
from ibkr_depth_pipeline.redis_link.internals import raw_pipeline
from ibkr_depth_pipeline.redis_link.url import connection_options, parse_redis_url

CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (aio_client.Pipeline.__init__, (None, None, {}), {"transaction": False, "shard_hint": None}),
    (redis.client.Pipeline.__init__, (None, None, {}), {"transaction": False, "shard_hint": None}),
    (aio_client.Pipeline.execute, (None,), {"raise_on_error": False}),
    (redis.client.Pipeline.execute, (None,), {"raise_on_error": False}),
    (aio_connection.Connection.send_packed_command, (None, b""), {}),
    (aio_connection.Connection.read_response, (None,), {}),
    (aio_connection.Connection.pack_commands, (None, []), {}),
    (aio_connection.Connection.should_reconnect, (None,), {}),
    (aio_connection.Connection.connect, (None,), {}),
    (aio_connection.Connection.disconnect, (None,), {"nowait": True}),
    (aio_connection.Connection._close, (None,), {}),
    (aio_connection.ConnectionPool.make_connection, (None,), {}),
    (aio_connection.DefaultParser.parse_error, (b"",), {}),
    (aio_connection.parse_url, ("redis://h",), {}),
    (redis.connection.parse_url, ("redis://h",), {}),
    (aio_cluster.ClusterNode.acquire_connection, (None,), {}),
    (aio_cluster.ClusterNode.release, (None, None), {}),
    (aio_cluster.NodesManager.initialize, (None,), {"last_failed_node_name": "h:1"}),
    (aio_cluster.NodesManager.aclose, (None, "nodes_cache"), {}),
    (aio_cluster.RedisCluster.get_node_from_key, (None, "key"), {}),
    (aio_cluster.RedisCluster.get_node, (None, "h", 1), {}),
    (aio_cluster.RedisCluster.get_node, (None,), {"node_name": "h:1"}),
    (redis.cluster.NodesManager.initialize, (None,), {}),
    (redis.cluster.RedisCluster.get_node_from_key, (None, "key"), {}),
    (redis.cluster.RedisCluster.get_node, (None, "h", 1), {}),
    (redis.cluster.RedisCluster.get_redis_connection, (None, None), {}),
    (aio_sentinel.SentinelConnectionPool.get_master_address, (None,), {}),
    (aio_sentinel.SentinelConnectionPool.update_active_connections_for_reconnect, (None,), {}),
    (aio_sentinel.Sentinel.master_for, (None, "name", aioredis.Redis, object), {"connection_class": object}),
]

OURS_ALONE = {
    "_writer",
    "_reader",
    "parse_error",
    "make_connection",
    "connection_pool",
    "connection_kwargs",
    "connection_class",
    "acquire_connection",
    "should_reconnect",
    "send_packed_command",
    "read_response",
    "pack_commands",
    "nodes_manager",
    "slots_cache",
    "nodes_cache",
    "startup_nodes",
    "sentinel_manager",
    "update_active_connections_for_reconnect",
}
HIDDEN_NAMES = {"Pipeline", "DefaultParser", "parse_url"}

OPTIONS = connection_options(2.0, 5.0)
PACKAGE = Path(ibkr_depth_pipeline.__file__).parent


@pytest.mark.parametrize(("called", "args", "options"), CALLS, ids=lambda it: getattr(it, "__qualname__", ""))
def test_redis_py_still_takes_the_call(called: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    inspect.signature(called).bind(*args, **options)


def test_sub_classed_connections_accept_the_options_that_are_handed_on() -> None:
    for kind in (internals._Tcp, internals._Tls, internals._Unix):
        connection = kind(**OPTIONS, **({"path": "/x"} if kind is internals._Unix else {"host": "h", "port": 1}))
        assert connection.socket_timeout is None, "redis-py would bound the commands itself"
        assert connection._longest == 5.0


async def test_cluster_client_has_the_node_lists_that_are_read() -> None:
    client = ClusterClient(parse_redis_url("redis+cluster://127.0.0.1:1"), OPTIONS)
    manager = client.nodes_manager
    assert manager.slots_cache == {} == manager.nodes_cache
    [node] = manager.startup_nodes.values()
    assert (node.connection_class, node.name) == (internals._Tcp, "127.0.0.1:1")
    assert node.connection_kwargs["host"] == "127.0.0.1"
    assert "connection_class" in client.connection_kwargs
    await client.aclose()


async def test_sentinel_client_has_the_clients_that_are_closed() -> None:
    client = open_client("redis+sentinel://127.0.0.1:1,127.0.0.1:2/name", connect_timeout=2.0, answer_timeout=5.0)
    assert isinstance(client, OurSentinelClient)
    pool: Any = client.connection_pool
    assert isinstance(pool, internals._MasterPool)
    assert len(pool.sentinel_manager.sentinels) == 2
    assert pool.master_address is None
    await client.aclose()


async def test_raw_pipelines_leave_replies_as_resp2_has_them(shared_redis_url: str) -> None:
    client = open_client(shared_redis_url, connect_timeout=2.0, answer_timeout=5.0)
    assert isinstance(client, aioredis.Redis)
    with redis.Redis.from_url(shared_redis_url, protocol=2) as plain:
        plain.hset("h", "field", "1")
        asked = [("HGETALL", "h")]
        assert await raw_pipeline(client, asked).execute(raise_on_error=False) == [[b"field", b"1"]]
        assert raw_pipeline(plain, asked).execute(raise_on_error=False) == [[b"field", b"1"]]
    await client.aclose()


def test_no_other_module_uses_what_redis_py_does_not_document() -> None:
    others = [path for path in sorted(PACKAGE.rglob("*.py")) if path != Path(internals.__file__)]
    assert [f"{path.relative_to(PACKAGE)}: {use}" for path in others for use in _uses(path.read_text())] == []


def _uses(text: str) -> list[str]:
    """The undocumented attributes and names in a module that has to do with Redis; `self._reader` is its own."""
    if not any(word in text for word in ("import redis", "from redis", "redis_link", "ibkr_depth_pipeline.sink")):
        return []
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr in OURS_ALONE and ast.unparse(node.value) != "self":
            found.append(ast.unparse(node))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "redis":
            found += [name.name for name in node.names if name.name in HIDDEN_NAMES]
    return found
