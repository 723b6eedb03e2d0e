"""The watch at work: looks, draws, listens to keys and signals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console, Group
from rich.live import Live

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.signals import signals_caught
from ibkr_depth_pipeline.tui.keyboard import after_key, pressed
from ibkr_depth_pipeline.tui.poller import Sampler
from ibkr_depth_pipeline.tui.render import View, frame
from ibkr_depth_pipeline.tui.state import Sight


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What to look at. url is the Redis, name the ingest's IBKR_GATEWAY_NAME, `every` the seconds between two looks."""

    url: str
    name: str
    symbols: tuple[str, ...] = ()
    every: float = 0.5


def first_view(symbols: Sequence[str], sight: Sight, *, keys: bool) -> View:
    """The chosen symbols' ladders, else the first one's that is recorded."""
    known = [line.symbol for line in sight.lines if line.book is not None] or [line.symbol for line in sight.lines]
    pinned = tuple(symbols)
    return View(selected=next(iter((*pinned, *known)), ""), pinned=pinned, keys=keys)


async def show_once(options: WatchOptions, console: Console) -> None:
    """Print one frame. Raises SinkUnavailable where Redis can't be asked."""
    sampler = Sampler(options.url, options.name, options.symbols)
    try:
        sight = await sampler.look()
        if sight.problem:
            raise SinkUnavailable(sight.problem)
        _print(sight, first_view(options.symbols, sight, keys=False), console)
    finally:
        await sampler.aclose()


async def show_live(options: WatchOptions, console: Console) -> None:
    """Draw until q, Ctrl-C or SIGTERM. Where there is no terminal to draw on, print a frame after each look."""
    sampler = Sampler(options.url, options.name, options.symbols)
    watch = _Watch(options, console)
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            await watch.draw(sampler)
        else:
            await watch.print(sampler)
    finally:
        await sampler.aclose()


class _Watch:
    def __init__(self, options: WatchOptions, console: Console) -> None:
        self._options = options
        self._console = console
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._sight = Sight(0)
        self._view = View(pinned=options.symbols, selected=next(iter(options.symbols), ""))

    async def draw(self, sampler: Sampler) -> None:
        with signals_caught(lambda _: self._ended.set()), pressed(self._on_key) as keys:
            self._view = replace(self._view, keys=keys)
            with Live(console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
                looking = asyncio.ensure_future(self._look_for_ever(sampler))
                try:
                    while not self._ended.is_set():
                        self._draw(live)
                        await self._news(looking)
                finally:
                    looking.cancel()
                    await asyncio.gather(looking, return_exceptions=True)

    async def print(self, sampler: Sampler) -> None:
        with signals_caught(lambda _: self._ended.set()):
            while not self._ended.is_set():
                self._sight = await sampler.look()
                _print(self._sight, first_view(self._options.symbols, self._sight, keys=False), self._console)
                await self._pause()

    async def _pause(self) -> None:
        """Between two looks; the end cuts it short."""
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._ended.wait(), self._options.every)

    async def _look_for_ever(self, sampler: Sampler) -> None:
        while not self._ended.is_set():
            sight = await sampler.look()
            if not self._view.paused:
                self._sight = sight
                if not self._view.selected:
                    first = first_view(self._options.symbols, sight, keys=True)
                    self._view = replace(self._view, selected=first.selected)
                self._changed.set()
            await self._pause()

    async def _news(self, looking: asyncio.Future[None]) -> None:
        """Until there is something new to draw, or the end. Raises what went wrong with looking."""
        self._changed.clear()
        waits: list[asyncio.Future[bool]] = [
            asyncio.ensure_future(self._changed.wait()),
            asyncio.ensure_future(self._ended.wait()),
        ]
        watched: list[asyncio.Future[Any]] = [*waits, looking]
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        if looking.done():
            looking.result()

    def _on_key(self, key: str) -> None:
        view = after_key(key, self._view, [line.symbol for line in self._sight.lines])
        if view is None:
            self._ended.set()
        else:
            self._view = view
            self._changed.set()

    def _draw(self, live: Live) -> None:
        size = self._console.size
        ascii_only = self._console.options.ascii_only
        lines = frame(self._sight, self._view, size.width, size.height, ascii_only=ascii_only)
        live.update(Group(*lines), refresh=True)


def _print(sight: Sight, view: View, console: Console) -> None:
    for line in frame(sight, view, console.width, None, ascii_only=console.options.ascii_only):
        console.print(line, crop=True)
