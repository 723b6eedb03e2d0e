"""What the web page and the report of a day draw with, in the browser: colours, map, lanes, ladder, numbers as texts.

The web page loads these files from its own host; the report holds them in itself (`stylesheet`, `script`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
_MODULES = ("format.js", "palette.js", "heatmap.js", "lanes.js", "ladder.js")
"""Each imports those before it alone."""
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def stylesheet() -> str:
    """The colours and what else of style both share."""
    return (FOLDER / "drawing.css").read_text()


def script() -> str:
    """All modules as one, for a page without a host: nothing is imported, each name is that of its export."""
    return "".join(_inlined())


def _inlined() -> Iterator[str]:
    for name in _MODULES:
        yield _EXPORT.sub("", _IMPORT.sub("", (FOLDER / name).read_text()))
