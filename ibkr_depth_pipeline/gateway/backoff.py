"""The pace of connections to a gateway that does not answer. Pure: the time is an argument, the jitter is given."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_PAUSE_SECS = 0.1
QUICK_PHASE_SECS = 30.0
"""How long connections are tried in quick succession: most gateways that go away for a moment are back by then."""

REFUSED_PAUSE_SECS = 5.0
"""Longest pause where nothing listens: a refused TCP connection costs no gateway anything, and is noticed at once."""


class ConnectBackoff:
    """How long the pauses between two connections are, in seconds, with equal jitter (from half of it to all of it).

    For QUICK_PHASE_SECS from `begin` on they double from 0.2 s up to `quick`; from then on each doubles, from twice
    `quick` up to `slow`, and stays there. A pause after a TCP connection that was refused is bounded by `of_refused`.
    The first connection that is accepted after nothing had listened for longer than the quick phase begins it anew,
    once: a gateway that has just started is had within seconds.
    """

    def __init__(self, quick: float, slow: float, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._quick = quick
        self._slow = max(quick, slow)
        self._jitter = jitter
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """The gateway is lost, or was never had: the quick phase."""
        self._began = now
        self._tries = 0
        self._slow_tries = 0
        self._only_refused = True

    def accepted(self, now: float) -> None:
        """A connection was accepted, whatever became of it."""
        if self._only_refused and now - self._began > QUICK_PHASE_SECS:
            self.begin(now)
        self._only_refused = False

    def pause(self, now: float) -> float:
        """From the connection that is opened now to the next one."""
        if now - self._began < QUICK_PHASE_SECS:
            self._tries += 1
            longest = min(self._quick, FIRST_PAUSE_SECS * 2.0 ** min(self._tries, 20))
        else:
            self._slow_tries += 1
            longest = min(self._slow, self._quick * 2.0 ** min(self._slow_tries, 20))
        return self._jitter(longest / 2, longest)

    def of_refused(self, pause: float) -> float:
        """That pause, where nothing listens."""
        return min(pause, max(self._quick, REFUSED_PAUSE_SECS))
