"""The one reader behind every viewer: polls the universe, follows what is watched, publishes both."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from ibkr_depth_pipeline.clock import monotonic, unix_ms
from ibkr_depth_pipeline.errors import SchemaMismatch, SinkUnavailable
from ibkr_depth_pipeline.reader import AsyncDepthReader
from ibkr_depth_pipeline.schema.health import INGEST_HEARTBEAT_TTL_SECS
from ibkr_depth_pipeline.tui.observed import JOIN_MS
from ibkr_depth_pipeline.tui.poller import Poller
from ibkr_depth_pipeline.tui.state import Lanes, WatchState
from ibkr_depth_pipeline.tui.turn_record import TurnRecord
from ibkr_depth_pipeline.web.messages import alerts_message, lanes_message, state_message
from ibkr_depth_pipeline.web.symbol_feed import SymbolFeed
from ibkr_depth_pipeline.web.tiles import Tiles
from ibkr_depth_pipeline.web.viewers import ALERTS, LANES, STATE, Viewer, Viewers

POLL_SECS = 0.5
WATCHED_SHARE, UNWATCHED_SHARE = 0.2, 0.05
"""The part of the time that polling may take: while somebody watches, and while nobody does."""

LONGEST_POLL_SECS = 5.0
OVERDUE_SECS = 1.5
"""After so long without an answer the page says that Redis does not answer."""

_UNWATCHED_SECS = 2.0
_CLOCKS_DIFFER_MS = 1_000


class MarketFeed:
    """Reads the Redis at `url` and the ingest `name` (IBKR_GATEWAY_NAME), and publishes to `viewers`."""

    def __init__(self, url: str, name: str, viewers: Viewers) -> None:
        self._poller = Poller(url, name)
        self._reader = AsyncDepthReader(url)
        self._viewers = viewers
        self._state = WatchState(unix_ms(), problem="Redis has not answered yet")
        self._asked_at: float | None = None  # since when a poll has been under way
        self._took = 0.0
        self._offset_ms = 0
        self._record = TurnRecord()
        self._lanes: Lanes = {}
        self._feeds: dict[str, tuple[SymbolFeed, asyncio.Task[None]]] = {}
        self.tiles = Tiles(self._reader, self._known_until)

    async def run(self) -> None:
        """Read and publish until cancelled."""
        try:
            await asyncio.gather(self._poll(), self._publish())
        finally:
            await self._stop(list(self._feeds))
            await self._poller.aclose()
            await self._reader.aclose()

    def watch(self, viewer: Viewer, symbol: str) -> None:
        """Let the viewer have the symbol's frames; "" for none. They begin once the symbol is known."""
        viewer.watch(symbol)
        if symbol in self._feeds:
            self._feeds[symbol][0].publish_again()
        else:
            self._follow_watched()

    def _follow_watched(self) -> None:
        """Begin to follow what somebody watches."""
        for symbol in self._viewers.symbols - self._feeds.keys():
            if self.knows(symbol):
                feed = SymbolFeed(self._reader, symbol, self._viewers.publish_frame, self._record, self._now_ms)
                self._feeds[symbol] = (feed, asyncio.ensure_future(feed.run()))

    def knows(self, symbol: str) -> bool:
        """Whether it is a symbol of the universe or has a stream."""
        return self._state.line(symbol) is not None

    async def _poll(self) -> None:
        while True:
            began = self._asked_at = monotonic()
            try:
                self._take(await self._poller.poll())
                await self._read_turns()
            except SchemaMismatch as error:
                self._take(self._state.aged(unix_ms(), str(error)))
            self._follow_watched()
            self._asked_at, self._took = None, monotonic() - began
            await self._rest(self._took)

    async def _rest(self, took: float) -> None:
        """Pause after a poll that took so long; large universes are polled less often, their ingest is not."""
        began = monotonic()
        while (left := began + self._pause(took) - monotonic()) > 0:
            await asyncio.sleep(min(POLL_SECS, left))
            if left > POLL_SECS and len(self._viewers):
                await self._read_ingest()

    def _pause(self, took: float) -> float:
        least, share = (POLL_SECS, WATCHED_SHARE) if len(self._viewers) else (_UNWATCHED_SECS, UNWATCHED_SHARE)
        return min(LONGEST_POLL_SECS, max(least, took / share - took))

    async def _read_ingest(self) -> None:
        """Publish at once if the ingest, or its gateway, has gone or come back."""
        health = self._state.health
        if health is None:
            return
        self._asked_at = monotonic()
        with suppress(SinkUnavailable):
            feed = await self._poller.poll_ingest()
            if feed.problem != health.feed.problem:
                self._take(replace(self._state, health=replace(health, feed=feed)))
        self._asked_at = None

    def _take(self, state: WatchState) -> None:
        before, self._state = self._state, state
        self._offset_ms = _clock_offset(state)
        self._viewers.publish(STATE, state_message(state, self._now_ms()))
        if state.alerts is not before.alerts or (not state.problem and ALERTS not in self._viewers.kept):
            self._viewers.publish(ALERTS, alerts_message(state.alerts, self._now_ms()))

    async def _read_turns(self) -> None:
        symbols = [line.symbol for line in self._state.lines]
        if not symbols or self._state.problem:
            return
        try:
            news = await self._reader.turns_since(self._record.cursors(symbols, self._now_ms()))
        except SinkUnavailable:
            return  # the next poll says so
        self._record.take(news, self._now_ms())
        holders = {line.symbol for line in self._state.lines if line.holds_slot}
        lanes = self._record.lanes(self._now_ms(), holders)
        if lanes != self._lanes:
            self._lanes = lanes
            self._viewers.publish(LANES, lanes_message(lanes, self._now_ms()))

    async def _publish(self) -> None:
        """While a poll is overdue the last state goes out again, older; and what nobody watches is let go."""
        while True:
            await asyncio.sleep(POLL_SECS)
            waited = 0.0 if self._asked_at is None else monotonic() - self._asked_at
            if waited > OVERDUE_SECS + 2 * self._took:
                problem = f"Redis has not answered for {waited:.0f} s"
                self._viewers.publish(STATE, state_message(self._state.aged(unix_ms(), problem), self._now_ms()))
            self._viewers.note_thinned()
            await self._stop(list(self._feeds.keys() - self._viewers.symbols))

    async def _stop(self, symbols: list[str]) -> None:
        tasks = [self._feeds.pop(symbol)[1] for symbol in symbols]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- the recorder's time

    def _now_ms(self) -> int:
        return unix_ms() + self._offset_ms

    def _known_until(self, symbol: str) -> int:
        """Up to when it is known whether the book was observed, unix ms."""
        newest, now = self._record.newest(symbol), self._now_ms()
        open_until = newest.end if newest is not None and self._record.goes_on(symbol, now) else 0
        return max(open_until, now - JOIN_MS)


def _clock_offset(state: WatchState) -> int:
    """The recorder's clock minus this machine's, ms; 0 if they are near each other or nothing is known.

    The figures bear the recorder's time, and their age is known by Redis' clock.
    """
    feed = state.health.feed if state.health is not None else None
    if feed is None or feed.figures is None or feed.heartbeat_ttl_secs is None:
        return 0
    age_ms = max(0.0, INGEST_HEARTBEAT_TTL_SECS - feed.heartbeat_ttl_secs) * 1000
    offset = round(feed.figures.written_ts + age_ms - state.ts)
    return offset if abs(offset) > _CLOCKS_DIFFER_MS else 0
