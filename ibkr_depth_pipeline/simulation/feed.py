"""One contract on one venue while it is followed: its book, its followers, and the task that moves it on."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from ibkr_depth_pipeline.simulation.distortions import Distortion, SentRow, SpoiledRow
from ibkr_depth_pipeline.simulation.replies import Subscription
from ibkr_depth_pipeline.simulation.rows import (
    REFERENCE_DEPTH,
    Book,
    BookSource,
    Change,
    SourceStep,
    WireRow,
    rows_of_change,
    snapshot_rows,
)

_HALTED = 316
"""The error that ends a subscription."""


class Outlet(Protocol):
    """The connection behind a follower, as a feed needs it."""

    @property
    def congested(self) -> bool:
        """Whether so much is unsent that rows should be conflated, or that the connection is stalled."""

    async def drained(self) -> None:
        """Returns when the connection is no longer congested, or gone."""

    def send_rows(self, subscription: Subscription, rows: list[WireRow]) -> None: ...

    def send_spoiled_row(self, subscription: Subscription, spoiled: SpoiledRow) -> None: ...


class Follower:
    """One subscription on a feed, and the book that its client holds."""

    def __init__(self, subscription: Subscription, outlet: Outlet) -> None:
        self.subscription = subscription
        self.outlet = outlet
        self.held: Book | None = None
        """The whole book that the client's rows add up to on a sound line; None before the first row."""
        self.distortion: Distortion | None = None
        """What puts the line out of step; None for a sound one."""
        self.on_open: Callable[[], None] | None = None
        """Called once, after the first opening inserts."""

    def open(self, book: Book) -> None:
        """Sends the opening inserts of the book. The line is sound afterwards."""
        self.held = book
        self.distortion = None
        self.subscription.first_row_sent = True
        self.outlet.send_rows(self.subscription, snapshot_rows(book.clipped(self.subscription.depth)))
        on_open, self.on_open = self.on_open, None
        if on_open is not None:
            on_open()

    def distort(self, distortion: Distortion) -> None:
        """Puts the line out of step. To be called after `open`."""
        if self.held is not None:
            self.distortion = distortion
            self._send(distortion.begin(self.held.clipped(self.subscription.depth)))

    def restore(self, distortion: Distortion) -> None:
        """Makes the line sound again if it is that which puts it out of step."""
        if self.held is not None and self.distortion is distortion:
            self.distortion = None
            self._send(distortion.end(self.held.clipped(self.subscription.depth)))

    def send_changes(self, changes: Sequence[Change], *, lossless: bool) -> None:
        """Sends the rows of the changes; a congested client gets the sum of them later."""
        if self.held is None or not changes or (self.outlet.congested and not lossless):
            return
        depth = self.subscription.depth
        rows: list[WireRow] = []
        if self.held is not changes[0].previous:
            rows += rows_of_change(self.held.clipped(depth), changes[0].previous.clipped(depth), changes[0].style)
        for change in changes:
            rows += change.rows(depth)
        before, self.held = self.held, changes[-1].book
        if self.distortion is not None:
            self._send_distorted(self.distortion, rows, before, changes[-1])
        elif rows:
            self.outlet.send_rows(self.subscription, rows)

    def _send_distorted(self, distortion: Distortion, rows: list[WireRow], before: Book, last: Change) -> None:
        if distortion.over or last.error is not None:
            self.distortion = None  # an error (316, 317) empties the client's book
            self._send(rows)
            return
        depth = self.subscription.depth
        self._send(distortion.rows(rows, before.clipped(depth), last.book.clipped(depth), last.style))

    def _send(self, rows: Sequence[SentRow]) -> None:
        """Sends rows in order, spoiled ones apart from the others."""
        for spoiled, group in groupby(rows, lambda row: isinstance(row, SpoiledRow)):
            if not spoiled:
                self.outlet.send_rows(self.subscription, [row for row in group if isinstance(row, WireRow)])
                continue
            for row in group:
                if isinstance(row, SpoiledRow):
                    self.outlet.send_spoiled_row(self.subscription, row)


