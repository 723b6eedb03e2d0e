"""Counts as shapes and cells, read back from what a browser gets."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from itertools import pairwise

import numpy as np

from ibkr_depth_pipeline.pictures import SHADES, slot_timeline
from ibkr_depth_pipeline.report.charts import (
    Scale,
    band,
    line,
    mark,
    steps,
)
from ibkr_depth_pipeline.report.timeline import Bins

UNIT = Scale(0.0, 1.0)
NAN = np.nan


def cells(uri: str) -> list[list[int]]:
    """The numbers in a palette picture, line by line, by the PNG specification."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        chunks[kind] = body
        at += 12 + length
    width, height, depth, colours = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (depth, colours) == (8, 3)
    assert len(chunks[b"PLTE"]) == 3 * len(chunks[b"tRNS"]) == 3 * (1 + 2 * SHADES)
    rows = zlib.decompress(chunks[b"IDAT"])
    return [list(rows[row * (width + 1) + 1 : (row + 1) * (width + 1)]) for row in range(height)]


Point = tuple[float, float]


def outlines(path: str) -> list[list[Point]]:
    """The points of each part of an SVG path, as a browser would join them by straight lines."""
    parts: list[list[Point]] = []
    for command, numbers in re.findall(r"([MLHVhZ])([-\d. ]*)", path):
        given = [float(number) for number in numbers.split()]
        x, y = parts[-1][-1] if parts else (0.0, 0.0)
        match command:
            case "M":
                parts.append([(given[0], given[1])])
            case "L":
                parts[-1].append((given[0], given[1]))
            case "H":
                parts[-1].append((given[0], y))
            case "h":
                parts[-1].append((x + given[0], y))
            case "V":
                parts[-1].append((x, given[0]))
    return parts


def covered(path: str, x: float) -> tuple[float, float] | None:
    """The lowest and highest point of the shape at `x` (0 at the bottom, 100 on top); None if it is not there."""
    for part in outlines(path):
        closed = [*part, part[0]]
        crossings = [100 - a[1] for a, b in pairwise(closed) if (a[0] - x) * (b[0] - x) < 0]
        if crossings:
            return min(crossings), max(crossings)
    return None


def test_line_goes_through_the_middle_of_each_bin_and_stops_at_unknown_values() -> None:
    values = np.array([0.0, 1.0, NAN, 0.5])
    joined, single = outlines(line(values, UNIT))
    assert joined == [(125.0, 100.0), (375.0, 0.0)]
    assert single == [(750.0, 50.0), (1000.0, 50.0)], "a value that stands alone is a dash as wide as its bin"
    assert line(np.array([NAN, NAN]), UNIT) == ""


def test_staircase_has_one_step_a_bin_and_is_zero_at_unknown_values() -> None:
    path = steps(np.array([0.5, 0.5, NAN, 1.0]), UNIT)
    assert [covered(path, x) for x in (1, 249, 251, 499, 751, 999)] == [(0, 50)] * 4 + [(0, 100)] * 2
    assert covered(path, 600) == (0, 0)


def test_band_lies_between_its_lines() -> None:
    path = band(np.array([NAN, 0.25, 0.0]), np.array([NAN, 0.75, 1.0]), UNIT)
    assert [covered(path, x) for x in (100, 334, 666, 667, 999)] == [None, (25, 75), (25, 75), (0, 100), (0, 100)]


def test_mark_stands_at_its_time() -> None:
    assert mark(Bins(0, 1000, 10), 2500, "open") == (25.0, "open", False)


def test_slot_timeline_is_darker_the_longer_and_blue_only_if_the_book_was_live() -> None:
    live, held = [1.0, 0.001, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]
    (row,) = cells(slot_timeline([live], [held]))
    assert row == [2 * SHADES, SHADES + 1, SHADES, 0]
