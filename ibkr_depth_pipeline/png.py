"""Cells of a few colours as a PNG: what SVG would need a shape each for. Pure."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

Colour = tuple[int, int, int, int]
"""Red, green, blue and opacity, from 0 to 255."""


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
