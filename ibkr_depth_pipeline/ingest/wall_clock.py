"""The host's clock: its steps, and how far it is from the gateway's clock.

A step is logged, kept beside the streams, and taken out of all ages. `ClockStepDetector` and `GatewayClock` are pure;
`WallClockMonitor` runs beside a recording. `now_ms` is the host's clock in unix ms, `now` monotonic seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.schema.status import ClockFigures
from ibkr_depth_pipeline.sink.clock_journal import ClockEntry

CHECK_SECS = 1.0
"""How often the clock is checked."""

STEP_MS = 1000
"""A clock that gains or loses more than this between two checks was set; less is a correction."""

SHOWN_SECS = 600.0
"""How long the figures show a step."""

WINDOW_SECS = 60.0
"""How often the offset of the gateway's clock is measured from scratch."""


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

    def check(self, now_ms: int, now: float) -> int:
        """By how many ms the clock was set since the last check; 0: it was not."""
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
    """Measures the gateway's clock against the host's, by its answers to current-time questions.

    An answer of t whole seconds was given from t to t + 1, after the question and before the answer came. So each
    bounds the offset to a second and the round trip; the answers of a minute bound it further together.
    """

    def __init__(self) -> None:
        self._bounds: tuple[float, float] | None = None
        self._began = 0.0

    def answered(self, unix_secs: int, asked_ms: int, answered_ms: int, now: float) -> None:
        """Note the answer `unix_secs`; asked_ms and answered_ms are by the host's clock."""
        low, high = 1000.0 * unix_secs - answered_ms, 1000.0 * (unix_secs + 1) - asked_ms
        if self._bounds is not None and now - self._began < WINDOW_SECS:
            both = max(low, self._bounds[0]), min(high, self._bounds[1])
            if both[0] <= both[1]:
                self._bounds = both
                return
        self._bounds, self._began = (low, high), now

    def forget(self) -> None:
        """Forget the answers: the host's clock was set."""
        self._bounds = None

    @property
    def offset(self) -> ClockOffset | None:
        """The offset; None before the first answer."""
        if self._bounds is None:
            return None
        low, high = self._bounds
        return ClockOffset((low + high) / 2, (high - low) / 2)


class WallClockMonitor:
    """Watches the host's clock; `run` it beside the recording. note(entry) keeps an entry beside the streams."""

    def __init__(self, wall_ms: Callable[[], int], pipeline: DepthPipeline, note: Callable[[ClockEntry], None]) -> None:
        self._wall_ms = wall_ms
        self._pipeline = pipeline
        self._note = note
        self._steps = ClockStepDetector(wall_ms(), monotonic())
        self._gateway = GatewayClock()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            self.check()
            await asyncio.sleep(CHECK_SECS)

    def check(self) -> None:
        """Find out whether the clock was set since the last check."""
        now_ms = self._wall_ms()
        step_ms = self._steps.check(now_ms, monotonic())
        if not step_ms:
            return
        self._pipeline.clock_stepped(step_ms)
        self._gateway.forget()
        stands_until = self._pipeline.stands_until(now_ms)
        stands_secs = max(0, stands_until - now_ms) / 1000
        get_log().error("clock_step", secs=step_ms / 1000, ts_stands_secs=stands_secs)
        self._note(ClockEntry(now_ms, step_ms, stands_until))

    def taken_over(self) -> None:
        """Log streams whose newest ids are ahead of the clock: their `ts` stands until then."""
        now_ms = self._wall_ms()
        ahead = self._pipeline.symbols_ahead(now_ms + STEP_MS)
        if not ahead:
            return
        stands_until = self._pipeline.stands_until(now_ms)
        get_log().error(
            "streams_ahead",
            symbols=ahead[:20],
            count=len(ahead),
            ts_stands_secs=(stands_until - now_ms) / 1000,
            hint="their newest ids are later than this host's clock; docs/redis-schema.md: Ids ahead of the clock",
        )
        self._note(ClockEntry(now_ms, 0, stands_until))

    def answered(self, unix_secs: int, asked_ms: int, answered_ms: int) -> None:
        """Note the gateway's time."""
        self._gateway.answered(unix_secs, asked_ms, answered_ms, monotonic())

    def figures(self) -> ClockFigures:
        """The figures as they are now."""
        self.check()
        now_ms, offset = self._wall_ms(), self._gateway.offset
        return ClockFigures(
            steps=self._steps.steps,
            step_ms=self._steps.newest_step_ms(monotonic()),
            ts_ahead_ms=max(0, self._pipeline.stands_until(now_ms + STEP_MS) - now_ms),
            gateway_ms=round(offset.ms) if offset else None,
            gateway_error_ms=round(offset.error_ms) if offset else None,
        )
