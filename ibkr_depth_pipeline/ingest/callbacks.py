"""Callbacks of the program that started a run: it is shown the figures, and asked whether the run is still wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ibkr_depth_pipeline.errors import NoLongerWanted
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.schema.status import FeedFigures


@dataclass(frozen=True, slots=True)
class FiguresCallback:
    """Receives the figures every so many seconds, in a thread of its own."""

    receive: Callable[[FeedFigures], None]
    every_secs: float


@dataclass(frozen=True, slots=True)
class WantedCallback:
    """Answers whether the run is still wanted, every so many seconds, in a thread of its own.

    False ends the run: it drains, and `run` raises NoLongerWanted. What `ask` raises is logged, and ends nothing.
    """

    ask: Callable[[], bool]
    every_secs: float = 10.0


async def deliver_figures(callback: FiguresCallback, figures: Callable[[], FeedFigures]) -> None:
    """Deliver the figures until cancelled. What the callback raises is logged, and ends nothing."""
    while True:
        await asyncio.sleep(callback.every_secs)
        try:
            await asyncio.to_thread(callback.receive, figures())
        except Exception as error:
            get_log().warning("watcher_failed", error=repr(error))


async def poll_wanted(wanted: WantedCallback) -> None:
    """Poll until cancelled. Raises NoLongerWanted as soon as the answer is no."""
    while True:
        await asyncio.sleep(wanted.every_secs)
        try:
            still = await asyncio.to_thread(wanted.ask)
        except Exception as error:
            get_log().warning("not_known_whether_wanted", error=repr(error))
        else:
            if not still:
                raise NoLongerWanted("this run has ended already for whoever started it")
