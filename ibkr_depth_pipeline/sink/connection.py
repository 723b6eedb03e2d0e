"""One way to a Redis: timeouts, no hidden retries, errors of our own without secrets."""

from __future__ import annotations

import os

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.settings import mask_url
from ibkr_depth_pipeline.sink.keys import PREFIX

CONNECT_TIMEOUT_SECS = 2.0
ANSWER_TIMEOUT_SECS = 5.0

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
    """Write, read and delete a key of ours. Returns the server's version; raises SinkUnavailable with the reason."""
    client = open_redis(url)
    key = f"{PREFIX}:check:{os.getpid()}"
    try:
        await client.set(key, "1", ex=10)
        await client.delete(key)
        info = await client.info("server")
        return str(info.get("redis_version", "unknown"))
    except UNREACHABLE as error:
        raise SinkUnavailable(f"Redis at {mask_url(url)}: {error}") from None
    finally:
        await client.aclose()
