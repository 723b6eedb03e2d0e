"""Keeps the universe of a run as its file has it: a changed file is read, compared and applied while the run goes on.

The folder is watched by watchfiles, so that editors and mounted configuration, which replace the file, are noticed. A
look every POLL_SECS finds what no notice comes for (network file systems), and repeats what failed for want of Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from watchfiles import awatch

from ibkr_depth_pipeline.errors import ConfigurationError, DepthPipelineError
from ibkr_depth_pipeline.ingest.tasks import first_of
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.universe import Universe
from ibkr_depth_pipeline.universe_changes import UniverseChange, UniverseFile, change_between

POLL_SECS = 5.0

_NOTICES_AGAIN_SECS = 30.0
"""After the folder could not be watched."""


class UniverseFollower:
    """`run` it beside the recording. `universe` is what is in force; apply(change) puts a change in force.

    What is wrong with the file, or hinders a change, is logged once and kept in `problem` until it is over; meanwhile
    the universe in force stays.
    """

    def __init__(
        self, file: UniverseFile, universe: Universe, apply: Callable[[UniverseChange], Awaitable[None]]
    ) -> None:
        self._file = file
        self._apply = apply
        self._seen: bytes | None = None
        self._asked = asyncio.Event()
        self._log = get_log()
        self.universe = universe
        self.problem = ""

    def reload(self) -> None:
        """Read the file now, changed or not."""
        self._seen = None
        self._asked.set()

    async def run(self) -> None:
        """For ever."""
        self.reload()  # it may have changed since it was read for the start
        notices = asyncio.ensure_future(self._notice())
        try:
            while True:
                await first_of(self._asked.wait(), asyncio.sleep(POLL_SECS))
                self._asked.clear()
                await self._look()
        finally:
            notices.cancel()
            await asyncio.gather(notices, return_exceptions=True)

    async def _notice(self) -> None:
        while True:
            try:
                async for _ in awatch(self._file.path.absolute().parent, recursive=False):
                    self._asked.set()
            except Exception as error:  # of the system's: too many watches, no such folder; the poll goes on
                self._log.warning("universe_not_watched", path=str(self._file.path), error=str(error))
            await asyncio.sleep(_NOTICES_AGAIN_SECS)

    async def _look(self) -> None:
        content = await asyncio.to_thread(self._content)
        if content == self._seen:
            return
        try:
            change = change_between(self.universe, await asyncio.to_thread(self._file.load))
            if not change.is_empty:
                await self._apply(change)
                self.universe = change.universe
                self._log.info("universe_changed", path=str(self._file.path), **change.in_words())
        except DepthPipelineError as error:
            self._refuse(str(error))
            self._seen = content if isinstance(error, ConfigurationError) else None
        else:
            self._seen, self.problem = content, ""

    def _refuse(self, why: str) -> None:
        if why != self.problem:
            self._log.error("universe_refused", path=str(self._file.path), reason=why, in_force=self._in_force())
        self.problem = why

    def _in_force(self) -> str:
        return f"the universe of before, {len(self.universe.specs)} symbols"

    def _content(self) -> bytes | None:
        try:
            return self._file.path.read_bytes()
        except OSError as error:
            return str(error).encode()
