"""The archiver as one blocking call: what the console script and the Dagster op wrap."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ibkr_depth_pipeline.archive.archiver import Archiver, ArchiveSummary
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.signals import signals_caught


@dataclass(frozen=True, slots=True)
class ArchiveOutcome:
    """What a run did, and the name of the signal that ended it, if one did."""

    summary: ArchiveSummary
    interrupted_by: str | None


def run_archiver(
    settings: Settings, symbols: Sequence[str] = (), *, once: bool = False, duration: float | None = None
) -> ArchiveOutcome:
    """Follow and keep the streams until SIGINT, SIGTERM, the end of `duration` seconds or, with `once`, of the streams.

    Raises ArchiveUnavailable, SinkUnavailable and ConfigurationError.
    """
    caught: list[str] = []

    async def main() -> ArchiveSummary:
        archiver = Archiver(settings, symbols)

        def on_signal(name: str) -> None:
            get_log().info("signal", name=name)
            caught.append(name)
            archiver.stop()

        if duration is not None:
            asyncio.get_running_loop().call_later(duration, archiver.stop)
        with signals_caught(on_signal):
            return await archiver.run(once=once)

    return ArchiveOutcome(asyncio.run(main()), caught[0] if caught else None)
