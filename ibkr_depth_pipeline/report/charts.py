"""Counts as shapes: paths of SVG in a box of 1000 x 100 that the page stretches, and cells as pictures. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ibkr_depth_pipeline.png import Colour, png
from ibkr_depth_pipeline.report.bins import Array, Bins
from ibkr_depth_pipeline.report.depth_map import DepthMap
from ibkr_depth_pipeline.report.scales import Scale, Tick

WIDTH, HEIGHT = 1000, 100
SHADES = 12
_BLUE, _ORANGE, _GREY = (37, 99, 208), (214, 110, 28), (128, 138, 156)
_CLEAR: Colour = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Shape:
    """A path and its class in the style sheet."""

    path: str
    look: str


@dataclass(frozen=True, slots=True)
class Key:
    """A line of a chart's legend: what the class stands for."""

    look: str
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A frame with axes. `height` is in CSS pixels, `picture` a data URI, "" for none."""

    title: str
    unit: str
    values: Sequence[Tick]
    shapes: Sequence[Shape]
    height: int = 150
    keys: Sequence[Key] = ()
    picture: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """A row of happenings over time: its name, their sum, and the shapes."""

    name: str
    total: str
    shapes: Sequence[Shape]


def line(values: Array, scale: Scale) -> str:
    """Through the middle of each bin; nothing if there is no value, a short dash if one stands alone."""
    x = (np.arange(len(values)) + 0.5) * WIDTH / len(values)
    y = HEIGHT - np.clip(scale.of(values), 0, 1) * HEIGHT
    half = WIDTH / len(values) / 2
    parts = []
    for start, end in _known(values):
        points = [f"{x[at]:.1f} {y[at]:.1f}" for at in range(start, end)]
        single = f"M{x[start] - half:.1f} {y[start]:.1f}h{2 * half:.1f}"
        parts.append(single if len(points) == 1 else "M" + "L".join(points))
    return "".join(parts)


def steps(values: Array, scale: Scale) -> str:
    """The area below a staircase: one step a bin, zero if there is no value."""
    x = np.arange(len(values) + 1) * WIDTH / len(values)
    y = HEIGHT - np.clip(np.nan_to_num(scale.of(values)), 0, 1) * HEIGHT
    changes = [0, *(np.flatnonzero(np.diff(y)) + 1).tolist()]
    outline = "".join(f"H{x[at]:.1f}V{y[at]:.1f}" for at in changes)
    return f"M0 {HEIGHT}{outline}H{WIDTH}V{HEIGHT}Z"


def band(low: Array, high: Array, scale: Scale) -> str:
    """The area between two lines, bin by bin."""
    x = np.arange(len(low) + 1) * WIDTH / len(low)
    bottom, top = (HEIGHT - np.clip(scale.of(values), 0, 1) * HEIGHT for values in (low, high))
    parts = []
    for start, end in _known(low):
        upper = "".join(f"V{top[at]:.1f}H{x[at + 1]:.1f}" for at in range(start, end))
        lower = "".join(f"V{bottom[at]:.1f}H{x[at]:.1f}" for at in range(end - 1, start - 1, -1))
        parts.append(f"M{x[start]:.1f} {bottom[start]:.1f}{upper}{lower}Z")
    return "".join(parts)


def stretch(bins: Bins, start: int, end: int, least: float = 1.5) -> str:
    """A bar from `start` to `end` (unix ms) over the whole height, never thinner than `least`."""
    low, high = (float(np.clip((ts - bins.start) / (bins.end - bins.start), 0, 1)) * WIDTH for ts in (start, end))
    return f"M{low:.1f} 0H{max(high, low + least):.1f}V{HEIGHT}H{low:.1f}Z"


def mark(bins: Bins, ts: int, label: str) -> Tick:
    """An upright line."""
    return Tick(round((ts - bins.start) / (bins.end - bins.start) * 100, 2), label)


def held_picture(live: Sequence[Array], held: Sequence[Array], step: int) -> str:
    """One row a symbol: blue where its book was live, grey where it only held a slot; the more, the darker.

    live and held are ms in each bin of `step` ms.
    """
    lines = []
    for live_ms, held_ms in zip(live, held, strict=True):
        shade = np.where(live_ms > 0, SHADES + _shade(live_ms / step), np.where(held_ms > 0, _shade(held_ms / step), 0))
        lines.append(shade.astype(np.uint8).tobytes())
    return _uri(png(lines, [_CLEAR, *_shades(_GREY, 0.45), *_shades(_BLUE, 1.0)]))


def depth_picture(depth: DepthMap) -> str:
    """Bids blue, asks orange; the more there is at a price, the darker. The highest price is on top."""
    sizes = np.concatenate([depth.bids[depth.bids > 0], depth.asks[depth.asks > 0]])
    full = float(np.percentile(sizes, 98)) if len(sizes) else 1.0
    bids, asks = (np.sqrt(np.minimum(side / full, 1)) for side in (depth.bids, depth.asks))
    cells = np.where(bids >= asks, np.where(bids > 0, _shade(bids), 0), SHADES + _shade(asks)).astype(np.uint8)
    lines = [row.tobytes() for row in cells[::-1]]
    return _uri(png(lines, [_CLEAR, *_shades(_BLUE, 0.95), *_shades(_ORANGE, 0.95)]))


def _shade(share: Array) -> Array:
    """From 1 to SHADES, so that little is seen, too."""
    shade: Array = np.clip(np.ceil(share * SHADES), 1, SHADES)
    return shade


def _shades(colour: tuple[int, int, int], most: float) -> list[Colour]:
    return [(*colour, round(255 * most * (0.12 + 0.88 * number / SHADES))) for number in range(1, SHADES + 1)]


def _uri(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _known(values: Array) -> list[tuple[int, int]]:
    """The stretches without NaN, as (start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], ~np.isnan(values), [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
