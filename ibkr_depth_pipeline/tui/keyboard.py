"""Keys: read one by one without echo, and what each does to the view. Pure but for `key_presses`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from ibkr_depth_pipeline.tui.render import View

_NEXT = frozenset({"\x1b[B", "\x1b[C", "\x1bOB", "\x1bOC", "\t", "j", "l"})
_BACK = frozenset({"\x1b[A", "\x1b[D", "\x1bOA", "\x1bOD", "\x1b[Z", "k", "h"})
_PAUSE = frozenset({" ", "p"})
_QUIT = frozenset({"q", "Q", "\x03", "\x04"})


def split_keys(text: str) -> list[str]:
    """The keys of typed text; an arrow is one key of three characters."""
    keys = []
    while text:
        length = 3 if text[:2] in ("\x1b[", "\x1bO") else 1
        keys.append(text[:length])
        text = text[length:]
    return keys


def after_key(key: str, view: View, symbols: Sequence[str]) -> View | None:
    """The view after `key` was pressed; None to quit."""
    if key in _QUIT:
        return None
    if key in _PAUSE:
        return replace(view, paused=not view.paused)
    step = (key in _NEXT) - (key in _BACK)
    if not step or not symbols:
        return view
    at = symbols.index(view.selected) if view.selected in symbols else (-1 if step > 0 else 0)
    return replace(view, selected=symbols[(at + step) % len(symbols)])


@contextmanager
def key_presses(on_key: Callable[[str], None]) -> Iterator[bool]:
    """Call `on_key` for each key pressed within the block; yields False if there is no keyboard.

    Needs a running event loop. Afterwards the terminal is as it was.
    """
    if not sys.stdin or not sys.stdin.isatty():
        yield False
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def read() -> None:
        text = os.read(descriptor, 1024).decode(errors="replace")
        if not text:  # the terminal is gone
            loop.remove_reader(descriptor)
            on_key("\x04")
        for key in split_keys(text):
            on_key(key)

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, read)
    try:
        yield True
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
