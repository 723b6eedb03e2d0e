"""Watches the host's clock beside a recording: a step is logged, kept beside the streams, and taken out of all ages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.ingest.wall_clock import STEP_MS, ClockStepDetector, GatewayClock
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.schema.status import ClockFigures
from ibkr_depth_pipeline.sink.clock_journal import ClockEntry

LOOK_SECS = 1.0


class WallClockMonitor:
    """`run` it beside the recording. wall_ms is the host's clock; note(entry) keeps an entry beside the streams."""

    def __init__(self, wall_ms: Callable[[], int], pipeline: DepthPipeline, note: Callable[[ClockEntry], None]) -> None:
        self._wall_ms = wall_ms
        self._pipeline = pipeline
        self._note = note
        self._watch = ClockStepDetector(wall_ms(), monotonic())
        self._gateway = GatewayClock()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECS)

    def look(self) -> None:
        """Find out whether the clock was set since the last look."""
        now_ms = self._wall_ms()
        step_ms = self._watch.look(now_ms, monotonic())
        if not step_ms:
            return
        self._pipeline.clock_stepped(step_ms)
        self._gateway.forget()
        stands_until = self._pipeline.stands_until(now_ms)
        stands_secs = max(0, stands_until - now_ms) / 1000
        get_log().error("clock_step", secs=step_ms / 1000, ts_stands_secs=stands_secs)
        self._note(ClockEntry(now_ms, step_ms, stands_until))

    def taken_over(self) -> None:
        """The numbering goes on behind the streams' newest ids: a `ts` that is ahead of the clock stands until then."""
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
        """The gateway told its time."""
        self._gateway.answered(unix_secs, asked_ms, answered_ms, monotonic())

    def figures(self) -> ClockFigures:
        """As they are now."""
        self.look()
        now_ms, offset = self._wall_ms(), self._gateway.offset
        return ClockFigures(
            steps=self._watch.steps,
            step_ms=self._watch.newest_step_ms(monotonic()),
            ts_ahead_ms=max(0, self._pipeline.stands_until(now_ms + STEP_MS) - now_ms),
            gateway_ms=round(offset.ms) if offset else None,
            gateway_error_ms=round(offset.error_ms) if offset else None,
        )
