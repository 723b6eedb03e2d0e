"""Where a reader starts, and the items that it gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from ibkr_depth_pipeline.schema.decoding import DepthSnapshot
from ibkr_depth_pipeline.schema.gaps import Gap

Item: TypeAlias = DepthSnapshot | Gap
"""What following gives."""

Moment: TypeAlias = int | datetime
"""Unix ms, or an aware datetime."""


@dataclass(frozen=True, slots=True)
class Now:
    """Begin with the first snapshot that is stored after the first read."""


@dataclass(frozen=True, slots=True)
class At:
    """Begin with the first snapshot whose ts is not below this moment."""

    moment: Moment


@dataclass(frozen=True, slots=True)
class After:
    """Begin with the snapshot after this seq. It is searched for: see `DepthReader.follow` for the cost."""

    seq: int


@dataclass(frozen=True, slots=True)
class AfterId:
    """Begin after the snapshot with this stream id, `<ts>-<seq>`. Exact and free: the best way to resume."""

    stream_id: str


NOW = Now()

Start: TypeAlias = Now | At | After | AfterId
Starts: TypeAlias = Start | Mapping[str, Start]
"""One start for all symbols, or one for each."""


def unix_ms(moment: Moment) -> int:
    """`moment` as unix ms. Raises ValueError for a datetime without a time zone."""
    if isinstance(moment, int):
        return moment
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} says no time zone: give an aware datetime or unix ms")
    return round(moment.timestamp() * 1000)
