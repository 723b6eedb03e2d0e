"""The clock that ages are measured by: it never steps, and it runs on while the process or the machine sleeps."""

from __future__ import annotations

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def monotonic() -> float:
    """Seconds since some time in the past."""
    return time.clock_gettime(_CLOCK)
