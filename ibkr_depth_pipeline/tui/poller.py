"""Polls Redis for what `ibkr_depth_watch` shows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.reader import AsyncDepthReader, DepthSnapshot
from ibkr_depth_pipeline.reader.alerts import AlertLog
from ibkr_depth_pipeline.schema.health import IngestHealth
from ibkr_depth_pipeline.sink.status import HealthReader
from ibkr_depth_pipeline.tui.state import StreamReadings, WatchState, watch_state

RATE_WINDOW_MS = 5_000
_NAMES_EVERY_MS = 10_000


class Poller:
    """Polls the Redis at `url` for the ingest `name` (IBKR_GATEWAY_NAME); `symbols` are added to those found."""

    def __init__(self, url: str, name: str, symbols: Sequence[str] = ()) -> None:
        self._name = name
        self._health = HealthReader(url, name)
        self._requested = tuple(symbols)
        self._reader = AsyncDepthReader(url)
        self._names: tuple[str, ...] = ()
        self._names_ts = 0
        self._alerts = AlertLog()
        self._last = WatchState(unix_ms())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._health.aclose()
        await self._reader.aclose()

    async def poll(self) -> WatchState:
        """The state now; while Redis is unreachable the last one, aged, with the problem."""
        try:
            self._last = await self._read()
        except SinkUnavailable as error:
            return self._last.aged(unix_ms(), str(error))
        return self._last

    async def poll_ingest(self) -> IngestHealth:
        """The ingest's own health now. Raises SinkUnavailable."""
        return (await self._health.read(())).feed

    async def _read(self) -> WatchState:
        now = unix_ms()
        if not self._names or now - self._names_ts > _NAMES_EVERY_MS:
            self._names, self._names_ts = await self._find_names(), now
        health = await self._health.read(self._names)
        books = await self._books()
        state = watch_state(health, StreamReadings(books, await self._rates(health.ts)))
        await self._read_alerts()
        return replace(state, alerts=self._alerts.tracked)

    async def _read_alerts(self) -> None:
        with suppress(SinkUnavailable):  # a user who may not read them sees the books all the same
            self._alerts.take(await self._reader.alerts_since(self._name, self._alerts.cursor))

    async def _books(self) -> dict[str, DepthSnapshot]:
        return await self._reader.latest_all(self._names, missing_ok=True) if self._names else {}

    async def _find_names(self) -> tuple[str, ...]:
        """The symbols of the ingest's figures in their order, then others with a stream, then the requested ones."""
        feed = await self.poll_ingest()
        published = [symbol for symbol in (feed.figures.symbols if feed.figures else ()) if symbol == symbol.upper()]
        return tuple(dict.fromkeys([*published, *await self._reader.symbols(), *self._requested]))

    async def _rates(self, now_ms: int) -> dict[str, float]:
        """Rows a second by symbol: how far `seq` went within RATE_WINDOW_MS."""
        start = now_ms - RATE_WINDOW_MS
        firsts = await self._reader.first_of([(symbol, start, None) for symbol in self._names])
        newest = await self._books()
        return {
            symbol: (newest[symbol].seq - first.seq + 1) * 1000 / RATE_WINDOW_MS if first and symbol in newest else 0.0
            for symbol, first in zip(self._names, firsts, strict=True)
        }
