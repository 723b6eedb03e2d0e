"""Whoever started a run and wants to see how it goes, or to be asked whether it is still wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ibkr_depth_pipeline.errors import NoLongerWanted
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.schema.status import FeedFigures


@dataclass(frozen=True, slots=True)
class FiguresCallback:
    """Somebody who wants to see the figures every so many seconds; `look` is called in a thread of its own."""

    look: Callable[[FeedFigures], None]
    every_secs: float


@dataclass(frozen=True, slots=True)
class WantedCallback:
    """Asks whether the run is still wanted by what started it, every so many seconds, in a thread of its own.

    False ends the run: it drains, and `run` raises NoLongerWanted. What `ask` raises is logged, and ends nothing.
    """

    ask: Callable[[], bool]
    every_secs: float = 10.0


async def show_for_ever(watcher: FiguresCallback, figures: Callable[[], FeedFigures]) -> None:
    """Let the watcher look, in a thread: it may take its time. What it raises is logged, and ends nothing."""
    while True:
        await asyncio.sleep(watcher.every_secs)
        try:
            await asyncio.to_thread(watcher.look, figures())
        except Exception as error:
            get_log().warning("watcher_failed", error=repr(error))


async def ask_for_ever(wanted: WantedCallback) -> None:
    """Raises NoLongerWanted as soon as the answer is no."""
    while True:
        await asyncio.sleep(wanted.every_secs)
        try:
            still = await asyncio.to_thread(wanted.ask)
        except Exception as error:
            get_log().warning("not_known_whether_wanted", error=repr(error))
        else:
            if not still:
                raise NoLongerWanted("this run has ended already for whoever started it")
