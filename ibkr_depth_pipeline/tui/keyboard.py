"""Keys: read one by one without echo, and what each does to the view. Pure but for `key_presses`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from ibkr_depth_pipeline.tui.theme import THEMES
from ibkr_depth_pipeline.tui.view import ALERTS, LANES, ORDERS, View

_NEXT = frozenset({"\x1b[B", "\x1bOB", "\t", "j"})
_BACK = frozenset({"\x1b[A", "\x1bOA", "\x1b[Z", "k"})
_EARLIER = frozenset({"\x1b[D", "\x1bOD", "h"})
_LATER = frozenset({"\x1b[C", "\x1bOC", "l"})
_PAUSE = frozenset({" ", "p"})
_ESCAPE = "\x1b"
_ENTER = frozenset({"\r", "\n"})
_ERASE = frozenset({"\x7f", "\x08"})
_STEP_SECS = 5.0
_ZOOMS = (1, 2, 4, 8)
_PAGES = {"a": ALERTS, "w": LANES}
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
    """The view after `key` was pressed; None to quit. symbols: those of the table, in its order."""
    if view.typing and key not in _QUIT - {"q", "Q"}:
        return _typed(key, view, symbols)
    if key in _QUIT:
        return None
    if view.help:
        return replace(view, help=False)
    if key in _NEXT or key in _BACK:
        return _neighbour((key in _NEXT) - (key in _BACK), view, symbols)
    if key in _EARLIER or key in _LATER:
        return _moved(view, view.zoom * (_STEP_SECS if key in _EARLIER else -_STEP_SECS))
    if key in _PAUSE:
        return replace(view, paused=not view.paused, back_secs=0.0)
    return _changed(key, view)


def _changed(key: str, view: View) -> View:
    """The view after a key that has nothing to do with symbol or time."""
    match key:
        case "0":
            return replace(view, paused=False, back_secs=0.0)
        case "\x1b":
            return replace(view, paused=False, back_secs=0.0, filter="", page="")
        case "/":
            return replace(view, typing=True, filter="")
        case "s":
            columns = ["", *ORDERS]
            at = columns.index(view.sort) if view.sort in columns else 0
            return replace(view, sort=columns[(at + 1) % len(columns)], descending=False)
        case "r":
            return replace(view, descending=bool(view.sort) and not view.descending)
        case "+" | "=" | "-":
            at = _ZOOMS.index(view.zoom) + (1 if key == "-" else -1)
            return replace(view, zoom=_ZOOMS[min(max(at, 0), len(_ZOOMS) - 1)])
        case "a" | "w":
            return replace(view, page="" if view.page == _PAGES[key] else _PAGES[key])
        case "t":
            return replace(view, theme=THEMES[(THEMES.index(view.theme) + 1) % len(THEMES)])
        case "?":
            return replace(view, help=True)
        case _:
            return view


def _moved(view: View, secs: float) -> View:
    """So much earlier; at the moment of the pause, and later, it is now again."""
    back = view.back_secs + secs
    return replace(view, paused=True, back_secs=back) if back > 0 else replace(view, paused=False, back_secs=0.0)


def _typed(key: str, view: View, symbols: Sequence[str]) -> View:
    """The view after a key of the filter."""
    if key in _ENTER:
        chosen = symbols[0] if symbols else view.selected
        return replace(view, typing=False, selected=chosen, filter=view.filter if symbols else "")
    if key == _ESCAPE:
        return replace(view, typing=False, filter="")
    if key in _ERASE:
        return replace(view, filter=view.filter[:-1])
    return replace(view, filter=view.filter + key) if len(key) == 1 and key.isprintable() else view


def _neighbour(step: int, view: View, symbols: Sequence[str]) -> View:
    if not symbols:
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
