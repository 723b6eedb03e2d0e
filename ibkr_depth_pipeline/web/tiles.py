"""The heat map's past in tiles, as maps have them: read once, encoded once, kept for every viewer that asks."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ibkr_depth_pipeline.clock import loop_time
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.reader import AsyncDepthReader
from ibkr_depth_pipeline.tui.observed import Stretch, TileSpan, stretch_of, stretches_between, tile_columns
from ibkr_depth_pipeline.web.messages import tile_message

STEPS_MS = (50, 100, 200, 500, 1000, 2000, 5000)
"""How long a column may be."""

COLUMNS = 120
"""Columns of a tile."""

KEPT = 512
FRESH_SECS, FINAL_SECS = 0.5, 60.0
"""How long a tile is kept: one that goes on, and one that is final (a Redis may be emptied)."""

_BUSY = "the server is busy with other tiles; ask again"
_MOST_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class _Kept:
    message: bytes
    until: float


class Tiles:
    """Tiles of the streams that `reader` reads. known_until(symbol): up to when observed time is known, unix ms."""

    def __init__(self, reader: AsyncDepthReader, known_until: Callable[[str], int]) -> None:
        self._reader = reader
        self._known_until = known_until
        self._kept: OrderedDict[tuple[str, TileSpan], _Kept] = OrderedDict()
        self._under_way: dict[tuple[str, TileSpan], asyncio.Task[bytes]] = {}

    async def tile(self, symbol: str, span: TileSpan) -> bytes:
        """The tile as a message. Those who ask for it at the same time share one reading.

        Raises SinkUnavailable and SchemaMismatch as the reader does.
        """
        key = (symbol, span)
        kept = self._kept.get(key)
        if kept is not None and loop_time() < kept.until:
            self._kept.move_to_end(key)
            return kept.message
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= _MOST_AT_ONCE:
                raise SinkUnavailable(_BUSY)
            task = self._under_way[key] = asyncio.ensure_future(self._make(key))
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(task)

    async def _make(self, key: tuple[str, TileSpan]) -> bytes:
        message, is_final = await self._read(*key)
        lasts = FINAL_SECS if is_final else FRESH_SECS
        self._kept[key] = _Kept(message, asyncio.get_running_loop().time() + lasts)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return message

    async def _read(self, symbol: str, span: TileSpan) -> tuple[bytes, bool]:
        """The tile, and whether it is final: once a later snapshot is stored, all before it are."""
        known_until = self._known_until(symbol)
        spans = [(0, span.start), *span.columns()]
        before, *newest = await self._reader.last_of([(symbol, start, end) for start, end in spans])
        oldest, after = await self._reader.first_of([(symbol, 0, None), (symbol, span.end, None)])
        stretches = await self._stretches(symbol, span) or stretches_between(
            [book.ts for book in (before, *newest, after) if book is not None]
        )
        columns = tile_columns(span, before, newest, stretches, known_until)
        message = tile_message(symbol, span, columns, oldest.ts if oldest is not None else None)
        return message, after is not None and span.end <= known_until

    async def _stretches(self, symbol: str, span: TileSpan) -> list[Stretch]:
        """What is on record of the tile's time; nothing if the recorder left no record."""
        turns = (await self._reader.turns_since({symbol: str(span.start)}))[symbol]
        every = [*turns.ended, *([turns.open] if turns.open is not None else [])]
        return [stretch for turn in every if (stretch := stretch_of(turn)) is not None]
