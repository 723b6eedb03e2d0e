"""Single keys from the terminal of a box, without echo and without waiting; Ctrl-C stays a signal."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Keyboard:
    """The keys pressed since the last call. A descriptor of None is no keyboard: nothing is ever pressed."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @property
    def there(self) -> bool:
        """Whether keys can be pressed."""
        return self._descriptor is not None

    def pressed(self) -> str:
        """The characters typed since the last call; an arrow is three of them. A terminal that has gone is left."""
        if self._descriptor is None or not _in_foreground(self._descriptor):
            return ""
        with contextlib.suppress(OSError, ValueError):
            if not select.select([self._descriptor], [], [], 0)[0]:
                return ""
            if typed := os.read(self._descriptor, 1024):
                return typed.decode(errors="replace")
        self._descriptor = None
        return ""


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """The keyboard of this process if stdin is a terminal. Afterwards the terminal is as it was."""
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        yield Keyboard(None)
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    if not _in_foreground(descriptor):  # changing its modes would stop us
        yield Keyboard(None)
        return
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield Keyboard(descriptor)
    finally:
        with contextlib.suppress(termios.error, OSError):  # the terminal is gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _in_foreground(descriptor: int) -> bool:
    """Whether the terminal is ours now: a job in the background that reads it is stopped."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False
