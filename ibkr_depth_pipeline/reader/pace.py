"""What the two followings share: what waits to be handed over, how long to wait, when to give up. No I/O."""

from __future__ import annotations

import logging
import time
from collections import deque

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.reader import connection
from ibkr_depth_pipeline.reader.following import Following
from ibkr_depth_pipeline.reader.model import Item
from ibkr_depth_pipeline.redis_link.url import RedisTarget

_log = logging.getLogger(__name__)


class Pace:
    """Of one following of the Redis `target`. patience: the longest outage in seconds, None for any."""

    def __init__(self, target: RedisTarget, following: Following, patience: float | None) -> None:
        self._target = target
        self._following = following
        self._outage = connection.Outage(0.0)  # at the beginning Redis must be there
        self._patience = patience
        self._waiting: deque[Item] = deque()

    def _handed_over(self) -> list[Item]:
        items = list(self._waiting)
        self._waiting.clear()
        return items

    def _until(self, wait: float | None) -> float | None:
        return None if wait is None else time.monotonic() + wait

    def _left(self, until: float | None) -> float:
        """How long one look may take, so that the end is not missed."""
        left = connection.LONGEST_BLOCK_SECS if until is None else until - time.monotonic()
        return max(0.0, min(left, connection.LONGEST_BLOCK_SECS))

    def _is_over(self, until: float | None) -> bool:
        return until is not None and time.monotonic() >= until

    def _looked(self, items: list[Item]) -> list[Item]:
        """A look went well, or, of a cluster, parts of it. Raises SinkUnavailable where those are away for too long."""
        if self._following.trouble is not None:
            try:
                self._pause_after(self._following.trouble)
            except SinkUnavailable:
                self._waiting.extend(items)  # for who goes on all the same
                raise
            return items
        if self._outage.over():
            _log.info("Redis is back")
        self._outage.patience = self._patience
        return items

    def _pause_after(self, error: Exception) -> float:
        """How long to wait after `error`. Raises SinkUnavailable where that does not help or patience is at an end."""
        pause = self._outage.failed(time.monotonic()) if connection.passes(error) else None
        problem = connection.unavailable(self._target, error)
        if pause is None:
            raise problem from None
        if pause == connection.FIRST_PAUSE_SECS:
            _log.warning("%s; trying again until it is back", problem)
        return pause
