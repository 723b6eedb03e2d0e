"""The replies to what a raw connection sent, collected in the callbacks that read its socket: they wake no task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError

from ibkr_depth_pipeline.redis_link.internals import NO_MORE_REPLIES, reply_parser

Replies = list[Any] | Exception
"""All that were asked for, with what Redis refused as exceptions among them; or why there are none."""

_READ_BYTES = 1 << 16


class ReplyReceiver(asyncio.BufferedProtocol):
    """Hands over the replies to one batch of commands after the other.

    `expect` announces a batch. Its outcome is delivered in the callback that reads the last reply, or that finds the
    connection lost, or silent for `within` seconds; once, unless `forget` comes first. `is_lost`: it is of no use any
    more, for that or because something came that was not asked for.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self._loop = asyncio.get_running_loop()
        self._parser = reply_parser()
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._wanted = 0
        self._replies: list[Any] = []
        self._deliver: Callable[[Replies], None] | None = None
        self._heard = 0.0  # loop time
        self._watch: asyncio.TimerHandle | None = None
        self.is_lost = False

    def expect(self, wanted: int, deliver: Callable[[Replies], None]) -> None:
        """So many replies are to come, to commands that are sent in this turn of the event loop; no others are due."""
        self._wanted, self._deliver = wanted, deliver
        self._heard = self._loop.time()
        if self._watch is None:  # else it checks again when it is over: a timer for each batch would cost more
            self._watch = self._loop.call_at(self._heard + self._within, self._check)

    def forget(self) -> None:
        """Nothing is to be delivered any more."""
        self._deliver = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _check(self) -> None:
        self._watch = None
        if self._deliver is not None:
            overdue = self._heard + self._within
            if overdue <= self._loop.time():
                self._fail(f"Redis did not answer within {self._within:g} s")
            else:
                self._watch = self._loop.call_at(overdue, self._check)

    def _fail(self, why: str | Exception) -> None:
        deliver, self.is_lost = self._deliver, True
        self.forget()
        if deliver is not None:
            deliver(ConnectionError(why) if isinstance(why, str) else why)

    # ---- what the transport calls

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("Redis closed the connection" + (f": {exc}" if exc is not None else ""))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        replies, gets = self._replies, self._parser.gets
        try:
            self._parser.feed(self._buffer, 0, nbytes)
            while (reply := gets()) is not NO_MORE_REPLIES:
                if isinstance(reply, ConnectionError):  # loading, or no master: each command gets it
                    raise reply
                replies.append(reply)
        except ConnectionError as error:
            return self._fail(error)
        if len(replies) < self._wanted:
            self._heard = self._loop.time()
            return
        deliver, self._deliver, self._replies = self._deliver, None, []
        if deliver is None or len(replies) > self._wanted:
            self._deliver = deliver
            self._fail("Redis sent what was not asked for")
        else:
            deliver(replies)
