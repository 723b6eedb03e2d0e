"""Asks the gateway for its time at intervals, to tell a stalled connection from a quiet market.

An open socket proves nothing. Rows that stop coming do not prove a stall either: at night there are none. So a
connection is given up if, for as long as the limit, neither rows came nor the answer to such a question. While rows
come, an unanswered question is asked again. Heartbeats of quiet books rest on the answers.

`StallDetector` decides (pure), `Keepalive` asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum

from ibkr_depth_pipeline.errors import GatewayError
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.logs import get_log

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

    limit: the operator's, in seconds; received(): the number of rows so far; on_answer is called at each answer,
    on_stall once for a connection to give up, on_time with the gateway's time in unix seconds and when it was asked for
    and answered, both by wall_ms.
    """

    def __init__(
        self,
        gateway: TwsGateway,
        limit: float,
        *,
        received: Callable[[], int],
        on_answer: Callable[[], None],
        on_stall: Callable[[], None],
        wall_ms: Callable[[], int],
        on_time: Callable[[int, int, int], None],
    ) -> None:
        self._gateway = gateway
        self._stalls = StallDetector(limit)
        self._received = received
        self._on_answer = on_answer
        self._on_stall = on_stall
        self._wall_ms = wall_ms
        self._on_time = on_time
        self._question: asyncio.Task[None] | None = None
        self._connected = False

    def connected(self) -> None:
        """Begin with a new connection."""
        self._forget_question()
        self._stalls.connected(_now(), self._received())
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
                    self._act(self._stalls.check(_now(), self._received()))
                await asyncio.sleep(self._stalls.interval)
        finally:
            self._forget_question()

    def _act(self, verdict: KeepaliveAction) -> None:
        if verdict is KeepaliveAction.ASK:
            self._forget_question()
            self._question = asyncio.ensure_future(self._ask())
        elif verdict is KeepaliveAction.GIVE_UP:
            row_secs, answer_secs = self._stalls.silent_secs(_now())
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
        self._on_time(unix_secs, asked_ms, self._wall_ms())
        self._stalls.answered(_now())
        self._on_answer()

    def _forget_question(self) -> None:
        if self._question is not None:
            self._question.cancel()
            self._question = None


def _now() -> float:
    return asyncio.get_running_loop().time()
