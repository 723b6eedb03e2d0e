"""Durations, prices and times as people read them. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from ibkr_depth_pipeline.errors import ConfigurationError


def duration(ms: float, *, fine: bool = False) -> str:
    """A duration in text: `42 s`, `3 min 5 s`, `2 h 7 min`; 0 if it is negative.

    fine: `850 ms`, `12.4 s`, `3 min 05 s`, `2 h 07 min`, as in a column of figures.
    """
    ms = max(0, ms)
    if fine and ms < 59_950:
        return f"{ms:.0f} ms" if ms < 999.5 else f"{ms / 1000:.1f} s"
    seconds, digits = round(ms / 1000), "02d" if fine else "d"
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:{digits}} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:{digits}} min"


def short_duration(secs: float | None) -> str:
    """A duration in the cell of a table, in at most seven columns: `9.5 s`, `40 min`, `7 h`, `12 d`; `-` for None."""
    if secs is None:
        return "-"
    if secs < 100:
        return f"{secs:.1f} s"
    if secs < 6_000:
        return f"{secs / 60:.0f} min"
    return f"{secs / 3600:.0f} h" if secs < 360_000 else f"{secs / 86_400:.0f} d"


def price(value: float) -> str:
    """Two digits if the price is whole cents, otherwise as many as nine columns hold."""
    return f"{value:.2f}" if round(value, 2) == value else f"{value:.8g}"


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNIT_SECS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_DURATION_SECS = 86400.0


def parse_duration(text: str) -> float:
    """The seconds of `90`, `90s`, `10m`, `1.5h` or `1d`. Raises ConfigurationError, also above a day."""
    found = _DURATION.fullmatch(text.strip().lower())
    secs = float(found[1]) * _UNIT_SECS[found[2]] if found else -1.0
    if not 0 <= secs <= LONGEST_DURATION_SECS:
        allowed = "seconds, or a number with s, m, h or d, such as 90s, 10m or 1h, up to a day"
        raise ConfigurationError("duration", [f"{text!r} is not allowed; {allowed}"])
    return secs


def utc(ts: int) -> str:
    """`2026-11-25 14:30:00 UTC` of unix ms."""
    return _moment(ts).strftime("%Y-%m-%d %H:%M:%S UTC")


def utc_clock(ts: int) -> str:
    """`14:30:05` of unix ms, in UTC."""
    return _moment(ts).strftime("%H:%M:%S")


def _moment(ts: int) -> datetime:
    return datetime.fromtimestamp(ts // 1000, timezone.utc)
