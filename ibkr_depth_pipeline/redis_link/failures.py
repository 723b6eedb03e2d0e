"""What redis-py's exceptions mean here: lost, refused, redirected, worth another try."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ClusterError,
    ConnectionError,
    MovedError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as NoAnswer

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.redis_link.routing import Redirect
from ibkr_depth_pipeline.redis_link.url import mask_url

UNREACHABLE = (RedisError, RedisClusterException, OSError, TimeoutError, asyncio.TimeoutError)
"""Raised when a command could not be carried out, or its answer is unknown."""

LOST = (ConnectionError, NoAnswer, ClusterDownError, OSError)
"""After one of these a cluster may look different."""

_PASSING = (ConnectionError, NoAnswer, ReadOnlyError, OSError, asyncio.TimeoutError)
_PASSING_IN_CLUSTERS = (RedisClusterException, ClusterError, AskError, TryAgainError)


def is_passing(error: Exception) -> bool:
    """Whether another try may help: the way to Redis is broken, it is loading or without a master, or another node has
    the key; not if it refuses the user."""
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return False
    return isinstance(error, _PASSING + _PASSING_IN_CLUSTERS)


def is_deposed(refused: ResponseError) -> bool:
    """Whether a server refuses a write because it is a replica, or lacks replicas: another may be master by now."""
    return isinstance(refused, ReadOnlyError) or any(code in str(refused) for code in ("READONLY", "NOREPLICAS"))


def redirect_of(reply: Any) -> Redirect | None:
    """The redirect that a reply is, MOVED or ASK; None for any other."""
    if not isinstance(reply, AskError):  # MovedError is one, too
        return None
    return Redirect(reply.host, reply.port, isinstance(reply, MovedError))


def refused(replies: list[Any]) -> Exception | None:
    """The first exception among replies."""
    return next((reply for reply in replies if isinstance(reply, Exception)), None)


def text_of(error: BaseException) -> str:
    """The error in words: its own, or the name of its type if it has none."""
    return str(error) or type(error).__name__


def unavailable(error: BaseException, url: str = "") -> SinkUnavailable:
    """Redis, at `url` if one is given, could not be asked, for `error`. No password shows."""
    where = f"Redis at {mask_url(url)}" if url else "Redis"
    return SinkUnavailable(f"{where}: {text_of(error)}")


@contextmanager
def as_unavailable(url: str = "") -> Iterator[None]:
    """What is in UNREACHABLE leaves the block as SinkUnavailable. See `unavailable`."""
    try:
        yield
    except UNREACHABLE as error:
        raise unavailable(error, url) from None
