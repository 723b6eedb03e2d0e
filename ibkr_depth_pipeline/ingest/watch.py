"""Watches over one gateway: asks for its time, lets quiet books live on its answers, gives a stalled connection up.

What to do when is vigil.py's to say; this is its clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ibkr_depth_pipeline.errors import GatewayError
from ibkr_depth_pipeline.gateway.tws import TwsGateway
from ibkr_depth_pipeline.ingest.keepalive import KeepaliveAction, StallDetector
from ibkr_depth_pipeline.logs import get_log


class Keepalive:
    """`run` it beside the recording until it is cancelled; tell it of every new connection.

    limit is the operator's, in seconds; received() the number of rows so far; on_answer is called at each answer,
    on_stall once for a connection that is to be given up. on_time is called with the gateway's time in unix seconds,
    and when it was asked for and answered, both by wall_ms.
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
        self._vigil = StallDetector(limit)
        self._received = received
        self._on_answer = on_answer
        self._on_stall = on_stall
        self._wall_ms = wall_ms
        self._on_time = on_time
        self._question: asyncio.Task[None] | None = None
        self._connected = False

    def connected(self) -> None:
        """A connection stands; what was asked on the one before is forgotten."""
        self._forget_question()
        self._vigil.connected(_now(), self._received())
        self._connected = True

    def disconnected(self) -> None:
        """There is nothing to watch over."""
        self._forget_question()
        self._connected = False

    async def run(self) -> None:
        try:
            while True:
                if self._connected:
                    self._act(self._vigil.look(_now(), self._received()))
                await asyncio.sleep(self._vigil.interval)
        finally:
            self._forget_question()

    def _act(self, verdict: KeepaliveAction) -> None:
        if verdict is KeepaliveAction.ASK:
            self._forget_question()
            self._question = asyncio.ensure_future(self._ask())
        elif verdict is KeepaliveAction.GIVE_UP:
            row_secs, answer_secs = self._vigil.silent_secs(_now())
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
        self._vigil.answered(_now())
        self._on_answer()

    def _forget_question(self) -> None:
        if self._question is not None:
            self._question.cancel()
            self._question = None


def _now() -> float:
    return asyncio.get_running_loop().time()
