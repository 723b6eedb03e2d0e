"""The reader's way to Redis: timeouts, raw replies, errors of our own without secrets, pauses between tries.

redis-py is imported when a reader is made, not when this package is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.redis_link.commands import Command
from ibkr_depth_pipeline.redis_link.url import Kind, RedisTarget, parse_redis_url

if TYPE_CHECKING:
    from ibkr_depth_pipeline.redis_link.blocking import BlockingLink

CONNECT_TIMEOUT_SECS = 2.0
ANSWER_TIMEOUT_SECS = 5.0
LONGEST_BLOCK_SECS = 1.0
"""For how long one read waits in Redis: well below the time after which an answer is overdue."""

LOOK_SECS = 0.02
"""How often a cluster is asked for news: no command of it waits for keys of different slots."""

FIRST_PAUSE_SECS = 0.05
LONGEST_PAUSE_SECS = 1.0

_FORMS = (
    "redis://[user:password@]host[:port][/db], unix://path, redis+sentinel://host[:port][,...]/name or "
    "redis+cluster://host[:port][,...], and rediss for TLS"
)


def target_of(url: str) -> RedisTarget:
    """What `url` means. Raises ValueError, without a part of it, where it is none that is known."""
    try:
        return parse_redis_url(url)
    except ValueError as reason:
        raise ValueError(f"no Redis URL: {reason}; it may be {_FORMS}") from None


def is_apart(target: RedisTarget) -> bool:
    """Whether no command can ask for keys of two symbols."""
    return target.kind is Kind.CLUSTER


def open_link(target: RedisTarget) -> BlockingLink:
    """For programs without an event loop; connects at the first command."""
    from ibkr_depth_pipeline.redis_link.blocking import open_link as opened

    return opened(target, connect_timeout=CONNECT_TIMEOUT_SECS, answer_timeout=ANSWER_TIMEOUT_SECS)


class AsyncLink:
    """As BlockingLink, awaited. Any of its commands may be cancelled."""

    def __init__(self, url: str) -> None:
        from ibkr_depth_pipeline.redis_link import asking, awaited

        self._asking = asking
        self._client: Any = awaited.open_client(
            url, connect_timeout=CONNECT_TIMEOUT_SECS, answer_timeout=ANSWER_TIMEOUT_SECS
        )

    async def ask_each(self, commands: Sequence[Command]) -> list[Any]:
        return await self._asking.ask_each(self._client, commands)

    def keys(self, pattern: str) -> AsyncIterator[bytes]:
        found: AsyncIterator[bytes] = self._client.scan_iter(match=pattern, count=1_000)
        return found

    async def aclose(self) -> None:
        await self._client.aclose()


def unreachable() -> tuple[type[Exception], ...]:
    """What redis-py raises when a command could not be carried out, or its answer is unknown."""
    from redis.exceptions import RedisClusterException, RedisError

    # the last two are one from Python 3.11 on
    return (RedisError, RedisClusterException, OSError, TimeoutError, asyncio.TimeoutError)


def passes(error: Exception) -> bool:
    """Whether trying again may help: the way to Redis is broken, it is loading or without a master, or another node has
    the key; and it is not that it refuses us."""
    from redis import exceptions as known

    if isinstance(error, (known.AuthenticationError, known.AuthorizationError)):
        return False
    passing = (known.ConnectionError, known.TimeoutError, known.ReadOnlyError, OSError, asyncio.TimeoutError)
    in_clusters = (known.RedisClusterException, known.ClusterError, known.AskError, known.TryAgainError)
    return isinstance(error, passing + in_clusters)


def unavailable(target: RedisTarget, error: Exception) -> SinkUnavailable:
    """`error` as ours, with the server's address and without a password."""
    return SinkUnavailable(f"Redis at {target.address}: {str(error) or type(error).__name__}")


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
