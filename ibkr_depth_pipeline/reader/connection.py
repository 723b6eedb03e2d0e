"""The reader's way to Redis: timeouts, raw replies, errors of our own without secrets, pauses between tries.

redis-py is imported when a reader is made, not when this package is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ibkr_depth_pipeline.errors import SinkUnavailable

CONNECT_TIMEOUT_SECS = 2.0
ANSWER_TIMEOUT_SECS = 5.0
LONGEST_BLOCK_SECS = 1.0
"""For how long one read waits in Redis: well below the time after which an answer is overdue."""

FIRST_PAUSE_SECS = 0.05
LONGEST_PAUSE_SECS = 1.0

_COMMANDS = ("SCAN", "HMGET", "GET", "PTTL", "XRANGE", "XREVRANGE", "XREAD")
_OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": CONNECT_TIMEOUT_SECS,
    "health_check_interval": 0,
    "protocol": 2,
}


def open_client(url: str) -> Any:
    """A client whose replies come as Redis sends them. Raises ValueError where `url` is none that redis-py knows."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return _raw(_made(redis.Redis.from_url, url, Retry(NoBackoff(), 0), ANSWER_TIMEOUT_SECS))


def open_async_client(url: str) -> Any:
    """See `open_client`, but whoever awaits its commands bounds them by ANSWER_TIMEOUT_SECS.

    With a socket_timeout redis-py sends through asyncio.wait_for, which before Python 3.12 may swallow a cancellation
    (cpython issue 86296): the caller would wait for ever.
    """
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return _raw(_made(redis.asyncio.Redis.from_url, url, Retry(NoBackoff(), 0), None))


def _made(make: Callable[..., Any], url: str, retry: Any, answer_timeout: float | None) -> Any:
    try:
        return make(url, retry=retry, socket_timeout=answer_timeout, **_OPTIONS)
    except ValueError:  # its text may hold a part of the password
        raise ValueError("no Redis URL: redis://[user:password@]host[:port][/db], rediss://... or unix://...") from None


def _raw(client: Any) -> Any:
    for command in _COMMANDS:
        client.set_response_callback(command, _as_it_is)
    return client


def _as_it_is(reply: Any, **_options: Any) -> Any:
    return reply


def unreachable() -> tuple[type[Exception], ...]:
    """What redis-py raises when a command could not be carried out, or its answer is unknown."""
    from redis.exceptions import RedisError

    return (RedisError, OSError, TimeoutError, asyncio.TimeoutError)  # the last two are one from Python 3.11 on


def passes(error: Exception) -> bool:
    """Whether trying again may help: the way to Redis is broken or it is loading, and it is not that it refuses us."""
    from redis.exceptions import AuthenticationError, AuthorizationError, ConnectionError, ReadOnlyError, TimeoutError

    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return False
    return isinstance(error, (ConnectionError, TimeoutError, ReadOnlyError, OSError, asyncio.TimeoutError))


def unavailable(client: Any, error: Exception) -> SinkUnavailable:
    """`error` as ours, with the server's address and without a password."""
    where = client.connection_pool.connection_kwargs
    address = where.get("path") or f"{where.get('host', 'localhost')}:{where.get('port', 6379)}"
    return SinkUnavailable(f"Redis at {address}: {str(error) or type(error).__name__}")


@dataclass
class Outage:
    """How often to try while Redis is away, and when to give up. Times are seconds of a clock that only goes forward.

    patience None never gives up.
    """

    patience: float | None
    began: float | None = None
    pause: float = 0.0

    def failed(self, now: float) -> float | None:
        """A try failed: the pause before the next one, None where patience is at an end."""
        self.began = now if self.began is None else self.began
        if self.patience is not None and now - self.began >= self.patience:
            return None
        self.pause = min(max(2 * self.pause, FIRST_PAUSE_SECS), LONGEST_PAUSE_SECS)
        return self.pause

    def over(self) -> bool:
        """A try went well. Returns whether others had failed before it."""
        was_away = self.began is not None
        self.began, self.pause = None, 0.0
        return was_away
