"""Counts as shapes and cells, read back from what a browser gets."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from ibkr_depth_pipeline.pictures import SHADES, slot_timeline
from ibkr_depth_pipeline.report.charts import (
    Scale,
    band,
    depth_picture,
    line,
    mark,
    steps,
    stretch,
)
from ibkr_depth_pipeline.report.symbol_day import DepthMap, PriceGrid
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


def test_line_goes_through_the_middle_of_each_bin_and_stops_where_nothing_is_known() -> None:
    assert line(np.array([0.0, 1.0, NAN, 0.5]), UNIT) == "M125.0 100.0L375.0 0.0M750.0 50.0h250.0"
    assert line(np.array([NAN, NAN]), UNIT) == ""


def test_staircase_has_one_step_a_bin_and_is_zero_where_nothing_is_known() -> None:
    assert steps(np.array([0.5, 0.5, NAN, 1.0]), UNIT) == "M0 100H0.0V50.0H500.0V100.0H750.0V0.0H1000V100Z"


def test_band_lies_between_its_lines() -> None:
    low, high = np.array([NAN, 0.25, 0.0]), np.array([NAN, 0.75, 1.0])
    assert band(low, high, UNIT) == "M333.3 75.0V25.0H666.7V0.0H1000.0V100.0H666.7V75.0H333.3Z"


def test_moment_is_a_bar_that_can_be_seen() -> None:
    bins = Bins(0, 1000, 10)
    assert stretch(bins, 5000, 5000) == "M500.0 0H501.5V100H500.0Z"
    assert stretch(bins, -100, 2500) == "M0.0 0H250.0V100H0.0Z"
    assert mark(bins, 2500, "open") == (25.0, "open", False)


def test_slot_timeline_is_darker_the_longer_and_blue_only_if_the_book_was_live() -> None:
    live, held = [1.0, 0.001, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]
    (row,) = cells(slot_timeline([live], [held]))
    assert row == [2 * SHADES, SHADES + 1, SHADES, 0]


def test_depth_has_the_highest_price_on_top_and_the_larger_side_where_both_stood() -> None:
    bids, asks = np.array([[4.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 0.0], [4.0, 4.0]])
    picture = cells(depth_picture(DepthMap("SPY", Bins(0, 1000, 2), PriceGrid(0.0, 1.0, 2), bids, asks)))
    assert picture == [[2 * SHADES, 2 * SHADES], [SHADES, 0]]


def test_depth_without_rows_is_an_empty_picture() -> None:
    nothing = np.zeros((2, 2))
    assert cells(depth_picture(DepthMap("SPY", Bins(0, 1000, 2), PriceGrid(0.0, 1.0, 2), nothing, nothing))) == [
        [0, 0],
        [0, 0],
    ]
