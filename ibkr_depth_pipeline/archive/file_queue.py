"""Files that are ready and not yet in the store: put there in order, each as often as it takes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ibkr_depth_pipeline.archive.layout import Place
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.clock import loop_time
from ibkr_depth_pipeline.errors import ArchiveHeld, ArchiveUnavailable, SinkUnavailable
from ibkr_depth_pipeline.logs import RepeatedFailureLog

LARGEST_BACKLOG = 256 * 1024 * 1024
"""Bytes of files that wait for the store; beyond it nothing more is read from Redis, which still has it."""


@dataclass(frozen=True, slots=True)
class WaitingFile:
    """A file that is ready and not yet in the store. `rows` are in it."""

    place: Place
    content: bytes
    rows: int


class FileQueue:
    """First in, first out. `stored` is called with each file that is in the store from then on."""

    def __init__(self, store: ArchiveStore, retries: Backoff, stored: Callable[[WaitingFile], None]) -> None:
        self._store = store
        self._retries = retries
        self._on_stored = stored
        self._waiting: deque[WaitingFile] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._failures = RepeatedFailureLog("archive_write_failed")

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files that wait."""
        return tuple(file.place.name for file in self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read as long as so much waits."""
        return self._bytes > LARGEST_BACKLOG

    def put(self, place: Place, content: bytes, rows: int) -> None:
        """A file, for good."""
        self._waiting.append(WaitingFile(place, content, rows))
        self._bytes += len(content)
        self._idle.clear()
        self._news.set()

    async def emptied(self) -> None:
        """Returns when nothing waits."""
        if self._waiting:
            await self._idle.wait()

    async def store_files(self, confirm: Callable[[], Awaitable[None]]) -> None:
        """Stores until cancelled; `confirm` is awaited before each file. Raises ArchiveHeld if `confirm` does."""
        pause = 0.0
        while True:
            if not self._waiting:
                self._idle.set()
                await self._news.wait()
                self._news.clear()
                continue
            file = self._waiting[0]
            try:
                await confirm()
                await asyncio.to_thread(self._store.put, file.place, file.content)
            except ArchiveHeld:
                raise
            except (ArchiveUnavailable, SinkUnavailable, FileNotFoundError) as error:
                pause = self._retries.longer(pause)
                self._failures.record(error, loop_time(), waiting=len(self._waiting))
                await asyncio.sleep(pause)
                continue
            pause = 0.0
            self._failures.end(loop_time())
            self._bytes -= len(self._waiting.popleft().content)
            self._on_stored(file)
