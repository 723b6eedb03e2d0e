"""Opens clients of Redis with the sink's time-outs, and checks that a run can write there."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import ResponseError

from ibkr_depth_pipeline.redis_link.aio import Client, ClusterClient, open_client
from ibkr_depth_pipeline.redis_link.failures import as_unavailable
from ibkr_depth_pipeline.redis_link.pipeline import ask_at_once
from ibkr_depth_pipeline.schema.keys import heartbeat_key, last_key, stream_key, venue_key

CONNECT_TIMEOUT_SECS = 2.0
ANSWER_TIMEOUT_SECS = 5.0
WAIT_MS = 1_000
"""For how long replicas are waited for; well below the time after which an answer is overdue."""

_CHECK_SECS = 10


def open_redis(url: str) -> Client:
    """A client for `url`, which may name one server, Sentinels or a cluster; connects at the first command.

    It never repeats a command that may have been carried out: only the writer knows which writes may be repeated.
    Each command is bounded by ANSWER_TIMEOUT_SECS and may be cancelled.
    """
    return open_client(url, connect_timeout=CONNECT_TIMEOUT_SECS, answer_timeout=ANSWER_TIMEOUT_SECS)


@contextlib.asynccontextmanager
async def redis_at(url: str) -> AsyncIterator[Client]:
    """A client of the Redis at `url`, for a few commands. If it can't be reached the block raises SinkUnavailable."""
    client = open_redis(url)
    try:
        with as_unavailable(url):
            yield client
    finally:
        await client.aclose()


async def check_writable(url: str, min_replicas: int = 0) -> str:
    """Carries out each kind of write that a run needs, on keys of its own that are gone afterwards.

    In a cluster that is done on each master; each must have `min_replicas` replicas that keep up. Returns the server's
    version, "unknown" if the user may not ask. Raises SinkUnavailable with the reason.
    """
    async with redis_at(url) as client:
        await _write_and_delete(client, min_replicas)
        return await _version(client)


async def _write_and_delete(client: Any, min_replicas: int) -> None:
    for name in await _names(client):
        keys = stream_key(name), last_key(name), heartbeat_key(name), venue_key(name)
        await _write(client, *keys)
        await _wait_for_replicas(client, keys[0], min_replicas)
        for key in keys:
            with contextlib.suppress(ResponseError):  # a run can do without: a user that may not is good enough
                await client.delete(key)


async def _names(client: Client) -> list[str]:
    """Names to write under, lower case, so that no symbol has one: in a cluster, a stream on each master."""
    names = (f"check-{os.getpid()}-{number}" for number in itertools.count())
    if not isinstance(client, ClusterClient):
        return [next(names)]
    await client.find_nodes()
    of_nodes: dict[str, str] = {}
    while len(of_nodes) < len(client.masters()):
        name = next(names)
        of_nodes.setdefault(client.owner(stream_key(name)).name, name)
    return list(of_nodes.values())


async def _write(client: Any, stream: str, last: str, beat: str, venue: str) -> None:
    # each expires by itself if this check can't finish
    await ask_at_once(client, [("XADD", stream, "MAXLEN", "~", 1, "*", "ts", 0), ("EXPIRE", stream, _CHECK_SECS)])
    info = await client.xinfo_stream(stream)
    await client.execute_command("XSETID", stream, info["last-generated-id"])
    await client.xgroup_create(stream, "check", "$")
    await client.xgroup_destroy(stream, "check")
    for key in (last, venue):
        await client.hset(key, "ts", "0")
        await client.expire(key, _CHECK_SECS)
    await client.hmget(last, ["ts", "seq"])
    await client.hget(last, "seq")
    await client.set(beat, 0, ex=_CHECK_SECS)
    await client.get(beat)
    await client.exists(beat)
    await client.pttl(beat)
    await client.pexpire(beat, _CHECK_SECS * 1000)
    await client.eval("return redis.call('GET', KEYS[1])", 1, beat)


async def _wait_for_replicas(client: Any, key: str, wanted: int) -> None:
    if not wanted:
        return
    where = {"target_nodes": client.owner(key)} if isinstance(client, ClusterClient) else {}
    reached = await client.execute_command("WAIT", wanted, WAIT_MS, **where)
    if reached < wanted:
        raise ResponseError(f"{reached} of the {wanted} replicas that IBKR_REDIS_MIN_REPLICAS asks for keep up")


async def _version(client: Any) -> str:
    one_node = {"target_nodes": client.get_default_node()} if isinstance(client, ClusterClient) else {}
    try:
        return str((await client.info("server", **one_node)).get("redis_version", "unknown"))
    except ResponseError:
        return "unknown"
