"""Runs `ibkr_depth_watch`: polls, draws, and reacts to keys and signals."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console, Group
from rich.live import Live

from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.tasks import signals_caught
from ibkr_depth_pipeline.tui.keyboard import after_key, key_presses
from ibkr_depth_pipeline.tui.poller import Poller
from ibkr_depth_pipeline.tui.render import WITHOUT_REDIS, frame
from ibkr_depth_pipeline.tui.state import Liveness, Quote, WatchState, compared
from ibkr_depth_pipeline.tui.view import View, listed

_MOST_STATES = 1200
_MOST_BOOKS = 12_000
"""What is kept to go back in time: so many refreshes, fewer with many symbols."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What to show. url is the Redis, name the ingest's IBKR_GATEWAY_NAME, `every` the seconds between two polls."""

    url: str
    name: str
    symbols: tuple[str, ...] = ()
    every: float = 0.5


def first_view(symbols: Sequence[str], state: WatchState, *, keys: bool) -> View:
    """The ladders of the given symbols, or of the first that is live, else recorded, else known."""
    known = [line.symbol for line in state.lines if line.liveness is Liveness.LIVE]
    known += [line.symbol for line in state.lines if line.book is not None]
    known += [line.symbol for line in state.lines]
    pinned = tuple(symbols)
    return View(selected=next(iter((*pinned, *known)), ""), pinned=pinned, keys=keys)


async def show_once(options: WatchOptions, console: Console) -> None:
    """Print one frame. Raises SinkUnavailable if Redis is unreachable."""
    poller = Poller(options.url, options.name, options.symbols)
    try:
        state = await poller.poll()
        if state.problem:
            raise SinkUnavailable(f"{state.problem}\n{WITHOUT_REDIS}")
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
        self._past: deque[WatchState] = deque(maxlen=_MOST_STATES)
        self._paused_at = 0
        self._settled = bool(options.symbols)  # whether the selected symbol is the user's choice, or was live
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
                before, self._state = self._state, compared(await poller.poll(), self._state)
                if not (before.problem and self._state.problem):  # once is enough
                    _print(self._state, first_view(self._options.symbols, self._state, keys=False), self._console)
                await self._pause()

    async def _pause(self) -> None:
        """The time between two polls; the end cuts it short."""
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._ended.wait(), self._options.every)

    async def _poll(self, poller: Poller) -> None:
        while not self._ended.is_set():
            state = compared(await poller.poll(), self._past[-1] if self._past else WatchState(0))
            self._keep(state)
            if not self._view.paused:
                self._state = state
                self._choose(state)
                self._changed.set()
            await self._pause()

    def _keep(self, state: WatchState) -> None:
        self._past.append(state)
        while len(self._past) * len(state.lines) > _MOST_BOOKS and len(self._past) > 1:
            self._past.popleft()

    def _choose(self, state: WatchState) -> None:
        """Select a symbol that is live, until one was, or the user has selected one."""
        if self._settled:
            return
        selected = first_view(self._options.symbols, state, keys=True).selected
        line = state.line(selected)
        self._settled = line is not None and line.liveness is Liveness.LIVE
        self._view = replace(self._view, selected=selected)

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
        view = after_key(key, self._view, [line.symbol for line in listed(self._state, self._view)])
        if view is None:
            self._ended.set()
            return
        self._settled = self._settled or view.selected != self._view.selected
        self._view = self._go_to_moment(view)
        self._changed.set()

    def _go_to_moment(self, view: View) -> View:
        """Show the refresh that `view` asks for, at the earliest the oldest that is kept."""
        if not self._past:
            return view
        if not view.paused:
            self._state = self._past[-1]
            return view
        if not self._view.paused:
            shown = self._state
            self._paused_at = shown.ts
        earliest = (self._paused_at - self._past[0].ts) / 1000
        back_secs = max(0.0, min(view.back_secs, earliest))
        moment = self._paused_at - back_secs * 1000
        self._state = next((each for each in reversed(self._past) if each.ts <= moment), self._past[0])
        return replace(view, back_secs=back_secs)

    def _quotes(self) -> list[Quote | None]:
        """The best prices of the selected symbol at each refresh up to the shown one."""
        lines = (state.line(self._view.selected) for state in self._past if state.ts <= self._state.ts)
        return [line.quote if line is not None else None for line in lines]

    def _draw(self, live: Live) -> None:
        size = self._console.size
        ascii_only = self._console.options.ascii_only
        lines = frame(self._state, self._view, size.width, size.height, ascii_only=ascii_only, quotes=self._quotes())
        live.update(Group(*lines), refresh=True)


def _print(state: WatchState, view: View, console: Console) -> None:
    for line in frame(state, view, console.width, None, ascii_only=console.options.ascii_only):
        console.print(line, crop=True)
