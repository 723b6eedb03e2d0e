"""The paths of an archive's files, and what their names hold. Pure.

    parts/date=2026-01-05/symbol=SPY/1767623400123-000000000001_1767623415123-000000002500.parquet
    days/date=2026-01-05/symbol=SPY/depth.parquet
    holes/date=2026-01-05/symbol=SPY/after-1767623415123-000000002500.parquet
    figures/date=2026-01-05/ingest=default/1767623400123_1767623460123.parquet, later figures.parquet
    reports/2026-01-05.html
    .tmp/                                  files being written, under names that no reader lists

A part's name holds the stream ids of its first and its last snapshot. A date is the UTC date of `ts`; a part never
spans two. A symbol is percent-encoded (`BRK%20B`), as Hive-style readers expect. Figures are an ingest's, not a
symbol's, and their names hold the first and the last time at which they were written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import NamedTuple
from urllib.parse import quote, unquote

from ibkr_depth_pipeline.schema.keys import StreamId

PARTS, DAYS, INTERVALS, HOLES, FIGURES = "parts", "days", "intervals", "holes", "figures"
TREES = (PARTS, DAYS, INTERVALS, HOLES, FIGURES)
REPORTS = "reports"
TEMPORARY = ".tmp"

_MS_PER_DAY = 86_400_000
_ID = r"(\d{13,})-(\d{12,})"
_PLACE = re.compile(
    r"(?P<tree>parts|days|intervals|holes|figures)/date=(?P<date>\d{4}-\d\d-\d\d)"
    r"/(?P<key>symbol|ingest)=(?P<symbol>[^/]+)/(?P<file>[^/]+)"
)
_PART = re.compile(rf"{_ID}_{_ID}\.parquet")
_FIGURES = re.compile(r"\d{13,}_\d{13,}\.parquet")
_DAY_FILE, _DAY_FIGURES, _DAY_INTERVALS = "depth.parquet", "figures.parquet", "intervals.parquet"


NOTHING = StreamId(0, 0)
"""The position before the first snapshot."""


class IdSpan(NamedTuple):
    """The ids of the first and the last snapshot of a file."""

    first: StreamId
    last: StreamId


def joined(spans: Iterable[IdSpan]) -> tuple[IdSpan, ...]:
    """The same ids in as few spans as can be: those that overlap, or between which no seq is missing, become one."""
    runs: list[IdSpan] = []
    for span in sorted(spans):
        if runs and (span.first <= runs[-1].last or span.first.seq == runs[-1].last.seq + 1):
            runs[-1] = IdSpan(runs[-1].first, max(runs[-1].last, span.last))
        else:
            runs.append(span)
    return tuple(runs)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file of the archive belongs. In the tree of figures `symbol` is the name of an ingest."""

    tree: str
    day: date
    symbol: str
    file: str

    @property
    def name(self) -> str:
        """The path below the archive's root."""
        return f"{folder(self.tree, self.day, self.symbol)}/{self.file}"

    @property
    def span(self) -> IdSpan | None:
        """What a part holds, by its name; None for everything else."""
        match = _PART.fullmatch(self.file)
        if self.tree != PARTS or match is None:
            return None
        first_ts, first_seq, last_ts, last_seq = map(int, match.groups())
        return IdSpan(StreamId(first_ts, first_seq), StreamId(last_ts, last_seq))


def day_folder(tree: str, day: date) -> str:
    """The folder of one date, below the archive's root."""
    return f"{tree}/date={day.isoformat()}"


def folder(tree: str, day: date, symbol: str) -> str:
    """The folder of one symbol, or of one ingest's figures, on one date, below the archive's root."""
    return f"{day_folder(tree, day)}/{_key(tree)}={quote(symbol, safe='')}"


def _key(tree: str) -> str:
    return "ingest" if tree == FIGURES else "symbol"


def part_place(symbol: str, day: date, span: IdSpan) -> Place:
    """Where the part with these snapshots belongs. The same snapshots have the same name, always."""
    (first, last) = span
    file = f"{first.ts:013d}-{first.seq:012d}_{last.ts:013d}-{last.seq:012d}.parquet"
    return Place(PARTS, day, symbol, file)


def day_place(symbol: str, day: date) -> Place:
    """Where the compacted day belongs."""
    return Place(DAYS, day, symbol, _DAY_FILE)


def gap_place(symbol: str, day: date, after: StreamId) -> Place:
    """Where the gap behind `after` belongs: found again after a kill, it has the same name."""
    return Place(HOLES, day, symbol, f"after-{after.ts:013d}-{after.seq:012d}.parquet")


def figures_place(ingest: str, day: date, first_ts: int, last_ts: int) -> Place:
    """Where figures of that ingest belong; the times, in unix ms, are those of the first and the last of them."""
    return Place(FIGURES, day, ingest, f"{first_ts:013d}_{last_ts:013d}.parquet")


def day_figures_place(ingest: str, day: date) -> Place:
    """Where a whole day's figures belong."""
    return Place(FIGURES, day, ingest, _DAY_FIGURES)


@dataclass(frozen=True, slots=True)
class ReportPlace:
    """Where the page about a date belongs."""

    day: date

    @property
    def name(self) -> str:
        """The path below the archive's root."""
        return f"{REPORTS}/{self.day.isoformat()}.html"


def parse(name: str) -> Place | None:
    """Read a path below the archive's root; None for what is not of this layout: it is neither read nor deleted."""
    match = _PLACE.fullmatch(name)
    if match is None or not match["file"].endswith(".parquet") or match["key"] != _key(match["tree"]):
        return None
    try:
        place = Place(match["tree"], date.fromisoformat(match["date"]), unquote(match["symbol"]), match["file"])
    except ValueError:
        return None
    return place if _known(place) else None


def _known(place: Place) -> bool:
    if place.tree == FIGURES:
        return place.file == _DAY_FIGURES or _FIGURES.fullmatch(place.file) is not None
    if place.tree == INTERVALS:
        return place.file == _DAY_INTERVALS or _PART.fullmatch(place.file) is not None
    return place.span is not None if place.tree == PARTS else place.tree == HOLES or place.file == _DAY_FILE


def places(names: Iterable[str]) -> list[Place]:
    """The files of an archive among `names`, by name."""
    return [place for name in sorted(names) if (place := parse(name)) is not None]


def day_of(ts: int) -> date:
    """The UTC date of a time in unix ms."""
    return datetime.fromtimestamp(ts / 1000, timezone.utc).date()


def first_ms_of(day: date) -> int:
    """The unix ms at which that UTC date begins."""
    return (day - date(1970, 1, 1)).days * _MS_PER_DAY
