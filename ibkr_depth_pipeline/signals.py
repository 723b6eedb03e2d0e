"""SIGINT, SIGTERM and SIGHUP as a call in the event loop, so that a run can drain before it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