@dataclass(slots=True, eq=False)
class LineFault:
    """A fault that applies to the lines of so many more subscriptions of a symbol."""

    name: str
    apply: Callable[[Follower], None]
    times: int


class Feed:
    """Moves one book along its source. Without followers nothing runs: the next one finds the book as of now."""

    def __init__(
        self, source: BookSource, on_end: Callable[[], None], on_error: Callable[[int], None] = lambda code: None
    ) -> None:
        """`on_error` is called for each error in the source, after the rows before it; every follower must get it."""
        self.book = source.book
        self.followers: list[Follower] = []
        self._source = source
        self._on_end = on_end
        self._on_error = on_error
        self._pending: SourceStep | None = None
        self._due = 0.0
        """When the pending step is due, by the loop's clock."""
        self._task: asyncio.Task[None] | None = None
        self._running = asyncio.Event()
        self._running.set()

    def follow(self, follower: Follower) -> None:
        """Opens the follower's book, now or when the feed is resumed, and moves the feed on from there."""
        self.catch_up()
        self.followers.append(follower)
        if self._running.is_set():
            follower.open(self.book)
        self._ensure_running()

    def unfollow(self, subscription: Subscription) -> None:
        """The subscription gets nothing more. Unknown ones are ignored."""
        self.followers = [follower for follower in self.followers if follower.subscription is not subscription]

    def pause(self) -> None:
        """No change leaves this feed until `resume`."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()
        for follower in self.followers:
            if follower.held is None:
                follower.open(self.book)

    def reopen(self) -> None:
        """Every follower gets the present book as inserts again, as after a reset."""
        for follower in self.followers:
            follower.open(self.book)

    def catch_up(self) -> None:
        """Lets the time since the last follower left pass. To be called before the source's pace changes."""
        if self.followers or self._pending is None or (self._task is not None and not self._task.done()):
            return
        now = asyncio.get_running_loop().time()
        late = now - self._due
        if late > 0 and not self._source.quiet:
            self._pending = self._source.pass_time(self._pending, late)
            self.book = self._pending.changes[0].previous
        self._due = now + self._pending.wait

    def wake(self) -> None:
        """To be called when the source, so far quiet or without a step, may have one."""
        self._ensure_running()

    async def burst(self, rows: int, chunk: int = 500) -> None:
        """At least so many rows (of a ten-row subscription) as fast as they can be made, about `chunk` in a write."""
        made = 0
        while made < rows and (changes := self._worth(min(chunk, rows - made))):
            made += _size(changes)
            self._publish(changes)
            await asyncio.sleep(0)

    async def close(self) -> None:
        self.followers = []
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ensure_running(self) -> None:
        has_more = self._pending is not None or not self._source.over
        if has_more and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time()
        while True:
            self._pending = self._pending or self._next()
            if self._pending is None:
                return
            # A feed that fell behind (a busy machine, a pause) does not chase the time it lost.
            self._due = max(self._due + self._pending.wait, loop.time() - 0.5)
            await asyncio.sleep(max(0.0, self._due - loop.time()))
            await self._running.wait()
            if not self.followers or self._source.quiet:
                return
            if self._pending is None:
                continue  # a burst has taken it
            step, self._pending = self._pending, None
            self._publish(step.changes)
            if self._source.lossless:
                await asyncio.gather(*(follower.outlet.drained() for follower in self.followers))

    def _next(self) -> SourceStep | None:
        following = self._source.next_step()
        if following is None and self._source.over:
            self._on_end()
        return following

    def _worth(self, rows: int) -> list[Change]:
        """The next changes, at least so many rows; fewer only if the source is over."""
        changes = list(self._pending.changes) if self._pending else []
        self._pending = None
        while _size(changes) < rows and (more := self._source.next_changes()):
            changes += more
        return changes

    def _publish(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        self.book = changes[-1].book
        for follower in self.followers:
            follower.send_changes(changes, lossless=self._source.lossless)
        error = changes[-1].error
        if error is not None:
            if error == _HALTED:
                self.followers = []  # it goes on with the next subscription
            self._on_error(error)


def _size(changes: Sequence[Change]) -> int:
    return sum(len(change.rows(REFERENCE_DEPTH)) for change in changes)
