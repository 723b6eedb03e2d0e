"""The recorder as one blocking call, for the console script and the Dagster asset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ibkr_depth_pipeline.errors import DepthPipelineError
from ibkr_depth_pipeline.ingest.composition import FiguresCallback, WantedCallback
from ibkr_depth_pipeline.ingest.figures import IngestSummary
from ibkr_depth_pipeline.ingest.flight_recorder import DumpReport
from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.settings import Settings, unreadable_env_lines
from ibkr_depth_pipeline.tasks import has_terminal, signals_caught
from ibkr_depth_pipeline.universe import Universe
from ibkr_depth_pipeline.universe.changes import UniverseFile


@dataclass(frozen=True, slots=True)
class IngestOutcome:
    """The summary of a run, and the name of the signal that ended it, if one did."""

    summary: IngestSummary
    interrupted_by: str | None


def run_ingest(
    settings: Settings,
    universe: Universe,
    duration: float | None = None,
    *,
    run_id: str | None = None,
    figures_callback: FiguresCallback | None = None,
    wanted_callback: WantedCallback | None = None,
    dump_callback: Callable[[DumpReport], None] | None = None,
    once: bool = False,
    until_close: bool = False,
    file: UniverseFile | None = None,
) -> IngestOutcome:
    """Record until SIGINT, SIGTERM or the end of `duration` seconds, counted from this call.

    run_id: the id of the run in its runner; it shows in the figures and in the lease. A second signal does not cut the
    draining short: it is bounded anyway. once: give up if nothing can be recorded soon. until_close: end as the session
    of the universe's instruments closes, also if that is earlier than was known at the start. file: where `universe`
    comes from; its changes are followed. dump_callback gets each tape of the flight recorder, in a thread of its own.
    Raises what IngestSession.run raises; the error's `interrupted_by` then names the signal, if one came before it.

    SIGHUP ends a run that has a terminal, as that is closed; one without (a daemon) reads its universe again. SIGUSR1
    ends it as the end of `duration` does: a session that closes early is a success.
    """
    caught: list[str] = []
    hangs_up = has_terminal()
    for text in unreadable_env_lines():
        get_log().warning("env_line_ignored", text=text)

    async def main() -> IngestSummary:
        session = IngestSession(
            settings,
            universe,
            run_id=run_id,
            figures_callback=figures_callback,
            wanted_callback=wanted_callback,
            dump_callback=dump_callback,
            once=once,
            until_close=until_close,
            file=file,
        )

        def on_signal(name: str) -> None:
            get_log().info("signal", name=name)
            if name == "SIGHUP" and not hangs_up:
                session.reload()
                return
            if name != "SIGUSR1":
                caught.append(name)
            session.stop()

        with signals_caught(on_signal):
            return await session.run(duration)

    try:
        summary = asyncio.run(main())
    except DepthPipelineError as error:
        error.interrupted_by = caught[0] if caught else None
        raise
    return IngestOutcome(summary, caught[0] if caught else None)
