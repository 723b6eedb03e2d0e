"""Keeps the buffer from running over at full speed: reading rests for moments while a Redis that is well catches up.

A burst that comes faster than Redis stores would fill the buffer and cost snapshots, while the kernel's own buffer for
the gateway's bytes has room. Reading never waits for a Redis that is away, is slow or refuses: it rests only while
flushes are quick and store something, and goes on by itself if the next one takes longer than LONGEST_REST_SECS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LONGEST_REST_SECS = 0.25
"""Between two answers of Redis: short enough for the kernel to hold what comes meanwhile."""


class Backpressure:
    """bound is the buffer's, in bytes: above half of it reading rests, until a quarter is left.

    `rest` and `go_on` stop and resume the reading; both may be called when there is nothing to stop or to resume.
    """

    def __init__(self, bound: int, rest: Callable[[], None], go_on: Callable[[], None]) -> None:
        self.high = bound // 2
        self._low = bound // 4
        self._rest = rest
        self._go_on = go_on
        self._well_until = 0.0  # loop time
        self._timer: asyncio.TimerHandle | None = None

    def pressed(self) -> None:
        """More than `high` bytes wait."""
        loop = asyncio.get_running_loop()
        if self._timer is None and loop.time() < self._well_until:
            self._rest()
            self._timer = loop.call_at(self._well_until, self.relax)

    def flushed(self, secs: float, progress: bool, held: int) -> None:
        """Redis has answered a flush, after so many seconds; so many bytes wait now that it has not just refused.

        progress: whether it has stored snapshots, and not refused all that there were.
        """
        loop = asyncio.get_running_loop()
        if progress and secs < LONGEST_REST_SECS:
            self._well_until = loop.time() + LONGEST_REST_SECS
        if self._timer is not None:
            if held <= self._low:
                self.relax()
            else:
                self._timer.cancel()
                self._timer = loop.call_at(self._well_until, self.relax)

    def relax(self) -> None:
        """Resume reading."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._go_on()
