"""Cells of a few colours as PNG pictures: who held a slot when, and what else SVG would need a shape each for. Pure."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Colour = tuple[int, int, int, int]
"""Red, green, blue and opacity, from 0 to 255."""
CLEAR: Colour = (0, 0, 0, 0)
BLUE, ORANGE, GREY = (37, 99, 208), (214, 110, 28), (128, 138, 156)
SHADES = 12


class SlotShares(NamedTuple):
    """The share of each of equal parts of the time, from 0 to 1, a row a symbol: its book was live, it held a slot."""

    live: Sequence[Sequence[float]]
    held: Sequence[Sequence[float]]


def slot_timeline(live: Iterable[Sequence[float]], held: Iterable[Sequence[float]] | None = None) -> str:
    """Who held a slot when, as a data URI: a row a symbol, a column a part of the time, clear if there is nothing.

    A cell is blue if the symbol's book was live, grey if it only held a slot; the longer, the darker. `live` and `held`
    are the shares of each part, from 0 to 1; `held` None if it is not known.
    """
    rows = list(live)
    claims = [[0.0] * len(row) for row in rows] if held is None else held
    lines = [
        bytes(map(_slot_cell, live_shares, held_shares)) for live_shares, held_shares in zip(rows, claims, strict=True)
    ]
    return data_uri(png(lines, [CLEAR, *shades(GREY, 0.45), *shades(BLUE, 1.0)]))


def _slot_cell(live: float, held: float) -> int:
    return SHADES + shade(live) if live > 0 else shade(held)


def shade(share: float) -> int:
    """0 for nothing at all, at least 1 for anything, so that little is seen, too; SHADES for all."""
    return min(SHADES, math.ceil(share * SHADES)) if share > 0 else 0


def shades(colour: tuple[int, int, int], most: float) -> list[Colour]:
    """SHADES of a colour, from nearly clear to an opacity of `most` (0 to 1)."""
    return [(*colour, round(255 * most * (0.12 + 0.88 * number / SHADES))) for number in range(1, SHADES + 1)]


def data_uri(picture: bytes) -> str:
    """The PNG as the address of an image that stands in the page itself."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def png(lines: Sequence[bytes], palette: Sequence[Colour]) -> bytes:
    """One byte a cell, a number of the palette's (PNG specification, colour type 3). Every line is equally long."""
    header = struct.pack(">IIBBBBB", len(lines[0]), len(lines), 8, 3, 0, 0, 0)
    colours = bytes(part for colour in palette for part in colour[:3])
    opacities = bytes(colour[3] for colour in palette)
    rows = b"".join(b"\0" + line for line in lines)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", colours),
        (b"tRNS", opacities),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
