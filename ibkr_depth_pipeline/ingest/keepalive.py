"""Asks the gateway for its time: distinguishes a stalled connection from a quiet market, and measures the host's clock.

An open socket proves nothing. Rows that stop coming do not prove a stall either: at night there are none. So a
connection is given up if, for as long as the limit, neither rows came nor the answer to such a question. While rows
come, an unanswered question is asked again. Heartbeats of quiet books rest on the answers. `StallDetector` decides
(pure), `Keepalive` asks.

A step of the host's clock is logged, kept beside the streams, and taken out of all ages. `ClockStepDetector` and
`GatewayClock` are pure; `WallClockMonitor` runs beside a recording. `now_ms` is the host's clock in unix ms, `now`
monotonic seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ibkr_depth_pipeline.clock import loop_time, monotonic
from ibkr_depth_pipeline.errors import GatewayError
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.schema.status import ClockFigures
from ibkr_depth_pipeline.sink.status import ClockEntry
from ibkr_depth_pipeline.sink.writer import RedisWriter

LONGEST_INTERVAL_SECS = 5.0
"""The longest interval between questions: heartbeats of quiet books rest on the answers."""


class KeepaliveAction(Enum):
    """What to do with the connection."""

    WAIT = "wait"
    ASK = "ask"  # for the gateway's time
    GIVE_UP = "give up"  # the connection


class StallDetector:
    """Detects stalls of one connection at a time. limit: how long rows and answer may both be missing.

    Call `connected` when a connection begins, `check` every `interval` or so, `answered` when an answer comes. A stall
    is found about `limit` after the last row or, in a quiet market, after it began. `now`: monotonic seconds; `rows`:
    how many were received so far in this run.
    """

    def __init__(self, limit: float) -> None:
        self.interval = min(limit / 4, LONGEST_INTERVAL_SECS)
        self._limit = limit
        self._patience = limit / 2  # for an answer
        self._rows = 0
        self._row_at = 0.0
        self._asked_at: float | None = None  # the oldest unanswered question
        self._ask_at = 0.0

    def connected(self, now: float, rows: int) -> None:
        """Begin with a new connection."""
        self._rows, self._row_at = rows, now
        self._asked_at, self._ask_at = None, now

    def check(self, now: float, rows: int) -> KeepaliveAction:
        """What to do now."""
        if rows != self._rows:
            self._rows, self._row_at = rows, now
        asked_at = now if self._asked_at is None else self._asked_at
        if now - asked_at >= self._patience and now - self._row_at >= self._limit:
            return KeepaliveAction.GIVE_UP
        if now < self._ask_at:
            return KeepaliveAction.WAIT
        self._asked_at, self._ask_at = asked_at, now + 2 * self.interval
        return KeepaliveAction.ASK

    def answered(self, now: float) -> None:
        """Note an answer of the gateway."""
        self._asked_at = None
        self._ask_at = now + self.interval

    def silent_secs(self, now: float) -> tuple[float, float]:
        """For how many seconds no row has come, and the open question has waited."""
        return now - self._row_at, 0.0 if self._asked_at is None else now - self._asked_at


class Keepalive:
    """Keeps one gateway's connection watched; `run` it beside the recording, and call `connected` for each connection.

    Each answer renews the heartbeats of live books: the gateway is there, so quiet books are not dead. `clock` gets the
    gateway's time. limit: the operator's, in seconds; on_stall is called once for a connection to give up.
    """

    def __init__(
        self,
        gateway: TwsGateway,
        limit: float,
        pipeline: DepthPipeline,
        writer: RedisWriter,
        clock: WallClockMonitor,
        *,
        on_stall: Callable[[], None],
        wall_ms: Callable[[], int],
    ) -> None:
        self._gateway = gateway
        self._stalls = StallDetector(limit)
        self._pipeline = pipeline
        self._writer = writer
        self._clock = clock
        self._on_stall = on_stall
        self._wall_ms = wall_ms
        self._question: asyncio.Task[None] | None = None
        self._connected = False

    def connected(self) -> None:
        """Begin with a new connection."""
        self._forget_question()
        self._stalls.connected(loop_time(), self._pipeline.books.received())
        self._connected = True

    def disconnected(self) -> None:
        """Stop until the next connection."""
        self._forget_question()
        self._connected = False

    async def run(self) -> None:
        """Ask and check until cancelled."""
        try:
            while True:
                if self._connected:
                    self._act(self._stalls.check(loop_time(), self._pipeline.books.received()))
                await asyncio.sleep(self._stalls.interval)
        finally:
            self._forget_question()

    def _act(self, verdict: KeepaliveAction) -> None:
        if verdict is KeepaliveAction.ASK:
            self._forget_question()
            self._question = asyncio.ensure_future(self._ask())
        elif verdict is KeepaliveAction.GIVE_UP:
            row_secs, answer_secs = self._stalls.silent_secs(loop_time())
            get_log().warning(
                "gateway_stalled", without_row_secs=round(row_secs, 1), unanswered_secs=round(answer_secs, 1)
            )
            self._on_stall()

    async def _ask(self) -> None:
        asked_ms = self._wall_ms()
        try:
            unix_secs = await self._gateway.server_time(timeout=None)
        except (GatewayError, ConnectionError):  # the loss of the connection is on its way as an event
            return
        self._clock.answered(unix_secs, asked_ms, self._wall_ms())
        self._stalls.answered(loop_time())
        self._renew_heartbeats()

    def _renew_heartbeats(self) -> None:
        books = self._pipeline.lines.live_books()
        for symbol, ts in books.items():
            self._writer.beat(symbol, ts)
        self._pipeline.intervals.heard(books, self._wall_ms())
        get_log().info("heartbeats", symbols=sorted(books), ttl_secs=self._writer.heartbeat_ttl)

    def _forget_question(self) -> None:
        if self._question is not None:
            self._question.cancel()
            self._question = None


# ---- the host's clock


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
