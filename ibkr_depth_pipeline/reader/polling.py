"""Following as a query: what waits to be handed over, how long to wait, what an outage means, when to give up.

redis-py is imported when a step fails, not when this package is.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Any

from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.reader.following import Following
from ibkr_depth_pipeline.reader.model import IntervalItem
from ibkr_depth_pipeline.reader.selection import Pause, Query
from ibkr_depth_pipeline.redis_link.url import Kind, RedisTarget

LONGEST_BLOCK_SECS = 1.0
"""For how long one read waits in Redis: well below the time after which an answer is overdue."""

POLL_SECS = 0.02
"""How often a cluster is asked for news: no command of it waits for keys of different slots."""

RETRIES = Backoff(0.05, 1.0)

_log = logging.getLogger(__name__)


def unreachable() -> tuple[type[Exception], ...]:
    """What redis-py raises when a command could not be carried out, or its answer is unknown."""
    from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE

    return UNREACHABLE


def unavailable(target: RedisTarget, error: Exception) -> SinkUnavailable:
    """`error` as ours, with the server's address and without a password."""
    return SinkUnavailable(f"Redis at {target.address}: {str(error) or type(error).__name__}")


@dataclass
class RetryPolicy:
    """How often to try while Redis is away, and when to give up. Times are seconds of a clock that only goes forward.

    patience None never gives up.
    """

    patience: float | None
    began: float | None = None
    pause: float = 0.0

    def failed(self, now: float) -> float | None:
        """A try failed: the pause before the next one, None if patience is at an end."""
        self.began = now if self.began is None else self.began
        if self.patience is not None and now - self.began >= self.patience:
            return None
        self.pause = RETRIES.longer(self.pause)
        return self.pause

    def over(self) -> bool:
        """A try went well. Returns whether others had failed before it."""
        was_away = self.began is not None
        self.began, self.pause = None, 0.0
        return was_away


class Polling:
    """One following of the Redis `target`. patience: the longest outage in seconds, None for any.

    A query that is given up half-way loses nothing.
    """

    def __init__(self, target: RedisTarget, following: Following, patience: float | None) -> None:
        self._target = target
        self._following = following
        self._retries = RetryPolicy(0.0)  # at the beginning Redis must be there
        self._patience = patience
        self._waiting: deque[IntervalItem] = deque()

    def read(self, timeout: float | None) -> Query[list[Any]]:
        """All that has come since the last read; waits for it at most `timeout` seconds, None without end."""
        if self._waiting:
            items = list(self._waiting)
            self._waiting.clear()
            return items
        until = None if timeout is None else monotonic() + timeout
        while True:
            left = LONGEST_BLOCK_SECS if until is None else until - monotonic()
            items = yield from self._try(max(0.0, min(left, LONGEST_BLOCK_SECS)))
            if items or (until is not None and monotonic() >= until):
                return items

    def next_item(self) -> Query[Any]:
        """The next item, as soon as there is one."""
        while not self._waiting:
            self._waiting.extend((yield from self._try(LONGEST_BLOCK_SECS)))
        return self._waiting.popleft()

    def _try(self, wait: float) -> Query[list[IntervalItem]]:
        """One try; a failed one costs a pause, at most `wait` seconds."""
        try:
            if self._target.kind is Kind.CLUSTER:
                return self._taken((yield from self._poll(wait)))
            return self._taken((yield from self._following.read(max(1, round(wait * 1000)))))
        except unreachable() as error:
            pause = self._pause_after(error)
        yield Pause(min(wait, pause))
        return []

    def _poll(self, wait: float) -> Query[list[IntervalItem]]:
        """Asks a cluster again and again until there is something."""
        until = monotonic() + wait
        if self._following.trouble is not None:
            yield Pause(min(wait, RETRIES.first))
        while True:
            items = yield from self._following.read_apart()
            left = until - monotonic()
            if items or self._following.trouble is not None or left <= 0:
                return items
            yield Pause(min(left, POLL_SECS))

    def _taken(self, items: list[IntervalItem]) -> list[IntervalItem]:
        """A try went well, or, of a cluster, parts of it. Raises SinkUnavailable if those are away for too long."""
        if self._following.trouble is not None:
            try:
                self._pause_after(self._following.trouble)
            except SinkUnavailable:
                self._waiting.extend(items)  # for a caller who goes on all the same
                raise
            return items
        if self._retries.over():
            _log.info("Redis is back")
        self._retries.patience = self._patience
        return items

    def _pause_after(self, error: Exception) -> float:
        """How long to wait after `error`. Raises SinkUnavailable if that does not help or patience is at an end."""
        from ibkr_depth_pipeline.redis_link.failures import is_passing

        pause = self._retries.failed(monotonic()) if is_passing(error) else None
        problem = unavailable(self._target, error)
        if pause is None:
            raise problem from None
        if pause == RETRIES.first:
            _log.warning("%s; trying again until it is back", problem)
        return pause
