"""A day's parts -> one file per symbol: sorted, each snapshot once, smaller.

The file is written aside and published at once; readers count it from then on and the parts no more. Only then are the
parts deleted, and only those that went into it. A kill in between leaves parts that nobody counts, and the next
compaction deletes them. What comes late is merged in by the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ibkr_depth_pipeline.archive.figures import compact_figures
from ibkr_depth_pipeline.archive.layout import PARTS, day_place, folder, joined
from ibkr_depth_pipeline.archive.reading import SpannedFile, files_of, symbols, tables
from ibkr_depth_pipeline.archive.schema import DAY_LEVEL, ROWS_PER_GROUP, described, write_options
from ibkr_depth_pipeline.archive.store import ArchiveStore

ROLE = "compaction"


@dataclass(frozen=True, slots=True)
class Compacted:
    """One symbol's day: how many parts went into the file, its snapshots, and its size in bytes."""

    symbol: str
    parts: int
    rows: int
    bytes: int


def compact_day(store: ArchiveStore, day: date) -> list[Compacted]:
    """Make one file per symbol of that date, and one per ingest of its figures. Doing it again changes nothing.

    Raises ArchiveUnavailable, ArchiveHeld if another compaction is at work in a local folder; in an object store the
    caller sees to it that there is only one.
    """
    with store.alone(ROLE):
        store.sweep("day")
        compact_figures(store, day)
        return [compact_symbol(store, day, symbol) for symbol in symbols(store, day)]


def compact_symbol(store: ArchiveStore, day: date, symbol: str) -> Compacted:
    """One symbol of `compact_day`."""
    place = day_place(symbol, day)
    parts = store.places(folder(PARTS, day, symbol))  # before the files: what comes meanwhile is left alone
    files = [file for file in files_of(store, day, symbol) if file.place == place or file.place in parts]
    fresh = [file for file in files if file.place != place]
    if fresh:
        with store.written_aside("day") as aside:
            _write(store, aside, symbol, files)
            store.publish(aside, place)
    store.delete(parts)  # each of them went into the file, now or before: it says so
    with store.parquet(place) as written:
        return Compacted(symbol, len(fresh), written.metadata.num_rows, store.size(place))


def _write(store: ArchiveStore, aside: Path, symbol: str, files: list[SpannedFile]) -> None:
    schema = described(symbol, joined(run for file in files for run in file.runs))
    with pq.ParquetWriter(aside, schema, **write_options(DAY_LEVEL)) as writer:
        for table in _groups(tables(store, files)):
            writer.write_table(table.cast(schema), row_group_size=ROWS_PER_GROUP)


def _groups(pieces: Iterator[Any]) -> Iterator[Any]:
    """The same rows in tables of ROWS_PER_GROUP, the last one shorter."""
    held: list[Any] = []
    rows = 0
    for piece in pieces:
        held.append(piece)
        rows += piece.num_rows
        if rows >= ROWS_PER_GROUP:
            whole = pa.concat_tables(held).unify_dictionaries()
            full = rows - rows % ROWS_PER_GROUP
            yield whole.slice(0, full)
            held, rows = [whole.slice(full)], rows - full
    if rows:
        yield pa.concat_tables(held).unify_dictionaries()
