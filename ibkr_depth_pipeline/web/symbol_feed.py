"""One symbol's stream, followed once for all who watch it: a frame at most so many times a second."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ibkr_depth_pipeline.errors import SchemaMismatch, SinkUnavailable
from ibkr_depth_pipeline.reader import AfterId, AsyncDepthReader, At, DepthSnapshot
from ibkr_depth_pipeline.tui.observed import Stretch, observed_now
from ibkr_depth_pipeline.tui.turn_record import TurnRecord
from ibkr_depth_pipeline.web.messages import LiveEdge, frame_message

FRAME_SECS = 1 / 30
QUIET_SECS = 0.2
"""How often a frame comes while the book does not change: it moves the edge of the observed time."""

RATE_SECS = 2.0
_RETRY_SECS = 0.5


class SymbolFeed:
    """Follows `symbol` and hands frames to `publish`. record is what is published of its subscriptions; now_ms() is the
    recorder's clock.
    """

    def __init__(
        self,
        reader: AsyncDepthReader,
        symbol: str,
        publish: Callable[[str, bytes], None],
        record: TurnRecord,
        now_ms: Callable[[], int],
    ) -> None:
        self._reader = reader
        self._symbol = symbol
        self._publish = publish
        self._record = record
        self._now_ms = now_ms
        self._number = 0
        self._book: DepthSnapshot | None = None
        self._observed: Stretch | None = None
        self._rows: deque[tuple[float, int]] = deque()

    async def run(self) -> None:
        """Follow until cancelled, also through an absence of Redis."""
        while True:
            try:
                await self._follow()
            except (SinkUnavailable, SchemaMismatch):
                await asyncio.sleep(_RETRY_SECS)  # the state that is published twice a second says what is wrong

    def publish_again(self) -> None:
        """A frame for somebody who has just come."""
        self._send()

    async def _follow(self) -> None:
        clock = asyncio.get_running_loop().time
        newest = await self._reader.newest(self._symbol, 1, missing_ok=True)
        for book in newest:
            self._take([book], clock())
        start = AfterId(newest[0].stream_id) if newest else At(0)
        following = self._reader.follow(self._symbol, start=start, missing_ok=True)
        due = clock()
        while True:
            items = await following.read(QUIET_SECS)
            self._take([item for item in items if isinstance(item, DepthSnapshot)], clock())
            self._send()
            due = max(due + FRAME_SECS, clock() - FRAME_SECS)  # what is a little late is made up for
            await asyncio.sleep(max(0.0, due - clock()))

    def _take(self, books: list[DepthSnapshot], at: float) -> None:
        if books:
            self._book = books[-1]
            self._rows.append((at, len(books)))
        while self._rows and self._rows[0][0] < at - RATE_SECS:
            self._rows.popleft()
        goes_on = self._record.goes_on(self._symbol, self._now_ms())
        recorded = self._record.newest(self._symbol)
        self._observed = observed_now(self._observed, recorded, goes_on, [book.ts for book in books])

    def _send(self) -> None:
        self._number += 1
        rate = sum(count for _, count in self._rows) / RATE_SECS
        now = self._now_ms()
        goes_on = self._record.goes_on(self._symbol, now)
        edge = LiveEdge(self._symbol, self._number, self._book, self._observed, goes_on, rate)
        self._publish(self._symbol, frame_message(edge, now))
