"""The clocks of the package: unix milliseconds for what is stored, a monotonic clock for ages and deadlines."""

from __future__ import annotations

import asyncio
import time
from functools import partial

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

monotonic = partial(time.clock_gettime, _CLOCK)
"""Seconds since some time in the past. It never steps, and runs on while the process or the machine sleeps.

A partial, since it is called per row: half the cost of a function.
"""


def unix_ms() -> int:
    """The machine's time in unix milliseconds. It may step."""
    return time.time_ns() // 1_000_000


def loop_time() -> float:
    """Seconds by the running event loop's own clock, which its timers use."""
    return asyncio.get_running_loop().time()
