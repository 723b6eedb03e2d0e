"""Exponential back-off with a bound and optional jitter. Pure: the caller counts the failures and keeps the time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

_MOST_DOUBLINGS = 60
"""No pause grows further: a float would overflow after some hundreds of failures."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that grow from `first` by `factor` per failure up to `longest`, all in one unit of time."""

    first: float
    longest: float
    factor: float = 2.0

    def pause(self, failures: int) -> float:
        """The pause after that many failures in a row; 0 after none."""
        if failures < 1:
            return 0.0
        return min(self.longest, self.first * self.factor ** min(failures - 1, _MOST_DOUBLINGS))

    def longer(self, pause: float) -> float:
        """The pause that follows `pause`; `first` after 0."""
        return min(max(self.factor * pause, self.first), self.longest)

    def jittered(self, failures: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
        """`pause` with equal jitter: evenly spread from half of it to all of it."""
        pause = self.pause(failures)
        return uniform(pause / 2, pause)
