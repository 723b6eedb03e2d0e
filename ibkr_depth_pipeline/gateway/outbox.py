"""The way of messages from a client to its socket, at the pace of a token bucket: the event loop's side of pacing.py.

A 100 names no message, so whatever was sent shortly before it may be lost. Each such message is sent once more unless
it is no longer needed: a cancel that was heeded is answered by 310, a depth request that was accepted by 322, and
neither changes anything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ibkr_depth_pipeline.gateway.pacing import SendQueue, TokenBucket

OPEN_ORDERS, DETAILS, DEPTH, CANCEL, TIME, START, DEPTH_EXCHANGES = 5, 9, 10, 11, 49, 71, 82
"""Message types, by the number that begins a message."""

_QUESTIONS = (DETAILS, DEPTH_EXCHANGES)
_WITH_REQUEST = (DETAILS, DEPTH, CANCEL)

SUSPECT_SECS = 2.0
"""A 100 may mean any message of the last so many seconds: the gateway's second, and the way there and back."""


class Outgoing(NamedTuple):
    """A message as ib_insync wrote it; kind is its type's number, request its id, or 0 where it has none."""

    text: str
    kind: int
    request: int

    @classmethod
    def of_text(cls, text: str) -> Outgoing:
        """The message that `text` is: type, version and id are its first fields, where it has them."""
        fields = text.split("\0", 3)
        kind = int(fields[0])
        return cls(text, kind, int(fields[2]) if kind in _WITH_REQUEST else 0)


class Outbox:
    """Sends what is `put` as soon as the bucket allows, urgent messages first, each kind in its order.

    write(text) puts a message on the socket; on_sent(message, again) hears of each before; is_needed(message) says
    whether one that may be lost is to be sent again. Several outboxes may share one bucket: the limit is the account's.
    """

    def __init__(
        self,
        bucket: TokenBucket,
        write: Callable[[str], None],
        on_sent: Callable[[Outgoing, bool], None],
        is_needed: Callable[[Outgoing], bool],
    ) -> None:
        self._bucket = bucket
        self._write = write
        self._on_sent = on_sent
        self._is_needed = is_needed
        self._queue: SendQueue[tuple[Outgoing, bool]] = SendQueue()  # with whether it is sent once more
        self._sent: deque[tuple[float, Outgoing]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def put(self, message: Outgoing) -> None:
        """Send it, now or when its turn comes, unless what still waits makes it needless.

        A depth request that was not sent yet goes with its cancel, and one question for the time stands for all that
        are asked meanwhile: at a low rate the queue would only grow, and each request would be cancelled before it is
        sent.
        """
        if message.kind == CANCEL and self._withdraw_request(message.request):
            return
        if message.kind == TIME and self._queue.find(lambda waiting: waiting[0].kind == TIME) is not None:
            return
        self._queue.put((message, False), urgent=message.kind not in _QUESTIONS)
        self._send_what_may_be_sent()

    def _withdraw_request(self, request: int) -> bool:
        """Forget a depth request that was never sent. Returns whether there was one."""
        unsent = self._queue.find(lambda waiting: waiting[0][1:] == (DEPTH, request) and not waiting[1])
        if unsent is not None:
            self._queue.withdraw(unsent)
        return unsent is not None

    def violated(self) -> bool:
        """The gateway answered 100: slow down, and send again what may be lost. Returns whether the rate was lowered.

        Contract details are left to whoever asked: they are asked again under another id.
        """
        now = self._loop.time()
        lowered = self._bucket.violated(now)
        suspects = [message for at, message in self._sent if at >= now - SUSPECT_SECS and message.kind != DETAILS]
        self._sent.clear()
        self._queue.put_back((message, True) for message in suspects)
        self._send_what_may_be_sent()
        return lowered

    async def urgent_sent(self) -> None:
        """Returns once no urgent message waits any more."""
        while self._queue.urgent:
            now = self._loop.time()
            await asyncio.sleep(self._bucket.ready_at(now) - now)

    @property
    def rate(self) -> float:
        """Messages a second in force."""
        return self._bucket.rate

    def close(self) -> None:
        """The connection is gone, and what waits with it."""
        self._queue.clear()
        self._sent.clear()
        self._set_timer(None)

    def _send_what_may_be_sent(self) -> None:
        now = self._loop.time()
        while self._queue and self._bucket.ready_at(now) <= now:
            message, again = self._queue.take()
            if not again or self._is_needed(message):
                self._bucket.take(now)
                self._send(message, again, now)
        self._set_timer(self._bucket.ready_at(now) if self._queue else None)

    def _send(self, message: Outgoing, again: bool, now: float) -> None:
        while self._sent and self._sent[0][0] < now - SUSPECT_SECS:
            self._sent.popleft()
        self._sent.append((now, message))
        self._on_sent(message, again)
        self._write(message.text)

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._send_what_may_be_sent)
