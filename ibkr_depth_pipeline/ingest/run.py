"""The recorder as one blocking call: what the console script and the Dagster op wrap."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ibkr_depth_pipeline.ingest.session import IngestSession, IngestSummary
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.universe import Universe

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class IngestOutcome:
    """What a run did, and the name of the signal that ended it, if one did."""

    summary: IngestSummary
    interrupted_by: str | None


def run_ingest(settings: Settings, universe: Universe, duration: float | None = None) -> IngestOutcome:
    """Record until SIGINT, SIGTERM or the end of `duration` seconds. Raises what IngestSession.run raises.

    Signals are caught where Python allows it, in the main thread; the handlers found are put back at the end. A second
    signal does not cut the draining short: it is bounded anyway.
    """
    caught: list[str] = []

    async def main() -> IngestSummary:
        session = IngestSession(settings, universe)
        with _signals_stop(session, caught):
            return await session.run(duration)

    return IngestOutcome(asyncio.run(main()), caught[0] if caught else None)


@contextmanager
def _signals_stop(session: IngestSession, caught: list[str]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def on_signal(number: signal.Signals) -> None:
        get_log().info("signal", name=number.name)
        caught.append(number.name)
        session.stop()

    try:
        for number in _SIGNALS:
            loop.add_signal_handler(number, on_signal, number)
    except (ValueError, RuntimeError):  # not in the main thread: whoever runs us stops us otherwise
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
