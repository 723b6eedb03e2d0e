"""Compaction of a day's parts into one file per symbol, and the deletion of dates past ARCHIVE_RETENTION_DAYS.

A compacted file is sorted, each snapshot once, and smaller. It is written aside and published at once; readers count it
from then on and the parts no more. Only then are the parts deleted, and only those that went into it. A kill in between
leaves parts that no reader counts, and the next compaction deletes them. What comes late is merged in by the next one.

Age is counted from the newest date that holds data, not from the clock: a clock that is far ahead makes nothing old.
As data may bear that clock's times, one run deletes at most DATES_AT_ONCE dates besides; one a day is usually due.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ibkr_depth_pipeline.archive.figures import compact_figures
from ibkr_depth_pipeline.archive.layout import HOLES, PARTS, TREES, day_place, folder, joined
from ibkr_depth_pipeline.archive.parquet_schema import DAY_LEVEL, ROWS_PER_GROUP, described, write_options
from ibkr_depth_pipeline.archive.reading import SpannedFile, files_of, symbols, tables
from ibkr_depth_pipeline.archive.store import ArchiveStore

ROLE = "compaction"


@dataclass(frozen=True, slots=True)
class Compacted:
    """One symbol's day: how many parts went into the file, its snapshots, and its size in bytes."""

    symbol: str
    parts: int
    rows: int
    bytes: int


def compact_day(store: ArchiveStore, day: date, rows_per_group: int = ROWS_PER_GROUP) -> list[Compacted]:
    """Make one file per symbol of that date, and one per ingest of its figures. Doing it again changes nothing.

    Raises ArchiveUnavailable, ArchiveHeld if another compaction is at work in a local folder; in an object store the
    caller sees to it that there is only one.
    """
    with store.alone(ROLE):
        store.sweep("day")
        compact_figures(store, day)
        return [compact_symbol(store, day, symbol, rows_per_group) for symbol in symbols(store, day)]


def compact_symbol(store: ArchiveStore, day: date, symbol: str, rows_per_group: int = ROWS_PER_GROUP) -> Compacted:
    """One symbol of `compact_day`."""
    place = day_place(symbol, day)
    parts = store.places(folder(PARTS, day, symbol))  # before the files: what comes meanwhile is left alone
    files = [file for file in files_of(store, day, symbol) if file.place == place or file.place in parts]
    fresh = [file for file in files if file.place != place]
    if fresh:
        with store.written_aside("day") as aside:
            _write(store, aside, symbol, files, rows_per_group)
            store.publish(aside, place)
    store.delete(parts)  # each of them went into the file, now or before: its footer has it
    with store.parquet(place) as written:
        return Compacted(symbol, len(fresh), written.metadata.num_rows, store.size(place))


def _write(store: ArchiveStore, aside: Path, symbol: str, files: list[SpannedFile], rows: int) -> None:
    schema = described(symbol, joined(run for file in files for run in file.runs))
    with pq.ParquetWriter(aside, schema, **write_options(DAY_LEVEL)) as writer:
        for table in _groups(tables(store, files), rows):
            writer.write_table(table.cast(schema), row_group_size=rows)


def _groups(pieces: Iterator[Any], size: int) -> Iterator[Any]:
    """Regroups rows into tables of `size`, the last one shorter."""
    held: list[Any] = []
    rows = 0
    for piece in pieces:
        held.append(piece)
        rows += piece.num_rows
        if rows >= size:
            whole = pa.concat_tables(held).unify_dictionaries()
            full = rows - rows % size
            yield whole.slice(0, full)
            held, rows = [whole.slice(full)], rows - full
    if rows:
        yield pa.concat_tables(held).unify_dictionaries()


# ---- retention


DATES_AT_ONCE = 5
"""Most dates that one run deletes by default."""


class Pruning(NamedTuple):
    """Dates that a run deletes, and those past the retention that its limit leaves for later runs; oldest first."""

    deleted: tuple[date, ...]
    held: tuple[date, ...]


def first_date_kept(days: int, today: date, newest: date) -> date:
    """The first of `days` dates before the newest data, or before today if the data is ahead of the clock."""
    return min(today, newest) - timedelta(days=days)


def plan_pruning(dates: Iterable[date], newest: date, days: int, today: date, most: int = DATES_AT_ONCE) -> Pruning:
    """The dates to delete; `newest` is the newest that holds data, `most` how many may go at once."""
    expired = sorted(day for day in set(dates) if day < first_date_kept(days, today, newest))
    return Pruning(tuple(expired[:most]), tuple(expired[most:]))


def prune_expired(store: ArchiveStore, days: int, today: date, most: int = DATES_AT_ONCE) -> Pruning:
    """Delete what is past a retention of `days`, at most `most` dates. Raises ArchiveUnavailable."""
    found = [place for tree in TREES for place in store.places(tree)]
    newest = max((place.day for place in found if place.tree != HOLES), default=None)
    if newest is None:
        return Pruning((), ())
    pruning = plan_pruning((place.day for place in found), newest, days, today, most)
    gone = frozenset(pruning.deleted)
    store.delete([place for place in found if place.day in gone])
    return pruning
