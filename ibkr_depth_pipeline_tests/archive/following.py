"""An archiver at work in this process, for tests that look at it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ibkr_depth_pipeline.archive.archiver import Archiver, ArchiveSummary
from ibkr_depth_pipeline.archive.streams import ArchiverTiming
from ibkr_depth_pipeline.settings import Settings


class Following:
    """An archiver at work."""

    def __init__(self, settings: Settings, timing: ArchiverTiming | None = None) -> None:
        self.archiver = Archiver(settings, timing=timing)
        self.task = asyncio.ensure_future(self.archiver.run())

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait; fails as the archiver does, if it ends before. The test's timeout bounds it."""
        while not condition():
            if self.task.done():
                raise AssertionError(f"the archiver ended: {self.task.exception() or self.task.result()}")
            await asyncio.sleep(0.01)

    async def until_kept(self, symbol: str, count: int) -> None:
        await self.until(lambda: self.archiver.summary.snapshots.get(symbol) == count)

    async def stop(self) -> ArchiveSummary:
        self.archiver.stop()
        return await self.task
