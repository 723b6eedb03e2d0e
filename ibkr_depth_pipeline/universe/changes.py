"""A universe file that changes during a run: it is followed, compared with what is in force, the difference applied.

The file's folder is watched by watchfiles, so that editors and mounted configuration, which replace the file, are
noticed. A check every POLL_SECS finds what no notice comes for (network file systems), and repeats what failed for want
of Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from watchfiles import awatch

from ibkr_depth_pipeline.errors import ConfigurationError, DepthPipelineError
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.tasks import first_of
from ibkr_depth_pipeline.universe.file import Universe, load_universe
from ibkr_depth_pipeline.universe.spec import SymbolSpec


@dataclass(frozen=True, slots=True)
class UniverseChange:
    """From one universe to `universe`: names of the removed entries, and the new text of all others that differ.

    wishes: only pin, weight or hours differ. contracts: what is asked of IBKR differs, so it is resolved again.
    """

    universe: Universe
    added: tuple[SymbolSpec, ...] = ()
    removed: tuple[str, ...] = ()
    wishes: tuple[SymbolSpec, ...] = ()
    contracts: tuple[SymbolSpec, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing that matters differs; the order of the entries may."""
        return not (self.added or self.removed or self.wishes or self.contracts)

    def in_words(self) -> dict[str, list[str]]:
        """The names, for the log."""
        return {
            "added": [spec.name for spec in self.added],
            "removed": list(self.removed),
            "changed": [spec.name for spec in (*self.contracts, *self.wishes)],
        }


def change_between(before: Universe, after: Universe) -> UniverseChange:
    """What leads from `before` to `after`."""
    old = {spec.name: spec for spec in before.specs}
    new = {spec.name: spec for spec in after.specs}
    kept = [(old[name], spec) for name, spec in new.items() if name in old]
    contracts = [spec for was, spec in kept if _without_wishes(was) != _without_wishes(spec)]
    return UniverseChange(
        universe=after,
        added=tuple(spec for name, spec in new.items() if name not in old),
        removed=tuple(name for name in old if name not in new),
        wishes=tuple(spec for was, spec in kept if was != spec and spec not in contracts),
        contracts=tuple(contracts),
    )


def contract_text(spec: SymbolSpec) -> str:
    """The entry as text, as far as the contract goes: the same text means the same question to IBKR."""
    return repr(_without_wishes(spec))


def _without_wishes(spec: SymbolSpec) -> SymbolSpec:
    return replace(spec, pin=False, weight=1, hours=None)


@dataclass(frozen=True, slots=True)
class UniverseFile:
    """Where a run's universe comes from: the file, and the symbols that it is restricted to, if any.

    slots: IBKR_MAX_CONCURRENT_DEPTH of the run, which bounds the pins.
    """

    path: Path
    symbols: tuple[str, ...] = ()
    slots: int = 60

    def load(self) -> Universe:
        """The universe as the file has it now. Raises ConfigurationError."""
        universe = load_universe(self.path)
        if self.symbols:
            universe = universe.subset(self.symbols)
        universe.check_pins(self.slots, str(self.path.absolute()))
        return universe


# ---- following the file


POLL_SECS = 5.0

SETTLE_SECS = 1.0
"""How long a file may be bad while it is being written."""

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
        """Follow the file until cancelled."""
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
            change = change_between(self.universe, await self._load())
            if not change.is_empty:
                await self._apply(change)
                self.universe = change.universe
                self._log.info("universe_changed", path=str(self._file.path), **change.in_words())
        except DepthPipelineError as error:
            self._refuse(str(error))
            self._seen = content if isinstance(error, ConfigurationError) else None
        else:
            self._seen, self.problem = content, ""

    async def _load(self) -> Universe:
        """The file's universe. Read once more before it is refused: editors remove or empty a file for a moment."""
        try:
            return await asyncio.to_thread(self._file.load)
        except ConfigurationError:
            await asyncio.sleep(SETTLE_SECS)
            return await asyncio.to_thread(self._file.load)

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
