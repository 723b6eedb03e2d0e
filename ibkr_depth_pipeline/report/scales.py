"""Where a value lies on an axis, which values are marked there, and how numbers and times are written. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np

from ibkr_depth_pipeline.report.bins import Array, Bins

_TIME_STEPS_SECS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600)
_MOST_TIMES = 14
_RARE_TIMES = 3.0


class Tick(NamedTuple):
    """A mark on an axis: where (percent of its length), what stands there, and whether a narrow page leaves it out."""

    at: float
    label: str
    minor: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to parts of a height: 0 at `low`, 1 at `high`; `log` by their logarithms."""

    low: float
    high: float
    log: bool = False

    def of(self, values: Array) -> Array:
        """The part of each value, NaN if there is none."""
        if not self.log:
            return (values - self.low) / (self.high - self.low)
        with np.errstate(divide="ignore"):
            logs = np.log10(np.maximum(values, self.low))
        return (logs - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))

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
    """From a power of ten to another, with all values above zero between them and none at the very bottom."""
    known = values[values > 0]
    if not len(known):
        return Scale(1.0, 10.0, log=True)
    low, high = math.floor(math.log10(float(known.min())) - 0.05), math.ceil(math.log10(float(known.max())))
    return Scale(10.0**low, 10.0 ** max(high, low + 1), log=True)


def nice_step(rough: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is not below `rough`, which is above 0."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * part for part in (1, 2, 2.5, 5, 10) if power * part >= rough * (1 - 1e-9))


def time_ticks(bins: Bins) -> list[Tick]:
    """Marks at round times of the UTC day; of three, a narrow page shows one."""
    span = bins.end - bins.start
    step = next((secs for secs in _TIME_STEPS_SECS if span / secs / 1000 <= _MOST_TIMES), _TIME_STEPS_SECS[-1]) * 1000
    marks = range(-(-bins.start // step) * step, bins.end + 1, step)
    shown = "%H:%M" if step >= 60_000 else "%H:%M:%S"
    return [
        Tick(round((ts - bins.start) / span * 100, 2), _utc(ts).strftime(shown), minor=bool(index % 3))
        for index, ts in enumerate(marks)
    ]


def number(value: float) -> str:
    """`12,345`, `0.25`, `1.5`: as many digits as say something."""
    if abs(value) >= 1000 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def rate(value: float) -> str:
    """`12.3`, `0.31`: what is rare has two digits as well, and is not told as never."""
    if 0 < value < 0.01:
        return "below 0.01"
    return number(round(value, 1) if value >= 10 else float(f"{value:.2g}"))


def _utc(ts: int) -> datetime:
    return datetime.fromtimestamp(ts / 1000, timezone.utc)
