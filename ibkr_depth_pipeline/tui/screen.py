"""Runs `ibkr_depth_watch`: polls, draws, and reacts to keys and signals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console, Group
from rich.live import Live

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.tasks import signals_caught
from ibkr_depth_pipeline.tui.keyboard import after_key, key_presses
from ibkr_depth_pipeline.tui.poller import Poller
from ibkr_depth_pipeline.tui.render import View, frame
from ibkr_depth_pipeline.tui.state import WatchState


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What to show. url is the Redis, name the ingest's IBKR_GATEWAY_NAME, `every` the seconds between two polls."""

    url: str
    name: str
    symbols: tuple[str, ...] = ()
    every: float = 0.5


def first_view(symbols: Sequence[str], state: WatchState, *, keys: bool) -> View:
    """The ladders of the given symbols, or of the first recorded one."""
    known = [line.symbol for line in state.lines if line.book is not None] or [line.symbol for line in state.lines]
    pinned = tuple(symbols)
    return View(selected=next(iter((*pinned, *known)), ""), pinned=pinned, keys=keys)


async def show_once(options: WatchOptions, console: Console) -> None:
    """Print one frame. Raises SinkUnavailable if Redis is unreachable."""
    poller = Poller(options.url, options.name, options.symbols)
    try:
        state = await poller.poll()
        if state.problem:
            raise SinkUnavailable(state.problem)
        _print(state, first_view(options.symbols, state, keys=False), console)
    finally:
        await poller.aclose()


async def show_live(options: WatchOptions, console: Console) -> None:
    """Draw until q, Ctrl-C or SIGTERM. Without a terminal to draw on, print a frame after each poll."""
    poller = Poller(options.url, options.name, options.symbols)
    screen = _Screen(options, console)
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            await screen.draw(poller)
        else:
            await screen.print(poller)
    finally:
        await poller.aclose()


class _Screen:
    def __init__(self, options: WatchOptions, console: Console) -> None:
        self._options = options
        self._console = console
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._state = WatchState(0)
        self._view = View(pinned=options.symbols, selected=next(iter(options.symbols), ""))

    async def draw(self, poller: Poller) -> None:
        with signals_caught(lambda _: self._ended.set()), key_presses(self._on_key) as keys:
            self._view = replace(self._view, keys=keys)
            with Live(console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
                polling = asyncio.ensure_future(self._poll(poller))
                try:
                    while not self._ended.is_set():
                        self._draw(live)
                        await self._wait_for_change(polling)
                finally:
                    polling.cancel()
                    await asyncio.gather(polling, return_exceptions=True)

    async def print(self, poller: Poller) -> None:
        with signals_caught(lambda _: self._ended.set()):
            while not self._ended.is_set():
                self._state = await poller.poll()
                _print(self._state, first_view(self._options.symbols, self._state, keys=False), self._console)
                await self._pause()

    async def _pause(self) -> None:
        """The time between two polls; the end cuts it short."""
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._ended.wait(), self._options.every)

    async def _poll(self, poller: Poller) -> None:
        while not self._ended.is_set():
            state = await poller.poll()
            if not self._view.paused:
                self._state = state
                if not self._view.selected:
                    first = first_view(self._options.symbols, state, keys=True)
                    self._view = replace(self._view, selected=first.selected)
                self._changed.set()
            await self._pause()

    async def _wait_for_change(self, polling: asyncio.Future[None]) -> None:
        """Wait for something new to draw, or the end. Raises the error of the polling, if it failed."""
        self._changed.clear()
        waits: list[asyncio.Future[bool]] = [
            asyncio.ensure_future(self._changed.wait()),
            asyncio.ensure_future(self._ended.wait()),
        ]
        watched: list[asyncio.Future[Any]] = [*waits, polling]
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        if polling.done():
            polling.result()

    def _on_key(self, key: str) -> None:
        view = after_key(key, self._view, [line.symbol for line in self._state.lines])
        if view is None:
            self._ended.set()
        else:
            self._view = view
            self._changed.set()

    def _draw(self, live: Live) -> None:
        size = self._console.size
        ascii_only = self._console.options.ascii_only
        lines = frame(self._state, self._view, size.width, size.height, ascii_only=ascii_only)
        live.update(Group(*lines), refresh=True)


def _print(state: WatchState, view: View, console: Console) -> None:
    for line in frame(state, view, console.width, None, ascii_only=console.options.ascii_only):
        console.print(line, crop=True)
