"""Where a range or a following starts and ends, in any form that a caller may have, and what it gives. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from typing import Any, TypeAlias

from ibkr_depth_pipeline.schema.decoding import DepthSnapshot
from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import parts_of_id

# ---- starts and ends


Moment: TypeAlias = int | str | datetime | date
"""Unix ms, an aware datetime, a date (its first moment, in UTC) or an ISO text (in UTC, unless it says otherwise)."""


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
"""A position between two snapshots, typed. As an end it lets through what stands before it."""

Point: TypeAlias = Start | Moment
"""A start or an end. Besides what Start and Moment allow: a seq, or the text of a stream id.

A plain int below SEQS_BELOW is a seq, from MS_FROM on it is unix ms. A start is held, an end is not: `start=5` begins
with seq 5, `end=5` stops after seq 4.
"""

Points: TypeAlias = Point | Mapping[str, Point]
"""One for all symbols, or one for each."""

SEQS_BELOW = 10**9
MS_FROM = 10**11
"""In 1973. Between the two stands what is most likely unix seconds, and is refused."""

_LAST_MS = 253_402_300_799_999  # the end of 9999, the last year that a datetime can have
_STREAM_ID = re.compile(r"\d{12,}-\d+")
_DATE = re.compile(r"\s*\d{4}-\d\d-\d\d")
_ALLOWED = (
    "a datetime with a time zone, a date, an ISO text such as 2026-01-05T14:30:00Z, unix ms, a seq, a stream id, "
    "or Now(), At(moment), After(seq), AfterId(stream_id)"
)


def position_of(point: Any) -> Start:
    """`point` as a typed position. Raises ValueError or TypeError, which say what is allowed."""
    match point:
        case Now() | After():
            return point
        case At(moment):
            return At(unix_ms(moment))
        case AfterId(stream_id):
            parts_of_id(stream_id)
            return point
        case str() if _STREAM_ID.fullmatch(point.strip()):
            ts, seq = parts_of_id(point.strip())
            return AfterId(f"{ts}-{seq - 1}") if seq else At(ts)
        case str() | date():
            return At(unix_ms(point))
        case _:
            return _of_number(point)


def _of_number(point: Any) -> Start:
    number = _integer(point)
    if SEQS_BELOW <= number < MS_FROM:
        seq = f"After({number - 1}) if it is a seq" if number else ""
        raise ValueError(f"{number} looks like unix seconds: give unix ms, {number * 1000}; {seq}")
    return After(number - 1) if number < SEQS_BELOW else At(_in_range(number))


def unix_ms(moment: Any) -> int:
    """`moment` as unix ms. Raises ValueError for a datetime without a time zone and for a text that is no time."""
    match moment:
        case str():
            return _of_text(moment)
        case datetime():
            return _of_datetime(moment)
        case date():
            return _of_datetime(datetime.combine(moment, time.min, timezone.utc))
        case _:
            return _in_range(_integer(moment))


def _of_text(text: str) -> int:
    stripped = text.strip()
    try:
        found = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", stripped))
    except ValueError:
        hint = "; several symbols are a list" if text.isupper() else ""
        raise ValueError(f"{text!r} is no time: allowed is {_ALLOWED}{hint}") from None
    return _of_datetime(found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc))


def _of_datetime(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError(
            f"{moment!r} has no time zone: give an aware datetime, such as "
            "datetime(2026, 1, 5, tzinfo=timezone.utc), an ISO text (in UTC) or unix ms"
        )
    return round(moment.timestamp() * 1000)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{value!r} is no time and no position: allowed is {_ALLOWED}")
    return operator.index(value)


def _in_range(ms: int) -> int:
    if ms > _LAST_MS:
        raise ValueError(f"{ms} lies after the year 9999: times are unix ms, not microseconds or nanoseconds")
    return ms


def is_point(given: Any) -> bool:
    """Whether this is a time or a position, and no symbol."""
    if isinstance(given, str):
        return _DATE.match(given) is not None or _STREAM_ID.fullmatch(given.strip()) is not None
    return isinstance(given, (date, Now, At, After, AfterId)) or hasattr(given, "__index__")


def point_for(symbol: str, points: Any) -> Start | None:
    """The position for `symbol`: the same for all, or its own. None stands for the beginning, or for no end."""
    if not isinstance(points, Mapping):
        return None if points is None else position_of(points)
    if symbol not in points:
        raise ValueError(f"no start is given for {symbol}")
    return None if points[symbol] is None else position_of(points[symbol])


# ---- items


@dataclass(frozen=True, slots=True)
class IntervalStarted:
    """The book of a symbol is observed from the next snapshot on: a subscription brought its first row.

    `interval` is what was known of it then; `complete`, `until` and the counts grow later.
    """

    interval: SubscriptionInterval

    @property
    def symbol(self) -> str:
        """Whose book."""
        return self.interval.symbol


@dataclass(frozen=True, slots=True)
class IntervalEnded:
    """The book of a symbol is not observed any more; `interval.until` is the last moment at which it was live."""

    interval: SubscriptionInterval

    @property
    def symbol(self) -> str:
        """Whose book."""
        return self.interval.symbol


Item: TypeAlias = DepthSnapshot | Gap
"""What following gives."""

IntervalItem: TypeAlias = DepthSnapshot | Gap | IntervalStarted | IntervalEnded
"""What following gives if intervals are asked for."""
