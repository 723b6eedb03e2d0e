"""One way to a Redis: timeouts, no hidden retries, errors of our own without secrets."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.settings import mask_url
from ibkr_depth_pipeline.sink.keys import heartbeat_key, last_key, stream_key, venue_key

CONNECT_TIMEOUT_SECS = 2.0
ANSWER_TIMEOUT_SECS = 5.0
_CHECK_SECS = 10

UNREACHABLE = (RedisError, OSError, TimeoutError)
"""What redis-py raises when a command could not be carried out or its answer is unknown."""


def open_redis(url: str) -> redis.Redis:
    """A client for `url`; connects at the first command.

    It never repeats a command by itself: only the writer knows which writes may be said twice.
    """
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_SECS,
        socket_timeout=ANSWER_TIMEOUT_SECS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )


async def check_writable(url: str) -> str:
    """Carry out each kind of write that a run needs, on keys of our own that are gone afterwards.

    Returns the server's version, "unknown" where the user may not ask. Raises SinkUnavailable with the reason.
    """
    client = open_redis(url)
    try:
        await _write_and_delete(client)
        return await _version(client)
    except UNREACHABLE as error:
        raise SinkUnavailable(f"Redis at {mask_url(url)}: {str(error) or type(error).__name__}") from None
    finally:
        await client.aclose()


async def _write_and_delete(client: Any) -> None:
    name = f"check-{os.getpid()}"  # lower case: no symbol has this name
    stream, last, beat, venue = keys = stream_key(name), last_key(name), heartbeat_key(name), venue_key(name)
    pipe = client.pipeline(transaction=True)
    pipe.xadd(stream, {"ts": 0}, maxlen=1, approximate=True)
    pipe.expire(stream, _CHECK_SECS)  # each goes by itself where this check can't finish
    await pipe.execute()
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
    with contextlib.suppress(ResponseError):  # a run can do without: a user that may not is good enough
        await client.delete(*keys)


async def _version(client: redis.Redis) -> str:
    try:
        return str((await client.info("server")).get("redis_version", "unknown"))
    except ResponseError:
        return "unknown"
