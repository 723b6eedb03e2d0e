"""The terminal's own colours, or a light or dark ground with colours that stand out from it. Pure."""

from __future__ import annotations

from rich.text import Span, Text

from ibkr_depth_pipeline.tui.ladder import ASK, BID

THEMES = ("", "light", "dark")
"""What t goes through; the first is the terminal's own."""

_GROUNDS = {"light": "#161c26 on #ffffff", "dark": "#e3e8ef on #12151c"}
_ON_LIGHT = {BID: "#1f5fbf", ASK: "#b3560f", "green": "#20703a", "yellow": "#7a5a00", "red": "#a8201a"}
"""What takes the place of colours that are meant for a dark ground."""


def themed(line: Text, theme: str, width: int) -> Text:
    """The line over the whole width on the theme's ground; as it is for the terminal's own."""
    ground = _GROUNDS.get(theme)
    if ground is None:
        return line
    shown = Text(style=f"{ground} {_colours(str(line.style), theme)}".strip(), no_wrap=True, overflow="crop")
    shown.append(line.plain.ljust(width))
    shown.spans = [Span(start, end, _colours(str(style), theme)) for start, end, style in line.spans]
    return shown


def _colours(style: str, theme: str) -> str:
    words = style.split()
    return " ".join(_ON_LIGHT.get(word, word) for word in words) if theme == "light" else style
