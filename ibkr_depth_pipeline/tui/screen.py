"""Runs `ibkr_depth_watch`: polls, draws, and reacts to keys and signals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console, Group
from rich.live import Live

from ibkr_depth_pipeline.errors import SchemaMismatch, SinkUnavailable
from ibkr_depth_pipeline.tasks import signals_caught
from ibkr_depth_pipeline.tui.chart import COLUMN_MS, columns_of
from ibkr_depth_pipeline.tui.history import History
from ibkr_depth_pipeline.tui.keyboard import after_key, key_presses
from ibkr_depth_pipeline.tui.poller import Poller
from ibkr_depth_pipeline.tui.render import WITHOUT_REDIS, frame
from ibkr_depth_pipeline.tui.state import Lanes, Liveness, Quote, WatchState, compared
from ibkr_depth_pipeline.tui.view import View, listed


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
    poller, history = Poller(options.url, options.name, options.symbols), History(options.url)
    try:
        state = await poller.poll()
        if state.problem:
            raise SinkUnavailable(f"{state.problem}\n{WITHOUT_REDIS}")
        _print(state, first_view(options.symbols, state, keys=False), console, await history.lanes(state))
    finally:
        await history.aclose()
        await poller.aclose()


async def show_live(options: WatchOptions, console: Console) -> None:
    """Draw until q, Ctrl-C or SIGTERM. Without a terminal to draw on, print a frame after each poll."""
    poller, history = Poller(options.url, options.name, options.symbols), History(options.url)
    screen = _Screen(options, console, history)
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            await screen.draw(poller)
        else:
            await screen.print(poller)
    finally:
        await history.aclose()
        await poller.aclose()


class _Screen:
    def __init__(self, options: WatchOptions, console: Console, history: History) -> None:
        self._options = options
        self._console = console
        self._history = history
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._moved = asyncio.Event()
        self._live = self._paused = self._state = WatchState(0)
        self._quotes: Sequence[Quote | None] = ()
        self._lanes: Lanes | None = None
        self._settled = bool(options.symbols)  # whether the selected symbol is the user's choice, or was live
        self._view = View(pinned=options.symbols, selected=next(iter(options.symbols), ""))

    async def draw(self, poller: Poller) -> None:
        with signals_caught(lambda _: self._end()), key_presses(self._on_key) as keys:
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
        with signals_caught(lambda _: self._end()):
            while not self._ended.is_set():
                before, self._state = self._state, compared(await poller.poll(), self._state)
                if not (before.problem and self._state.problem):  # once is enough
                    _print(self._state, first_view(self._options.symbols, self._state, keys=False), self._console)
                await self._pause()

    async def _pause(self) -> None:
        """The time between two polls; the end, and a key that asks for another time or symbol, cut it short."""
        self._moved.clear()
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._moved.wait(), self._options.every)

    async def _poll(self, poller: Poller) -> None:
        while not self._ended.is_set():
            self._live = compared(await poller.poll(), self._live)
            if not self._view.paused:
                self._choose(self._live)
            with contextlib.suppress(SinkUnavailable, SchemaMismatch):  # the poll says what is wrong
                await self._read_past()
            if not self._view.paused:
                self._state = self._live
            self._changed.set()
            await self._pause()

    async def _read_past(self) -> None:
        """Read what the view asks for: the books of then, and the selected symbol's best prices up to then."""
        view, now = self._view, self._live.ts
        self._lanes = await self._history.lanes(self._live)
        moment = now
        if view.paused:
            moment = await self._moment(view)
            self._state = await self._history.at(self._paused, moment) if view.back_secs else self._paused
        if view.selected:
            count = columns_of(self._console.size.width)
            self._quotes = await self._history.quotes(view.selected, moment, COLUMN_MS * view.zoom, count)

    async def _moment(self, view: View) -> int:
        """The moment that a paused view asks for, at the earliest where the selected symbol's stream begins."""
        paused_at = self._paused.ts
        moment = paused_at - round(view.back_secs * 1000)
        oldest = await self._history.oldest(view.selected)
        if oldest is None or moment >= oldest or not view.back_secs:
            return moment
        if self._view == view:
            self._view = replace(view, back_secs=max(0.001, (paused_at - oldest) / 1000))
        return min(oldest, paused_at)

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
            self._end()
            return
        before, self._view = self._view, view
        if view.paused and not before.paused:
            self._paused = self._state
        if not view.paused:
            self._state = self._live
        if view.selected != before.selected:
            self._settled, self._quotes = True, ()
        if (view.selected, view.paused, view.back_secs, view.zoom) != (
            *(before.selected, before.paused, before.back_secs, before.zoom),
        ):
            self._moved.set()
        self._changed.set()

    def _end(self) -> None:
        self._ended.set()
        self._moved.set()

    def _draw(self, live: Live) -> None:
        size = self._console.size
        ascii_only = self._console.options.ascii_only
        lines = frame(
            self._state,
            self._view,
            size.width,
            size.height,
            ascii_only=ascii_only,
            quotes=self._quotes,
            lanes=self._lanes,
            now_ms=self._live.ts,
        )
        live.update(Group(*lines), refresh=True)


def _print(state: WatchState, view: View, console: Console, lanes: Lanes | None = None) -> None:
    ascii_only = console.options.ascii_only
    for line in frame(state, view, console.width, None, ascii_only=ascii_only, lanes=lanes, now_ms=state.ts):
        console.print(line, crop=True)
