"""Looks at what the ingests tell of themselves, again and again, beside the reading of the streams.

Figures are worth less than snapshots: where Redis, or the part of a cluster that holds them, does not answer, they are
missed, and nothing waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from ibkr_depth_pipeline.archive.figures import FiguresBuffer
from ibkr_depth_pipeline.archive.layout import Place
from ibkr_depth_pipeline.archive.streams import Streams
from ibkr_depth_pipeline.archive.trouble import Trouble
from ibkr_depth_pipeline.errors import SinkUnavailable

FIGURES_SECS = 2.0
"""How often the figures are looked at: as often as an ingest writes them."""
FIGURES_FLUSH_SECS = 60.0
"""How long figures wait for a file; a kill of the archiver may cost so much of their history."""
LAST_LOOK_SECS = 1.0


class FiguresWatch:
    """Hands `queue` files of figures. What was written before `oldest_ms()` (unix ms) is too old to be kept."""

    def __init__(
        self, streams: Streams, queue: Callable[[Place, bytes, int], None], oldest_ms: Callable[[], int]
    ) -> None:
        self._streams = streams
        self._queue = queue
        self._oldest_ms = oldest_ms
        self._buffer = FiguresBuffer()
        self._trouble = Trouble("archive_figures_missed", logging.WARNING)

    async def follow(self) -> None:
        """Look until cancelled."""
        while True:
            await self._look()
            self._flush(asyncio.get_running_loop().time() - FIGURES_FLUSH_SECS)
            await asyncio.sleep(FIGURES_SECS)

    async def end(self) -> None:
        """Look a last time, and hand out all there is."""
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._look(), LAST_LOOK_SECS)
        self._flush(float("inf"))

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        try:
            ingests, trouble = await self._streams.ingests()
            for ingest in ingests:
                figures = await self._streams.ingest_figures(ingest)
                if figures is not None and figures.written_ts >= self._oldest_ms():
                    self._buffer.add(ingest, figures, now)
        except SinkUnavailable as error:
            trouble = error
        self._trouble.tell(trouble, now)

    def _flush(self, older_than: float) -> None:
        for place, content in self._buffer.take(older_than):
            self._queue(place, content, 0)
