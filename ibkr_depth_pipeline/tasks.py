"""The tasks of a run and their end; signals as calls in the event loop, so that a run can drain before it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

CANCEL_AGAIN_SECS = 0.2


class RunTasks:
    """Runs tasks; an exception in one ends the run: `failure` holds the first, and `stop` is set.

    Only `end` cancels tasks: one that is cancelled otherwise counts as failed.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = False
        self.failure: BaseException | None = None

    def start(self, *works: Coroutine[Any, Any, None]) -> None:
        """Run each of `works` as a task."""
        for work in works:
            task = asyncio.ensure_future(work)
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if not self._ending:
                self.fail(RuntimeError(f"a task was cancelled before the end: {task.get_coro()}"))
        elif (failure := task.exception()) is not None:
            self.fail(failure)

    def fail(self, failure: BaseException) -> None:
        """End the run with `failure`, unless another came first."""
        self.failure = self.failure or failure
        self._stop.set()

    async def unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run `work` until the end of the run. Returns whether it was done; if not, it is cancelled."""
        task = asyncio.ensure_future(work)
        await first_of(asyncio.shield(task), self._stop.wait())
        if task.done():
            await task
            return True
        await end([task])
        return False

    async def end(self) -> None:
        """Cancel every task, and wait."""
        self._ending = True
        await end(self._tasks)


class DeadlineTimer:
    """Calls `on_deadline` at the time that was set last."""

    def __init__(self, on_deadline: Callable[[], None]) -> None:
        self._on_deadline = on_deadline
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float | None) -> None:
        """Replaces the deadline; `at` is the event loop's time, None: no deadline."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None if at is None else asyncio.get_running_loop().call_at(at, self._on_deadline)


def at_most(secs: float, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Wait for `work`, at most `secs`; then it is cancelled, as it is with the task that is returned."""
    task = asyncio.ensure_future(work)  # at once: as a coroutine it would be left behind if the wait never began
    waiting = asyncio.ensure_future(_waited(task, secs))
    waiting.add_done_callback(lambda _: task.cancel())
    return waiting


async def _waited(task: asyncio.Task[None], secs: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
        await asyncio.wait_for(task, secs)


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks until they have ended, and leave what they raise unread.

    One cancellation may not be enough: before Python 3.12 asyncio.wait_for loses one that comes together with its
    result, and a loop around it then never ends.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECS)
        for task in done:
            _ = task.cancelled() or task.exception()


async def first_of(*awaitables: Any, within: float | None = None) -> None:
    """Wait until one of them is done, or for `within` seconds; the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def _to_catch() -> tuple[signal.Signals, ...]:
    """SIGNALS without a SIGHUP that is ignored: under nohup a run outlives its terminal."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return tuple(number for number in SIGNALS if not (ignored and number is signal.SIGHUP))


def has_terminal() -> bool:
    """Whether this process belongs to a terminal, whose end it gets as SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextmanager
def signals_caught(on_signal: Callable[[str], None]) -> Iterator[None]:
    """Call on_signal with the name of each signal within the block; the previous handlers come back afterwards.

    Needs a running event loop. Python lets only the main thread catch signals; in another thread this does nothing.
    """
    loop = asyncio.get_running_loop()
    signals = _to_catch()
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in signals}
    try:
        for number in signals:
            loop.add_signal_handler(number, on_signal, number.name)
    except (ValueError, RuntimeError):
        yield
        return
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # asyncio leaves the default handler for a moment
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
