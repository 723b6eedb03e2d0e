"""Compaction of a day's parts into one file per symbol, and the deletion of dates past ARCHIVE_RETENTION_DAYS.

A compacted file is sorted, each entry once, and smaller. It is written aside and takes the place of the parts, and only
of those that went into it, in one step (ArchiveStore.replace): a program that lists the folder at any moment finds each
entry once. If that is not possible it appears first, and then the parts are deleted: in between, and after a kill until
the next compaction or start of an archiver, a plain glob finds them twice; readers of this package never do. What comes
late is merged in by the next compaction.

Age is counted from the newest date that holds data, not from the clock: a clock that is far ahead makes nothing old.
As data may bear that clock's times, one run deletes at most DATES_AT_ONCE dates besides; one a day is usually due.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ibkr_depth_pipeline.archive.figures import compact_figures
from ibkr_depth_pipeline.archive.intervals import intervals_of
from ibkr_depth_pipeline.archive.layout import BOOKS, DAYS, HOLES, PARTS, TREES, IdSpan, day_place, folder, joined
from ibkr_depth_pipeline.archive.parquet_schema import (
    DAY_LEVEL,
    ROWS_PER_GROUP,
    TABLES,
    described,
    table_at,
    units_of,
    write_options,
)
from ibkr_depth_pipeline.archive.reading import SpannedFile, files_of, symbols, tables
from ibkr_depth_pipeline.archive.store import ArchiveStore

_OLD = {BOOKS: (PARTS, DAYS)}
ROLE = "compaction"


@dataclass(frozen=True, slots=True)
class Compacted:
    """One symbol's day: how many parts went into the file, its snapshots, and its size in bytes."""

    symbol: str
    parts: int
    rows: int
    bytes: int


def compact_day(store: ArchiveStore, day: date, rows_per_group: int = ROWS_PER_GROUP) -> list[Compacted]:
    """Makes one file per symbol of that date, and of each ingest's figures. Doing it again changes nothing.

    Returns what was done to the books; intervals and rows are compacted as well.

    Raises ArchiveUnavailable, ArchiveHeld if another compaction is at work in a local folder; in an object store the
    caller sees to it that there is only one.
    """
    with _compacting(store):
        return _compact_day(store, day, rows_per_group)


def convert_old_layout(store: ArchiveStore) -> Iterator[tuple[date, Compacted]]:
    """Compacts every date that has files in the folders of before (PARTS, DAYS). Raises as `compact_day` does."""
    with _compacting(store):
        for day in sorted({place.day for tree in (PARTS, DAYS) for place in store.places(tree)}):
            yield from ((day, done) for done in _compact_day(store, day, ROWS_PER_GROUP))


@contextmanager
def _compacting(store: ArchiveStore) -> Iterator[None]:
    with store.alone(ROLE):
        store.sweep("day")
        finish_replacements(store)
        yield
        store.sweep("day")  # last of all: a reader may still be listing a folder that was swapped


def _compact_day(store: ArchiveStore, day: date, rows_per_group: int) -> list[Compacted]:
    compact_figures(store, day)
    done = {
        tree: [compact_symbol(store, day, symbol, rows_per_group, tree) for symbol in symbols(store, day, tree)]
        for tree in TABLES
    }
    return done[BOOKS]


def compact_symbol(
    store: ArchiveStore, day: date, symbol: str, rows_per_group: int = ROWS_PER_GROUP, tree: str = BOOKS
) -> Compacted:
    """One symbol of `compact_day`."""
    listed = store.places(folder(tree, day, symbol))  # before the files: what comes meanwhile is left alone
    old = [each for under in _OLD.get(tree, ()) for each in store.places(folder(under, day, symbol))]
    files = [file for file in files_of(store, day, symbol, tree) if file.place in (*listed, *old)]
    if [file.place for file in files] != [place for place in listed if place.compacted]:
        with store.written_aside("day") as aside:
            rows = _write(store, aside, symbol, files, rows_per_group)
            span = IdSpan(files[0].span.first, max(file.span.last for file in files))
            place = day_place(symbol, day, span, rows, tree)
            store.replace(aside, place, [each for each in listed if each != place])
    else:
        (place, rows) = files[0].place, files[0].rows
        store.delete(each for each in listed if each != place)
    store.delete(old)
    fresh = [file for file in files if file.place.tree != tree or not file.place.compacted]
    return Compacted(symbol, len(fresh), rows, store.size(place))


def finish_replacements(store: ArchiveStore) -> None:
    """Deletes what a compaction was killed before it could delete, if that is not one step in its store."""
    for place in store.unfinished():
        kept = {file.place for file in files_of(store, place.day, place.symbol, place.tree)}
        store.delete(each for each in store.places(folder(place.tree, place.day, place.symbol)) if each not in kept)
        store.finished(place)


def _write(store: ArchiveStore, aside: Path, symbol: str, files: list[SpannedFile], rows_per_group: int) -> int:
    """Returns how many entries it has written."""
    table, rows = table_at(files[0].place), 0
    units = units_of(intervals_of(store, files[0].place.day, symbol)) if table.tree == BOOKS else []
    schema = described(table, symbol, joined(run for file in files for run in file.runs), units)
    with pq.ParquetWriter(aside, schema, **write_options(table, DAY_LEVEL)) as writer:
        for group in _groups(tables(store, files), rows_per_group):
            writer.write_table(group.cast(schema), row_group_size=rows_per_group)
            rows += group.num_rows
    return rows


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
