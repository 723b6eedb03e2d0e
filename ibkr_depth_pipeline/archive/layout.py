"""The paths of an archive's files, and what their names hold. Pure.

    books/date=2026-01-05/symbol=SPY/1767623400123-000000000001_1767623415123-000000002500.parquet
    books/date=2026-01-05/symbol=SPY/day-1767623400123-000000000001_1767623999123-000000098765-98765.parquet
    intervals/, rows/                      as books/
    alerts/date=2026-01-05/ingest=default/ as books/, of an ingest
    holes/date=2026-01-05/symbol=SPY/after-1767623415123-000000002500.parquet
    figures/date=2026-01-05/ingest=default/1767623400123_1767623460123.parquet, later figures.parquet
    reports/2026-01-05.html
    .tmp/                                  files being written, under names that no reader lists

A part's name holds the stream ids of its first and its last entry; that of a compacted file holds how many entries
there are in it as well. It takes the place of the parts, in the same folder. No file is ever changed: what another has
merged in has another name. A date is the UTC date of the id; a part never spans two. A symbol is percent-encoded
(`BRK%20B`), as Hive-style readers expect. Alerts and figures are an ingest's, not a symbol's; the names of figures hold
the first and the last time at which they were written.

Archives of before had `parts/` and `days/` in the place of `books/`. They are read, and compaction makes books of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import NamedTuple
from urllib.parse import quote, unquote

from ibkr_depth_pipeline.schema.keys import StreamId

BOOKS, INTERVALS, ROWS, ALERTS = "books", "intervals", "rows", "alerts"
STREAMED = (BOOKS, INTERVALS, ROWS, ALERTS)
"""The trees that hold entries of streams."""
HOLES, FIGURES = "holes", "figures"
PARTS, DAYS = "parts", "days"
"""Where archives of before have the parts and the compacted files of what is in BOOKS today."""
TREES = (*STREAMED, HOLES, FIGURES, PARTS, DAYS)
OF_INGESTS = (ALERTS, FIGURES)
REPORTS = "reports"
TEMPORARY = ".tmp"

_MS_PER_DAY = 86_400_000
_ID = r"(\d{13,})-(\d{12,})"
_PLACE = re.compile(
    rf"(?P<tree>{'|'.join(TREES)})/date=(?P<date>\d{{4}}-\d\d-\d\d)"
    r"/(?P<key>symbol|ingest)=(?P<symbol>[^/]+)/(?P<file>[^/]+)"
)
_PART = re.compile(rf"{_ID}_{_ID}\.parquet")
_COMPACTED = re.compile(rf"day-{_ID}_{_ID}-\d+\.parquet")
_FIGURES = re.compile(r"\d{13,}_\d{13,}\.parquet")
_OLD_DAY, _DAY_FIGURES = "depth.parquet", "figures.parquet"


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
    """Where a file of the archive belongs. In the trees OF_INGESTS `symbol` is the name of an ingest."""

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
        """What a file of stream entries holds, by its name; None for everything else."""
        match = _PART.fullmatch(self.file) or _COMPACTED.fullmatch(self.file)
        if match is None or self.tree not in (*STREAMED, PARTS):
            return None
        first_ts, first_seq, last_ts, last_seq = map(int, match.groups())
        return IdSpan(StreamId(first_ts, first_seq), StreamId(last_ts, last_seq))

    @property
    def compacted(self) -> bool:
        """Whether it is the compacted file of a date."""
        return self.file in (_OLD_DAY, _DAY_FIGURES) or _COMPACTED.fullmatch(self.file) is not None


def day_folder(tree: str, day: date) -> str:
    """The folder of one date, below the archive's root."""
    return f"{tree}/date={day.isoformat()}"


def folder(tree: str, day: date, symbol: str) -> str:
    """The folder of one symbol, or of an ingest in a tree OF_INGESTS, on one date, below the archive's root."""
    return f"{day_folder(tree, day)}/{key_of(tree)}={quote(symbol, safe='')}"


def key_of(tree: str) -> str:
    """What the folders of a date are named by: `ingest` or `symbol`."""
    return "ingest" if tree in OF_INGESTS else "symbol"


def part_place(symbol: str, day: date, span: IdSpan, tree: str = BOOKS) -> Place:
    """Where the part with these entries belongs. The same entries have the same name, always."""
    return Place(tree, day, symbol, f"{_ids(span)}.parquet")


def _ids(span: IdSpan) -> str:
    (first, last) = span
    return f"{first.ts:013d}-{first.seq:012d}_{last.ts:013d}-{last.seq:012d}"


def day_place(symbol: str, day: date, span: IdSpan, rows: int, tree: str = BOOKS) -> Place:
    """Where the compacted day with so many entries belongs."""
    return Place(tree, day, symbol, f"day-{_ids(span)}-{rows}.parquet")


def day_figures_place(ingest: str, day: date) -> Place:
    """Where a whole day's figures belong."""
    return Place(FIGURES, day, ingest, _DAY_FIGURES)


def gap_place(symbol: str, day: date, after: StreamId) -> Place:
    """Where the gap behind `after` belongs: found again after a kill, it has the same name."""
    return Place(HOLES, day, symbol, f"after-{after.ts:013d}-{after.seq:012d}.parquet")


def figures_place(ingest: str, day: date, first_ts: int, last_ts: int) -> Place:
    """Where figures of that ingest belong; the times, in unix ms, are those of the first and the last of them."""
    return Place(FIGURES, day, ingest, f"{first_ts:013d}_{last_ts:013d}.parquet")


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
    if match is None or not match["file"].endswith(".parquet") or match["key"] != key_of(match["tree"]):
        return None
    try:
        place = Place(match["tree"], date.fromisoformat(match["date"]), unquote(match["symbol"]), match["file"])
    except ValueError:
        return None
    return place if _known(place) else None


def _known(place: Place) -> bool:
    match place.tree:
        case "holes":
            return True
        case "figures":
            return place.file == _DAY_FIGURES or _FIGURES.fullmatch(place.file) is not None
        case "days":
            return place.file == _OLD_DAY
        case "parts":
            return _PART.fullmatch(place.file) is not None
        case _:
            return place.span is not None


def places(names: Iterable[str]) -> list[Place]:
    """The files of an archive among `names`, by name."""
    return [place for name in sorted(names) if (place := parse(name)) is not None]


def day_of(ts: int) -> date:
    """The UTC date of a time in unix ms."""
    return datetime.fromtimestamp(ts / 1000, timezone.utc).date()


def first_ms_of(day: date) -> int:
    """The unix ms at which that UTC date begins."""
    return (day - date(1970, 1, 1)).days * _MS_PER_DAY
