"""Viewers and what waits for each: the newest message of a kind, never a queue. No I/O.

A message is encoded once and offered to every viewer that wants it. A viewer that is slow misses frames and is told how
many; it never gets them late.
"""

from __future__ import annotations

import asyncio

import orjson

WINDOW = 24
"""Messages that a viewer may have got and not acknowledged: more wait until it catches up."""

FRAME, STATE, LANES, ALERTS, THINNED = "frame", "state", "lanes", "alerts", "thinned"
"""The kinds of messages."""


class Viewer:
    """One connected browser. `symbol` is the one whose frames it wants, "" for none."""

    def __init__(self) -> None:
        self.symbol = ""
        self._pending: dict[str, bytes] = {}
        self._sent = 0
        self._acknowledged = 0
        self._missed = 0
        self._ready = asyncio.Event()

    def offer(self, kind: str, message: bytes) -> None:
        """Let it have the message, in the place of one of the same kind that it has not got yet."""
        if kind == FRAME and FRAME in self._pending:
            self._missed += 1
        self._pending[kind] = message
        self._wake()

    def watch(self, symbol: str) -> None:
        """Want the frames of another symbol; none of the former one comes any more."""
        self.symbol = symbol
        self._pending.pop(FRAME, None)

    def acknowledge(self, count: int) -> None:
        """It has handled the first `count` messages."""
        self._acknowledged = max(self._acknowledged, min(count, self._sent))
        self._wake()

    def note_thinned(self) -> None:
        """Let it know how many frames it missed since the last such note, if any."""
        if self._missed:
            self.offer(THINNED, orjson.dumps({"k": THINNED, "frames": self._missed}))
            self._missed = 0

    @property
    def due(self) -> bool:
        """Whether something is to be sent now."""
        return self._ready.is_set()

    async def take(self) -> list[bytes]:
        """What is to be sent now; waits until there is something and the viewer can take it."""
        await self._ready.wait()
        messages = list(self._pending.values())
        self._pending.clear()
        self._sent += len(messages)
        self._ready.clear()
        return messages

    def _wake(self) -> None:
        if self._pending and self._sent - self._acknowledged < WINDOW:
            self._ready.set()


class Viewers:
    """All viewers; the newest message of a kind that is for all is kept for those who come later."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._viewers: set[Viewer] = set()
        self._newest: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def kept(self) -> frozenset[str]:
        """The kinds of messages that a new viewer gets at once."""
        return frozenset(self._newest)

    def join(self) -> Viewer | None:
        """A new viewer; None if there are too many."""
        if len(self._viewers) >= self._most:
            return None
        viewer = Viewer()
        self._viewers.add(viewer)
        for kind, message in self._newest.items():
            viewer.offer(kind, message)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """It has gone."""
        self._viewers.discard(viewer)

    def publish(self, kind: str, message: bytes) -> None:
        """Offer it to every viewer."""
        self._newest[kind] = message
        for viewer in self._viewers:
            viewer.offer(kind, message)

    def publish_frame(self, symbol: str, message: bytes) -> None:
        """Offer it to those that watch the symbol."""
        for viewer in self._viewers:
            if viewer.symbol == symbol:
                viewer.offer(FRAME, message)

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that somebody watches."""
        return frozenset(viewer.symbol for viewer in self._viewers if viewer.symbol)

    def note_thinned(self) -> None:
        """Send each viewer how much it missed."""
        for viewer in self._viewers:
            viewer.note_thinned()
