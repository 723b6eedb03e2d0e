"""Counts as shapes: scales, ticks, SVG paths in a box of 1000 x 100 that the page stretches. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np

from ibkr_depth_pipeline.report.timeline import Array, Bins

_TIME_STEPS_SECS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600)
_MOST_TIMES, _MOST_WITH_SECONDS = 14, 9
_RARE_TIMES = 3.0
_ZERO_PART = 0.12


class Tick(NamedTuple):
    """A mark on an axis: where (percent of its length), what stands there, and whether a narrow page leaves it out."""

    at: float
    label: str
    minor: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to parts of a height: 0 at `low`, 1 at `high`; `log` by their logarithms.

    with_zero: a logarithmic one has a part of its own at the bottom for what is 0.
    """

    low: float
    high: float
    log: bool = False
    with_zero: bool = False

    @property
    def foot(self) -> float:
        """The part of the height that stands for 0, below the logarithms."""
        return _ZERO_PART if self.with_zero else 0.0

    def of(self, values: Array) -> Array:
        """The part of each value, NaN if there is none."""
        if not self.log:
            return (values - self.low) / (self.high - self.low)
        with np.errstate(divide="ignore"):
            logs = np.log10(np.maximum(values, self.low))
        part = (logs - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        risen: Array = self.foot + (1 - self.foot) * part
        return np.where(values == 0, 0.0, risen) if self.with_zero else risen

    def ticks(self, most: int = 4) -> list[Tick]:
        """Marks at round values."""
        if self.log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            every = max(1, math.ceil((last - first) / most))
            marks = [10.0**power for power in range(first, last + 1, every)]
        else:
            step = nice_step((self.high - self.low) / most)
            first, last = math.ceil(self.low / step - 1e-6), math.floor(self.high / step + 1e-6)
            marks = [step * count for count in range(first, last + 1)]
            digits = next((places for places in range(7) if abs(round(step, places) - step) < step / 1000), 7)
        labels = [number(mark) if self.log else f"{mark:,.{digits}f}" for mark in marks]
        if self.with_zero:
            marks, labels = [0.0, *marks], ["0", *labels]
        places = self.of(np.array(marks))
        return [Tick(round(float(at) * 100, 2), label) for at, label in zip(places, labels, strict=True)]


def from_zero(values: Array) -> Scale:
    """From zero to a round number above the highest value."""
    top = float(np.nanmax(values)) if len(values) and not np.all(np.isnan(values)) else 0.0
    if top <= 0:
        return Scale(0.0, 1.0)
    step = nice_step(top / 4)
    return Scale(0.0, step * math.ceil(1.02 * top / step))


def usual(values: Array) -> Array:
    """The values without the few that would make a picture of all others a flat line."""
    known = values[~np.isnan(values)]
    if not len(known):
        return known
    limit = _RARE_TIMES * float(np.percentile(known, 95))
    found: Array = known[known <= limit] if limit > 0 else known
    return found


def decades(values: Array) -> Scale:
    """From a power of ten to another, with all values above zero between them, and 0 below them if any value is."""
    known, with_zero = values[values > 0], bool(np.any(values == 0))
    if not len(known):
        return Scale(1.0, 10.0, log=True, with_zero=with_zero)
    low, high = math.floor(math.log10(float(known.min())) - 0.05), math.ceil(math.log10(float(known.max())))
    return Scale(10.0**low, 10.0 ** max(high, low + 1), log=True, with_zero=with_zero)


def nice_step(rough: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is not below `rough`, which is above 0."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * part for part in (1, 2, 2.5, 5, 10) if power * part >= rough * (1 - 1e-9))


def time_step(bins: Bins) -> int:
    """The ms between two marks of the axis of time."""
    span_secs = (bins.end - bins.start) / 1000
    fits = (
        secs for secs in _TIME_STEPS_SECS if span_secs / secs <= (_MOST_TIMES if secs >= 60 else _MOST_WITH_SECONDS)
    )
    return 1000 * next(fits, _TIME_STEPS_SECS[-1])


def time_ticks(bins: Bins) -> list[Tick]:
    """Marks at round times of the UTC day; of three, a narrow page shows one."""
    span, step = bins.end - bins.start, time_step(bins)
    marks = range(-(-bins.start // step) * step, bins.end + 1, step)
    shown = "%H:%M" if step >= 60_000 else "%H:%M:%S"
    return [
        Tick(round((ts - bins.start) / span * 100, 2), _utc(ts).strftime(shown), minor=bool(index % 3))
        for index, ts in enumerate(marks)
    ]


def number(value: float) -> str:
    """`12,345`, `0.25`, `1.5`: as many digits as are worth reading."""
    if abs(value) >= 1000 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def rate(value: float) -> str:
    """`12.3`, `0.31`: what is rare has two digits as well, and is not shown as 0."""
    if 0 < value < 0.01:
        return "below 0.01"
    return number(round(value, 1) if value >= 10 else float(f"{value:.2g}"))


def _utc(ts: int) -> datetime:
    return datetime.fromtimestamp(ts / 1000, timezone.utc)


# ---- shapes


WIDTH, HEIGHT = 1000, 100


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
    """A frame with axes. `height` is in CSS pixels, `picture` a data URI, "" for none. With a `scale` the values of its
    lines can be read at the pointer."""

    title: str
    unit: str
    values: Sequence[Tick]
    shapes: Sequence[Shape]
    height: int = 150
    keys: Sequence[Key] = ()
    scale: Scale | None = None


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


def mark(bins: Bins, ts: int, label: str) -> Tick:
    """An upright line."""
    return Tick(round((ts - bins.start) / (bins.end - bins.start) * 100, 2), label)


def _known(values: Array) -> list[tuple[int, int]]:
    """The stretches without NaN, as (start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], ~np.isnan(values), [False])).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
