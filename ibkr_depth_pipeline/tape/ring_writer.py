"""The thread that writes a ring: what is put is carried out in order, and nobody waits for the disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import NamedTuple

MOST_QUEUED_BYTES = 16 << 20
"""How much may wait for a slow disk."""


class _Work(NamedTuple):
    carry_out: Callable[[], None]
    size: int
    always: bool


class RingWriter:
    """`put` work, or `call` and wait for it. After a failure only what is to be done `always` is carried out."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._put = 0  # bytes: each of the two is written by one thread alone
        self._done = 0
        self._thread = threading.Thread(target=self._run, name="flight_recorder", daemon=True)
        self.failure: Exception | None = None

    def start(self) -> None:
        """Starts the thread. A daemon: a disk that hangs must not hold up the end of the process."""
        self._thread.start()

    @property
    def queued(self) -> int:
        """Bytes that wait."""
        return self._put - self._done

    def put(self, work: Callable[[], None], size: int = 0, *, always: bool = False) -> None:
        """Has it carried out; size: bytes that it holds. Check `queued` before."""
        self._put += size
        self._queue.put(_Work(work, size, always))

    async def call(self, work: Callable[[], None]) -> None:
        """Waits until it is carried out, behind all that was put; if cancelled before, it is not.

        Raises what it raises, which is no `failure`.
        """
        done: Future[None] = Future()

        def carry_out() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                work()
            except Exception as problem:
                done.set_exception(problem)
            else:
                done.set_result(None)

        self.put(carry_out, always=True)
        await asyncio.wrap_future(done)

    async def close(self) -> None:
        """Ends the thread, and waits until all that was put is carried out."""
        ended = asyncio.ensure_future(self.call(lambda: None))
        await asyncio.sleep(0)
        self._queue.put(None)
        await ended

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            if self.failure is None or work.always:
                try:
                    work.carry_out()
                except Exception as problem:
                    self.failure = problem
            self._done += work.size
