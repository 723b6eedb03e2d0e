"""Steps of the host's clock, and how far it is from the gateway's. Pure.

`now_ms` is the host's clock in unix ms, `now` a clock that never steps, in seconds (monotonic.monotonic).
"""

from __future__ import annotations

from dataclasses import dataclass

STEP_MS = 1000
"""A clock that gains or loses more than this between two looks was set; what is less is a clock that is corrected."""

SHOWN_SECS = 600.0
"""For so long after a step the figures show it."""

WINDOW_SECS = 60.0
"""How far the gateway's clock is, is measured anew this often."""


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """The gateway's clock minus the host's: `ms`, give or take `error_ms`."""

    ms: float
    error_ms: float


class ClockStepDetector:
    """Finds steps of the host's clock. `steps` counts them."""

    def __init__(self, now_ms: int, now: float) -> None:
        self._epoch_ms = now_ms - now * 1000
        self._step_ms = 0
        self._stepped = 0.0
        self.steps = 0

    def look(self, now_ms: int, now: float) -> int:
        """By how many ms the clock was set since the last look; 0 if it was not."""
        before, self._epoch_ms = self._epoch_ms, now_ms - now * 1000
        step_ms = round(self._epoch_ms - before)
        if abs(step_ms) <= STEP_MS:
            return 0
        self.steps += 1
        self._step_ms, self._stepped = step_ms, now
        return step_ms

    def newest_step_ms(self, now: float) -> int:
        """The newest step, for SHOWN_SECS after it; then 0."""
        return self._step_ms if self.steps and now - self._stepped < SHOWN_SECS else 0


class GatewayClock:
    """How far the gateway's clock is from the host's, from its answers to current-time questions.

    An answer of t whole seconds was given at some time from t to t + 1, after it was asked for and before it came. So
    each bounds the offset to a second and the round trip; the answers of a minute bound it further together.
    """

    def __init__(self) -> None:
        self._bounds: tuple[float, float] | None = None
        self._began = 0.0

    def answered(self, unix_secs: int, asked_ms: int, answered_ms: int, now: float) -> None:
        """The gateway answered `unix_secs`; asked_ms and answered_ms are by the host's clock."""
        low, high = 1000.0 * unix_secs - answered_ms, 1000.0 * (unix_secs + 1) - asked_ms
        if self._bounds is not None and now - self._began < WINDOW_SECS:
            both = max(low, self._bounds[0]), min(high, self._bounds[1])
            if both[0] <= both[1]:
                self._bounds = both
                return
        self._bounds, self._began = (low, high), now

    def forget(self) -> None:
        """The host's clock was set."""
        self._bounds = None

    @property
    def offset(self) -> ClockOffset | None:
        """None before the first answer."""
        if self._bounds is None:
            return None
        low, high = self._bounds
        return ClockOffset((low + high) / 2, (high - low) / 2)
