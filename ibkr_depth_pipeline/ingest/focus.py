"""Keeps the symbols in focus pinned: reads what other programs ask for, and hands the changes to the rotation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.ingest.effects import Effect
from ibkr_depth_pipeline.ingest.subscriptions import Subscriptions
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.redis_link.aio import Client
from ibkr_depth_pipeline.redis_link.failures import UNREACHABLE
from ibkr_depth_pipeline.rotation.events import Focused
from ibkr_depth_pipeline.sink.focus import FocusRequest, read_focus

FOCUS_CYCLE_SECS = 1.0
_SYMBOLS_PER_SEC = 1000
"""How often the keys are read: every second, of more than a thousand symbols more rarely."""


class FocusWatcher:
    """`run` it beside the recording. symbols() are those in force; execute carries effects out.

    While Redis is away a focus ends when its time is over.
    """

    def __init__(
        self,
        client: Client,
        subscriptions: Subscriptions,
        symbols: Callable[[], tuple[str, ...]],
        execute: Callable[[Iterable[Effect]], None],
        now: Callable[[], float],
    ) -> None:
        self._client = client
        self._subscriptions = subscriptions
        self._symbols = symbols
        self._execute = execute
        self._now = now
        self._asked: dict[str, str] = {}
        self._ends: dict[str, float] = {}
        self._log = get_log()

    def describe(self) -> dict[str, str]:
        """symbol -> who asked for it, for how many seconds more."""
        now = monotonic()
        return {symbol: f"{by}, {max(0.0, self._ends[symbol] - now):.0f} s left" for symbol, by in self._asked.items()}

    async def run(self) -> None:
        """For ever."""
        while True:
            symbols = self._symbols()
            try:
                self._take(await read_focus(self._client, symbols))
            except UNREACHABLE:
                now = monotonic()
                left = [(symbol, by, self._ends[symbol] - now) for symbol, by in self._asked.items()]
                self._take([FocusRequest(*each) for each in left if each[2] > 0])
            await asyncio.sleep(max(FOCUS_CYCLE_SECS, len(symbols) / _SYMBOLS_PER_SEC))

    def _take(self, requests: list[FocusRequest]) -> None:
        asked = {request.symbol: request.by for request in requests}
        for request in requests:
            if self._asked.get(request.symbol) != request.by:
                self._log.info("focus_began", symbol=request.symbol, by=request.by, secs=round(request.secs))
        for symbol in self._asked.keys() - asked.keys():
            self._log.info("focus_ended", symbol=symbol, by=self._asked[symbol])
        changed = list(asked) != list(self._asked)
        self._asked = asked
        self._ends = {request.symbol: monotonic() + request.secs for request in requests}
        if changed:
            self._execute(self._subscriptions.rotate(Focused(tuple(asked)), self._now()))
