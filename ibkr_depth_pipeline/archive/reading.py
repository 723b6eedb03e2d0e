"""Reads an archive in any state of its files: running, compacted, or killed in between.

A day may stand in parts, in the compacted file, or in both, for a moment or after a kill. What is read is always each
snapshot once, in order: a part that the compacted file covers counts no more, and if files overlap, ids do not
repeat. A compaction may replace files between their listing and their reading; then they are listed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from ibkr_depth_pipeline.archive.layout import (
    DAYS,
    HOLES,
    NOTHING,
    PARTS,
    IdSpan,
    Place,
    day_folder,
    day_place,
    folder,
)
from ibkr_depth_pipeline.archive.parquet_schema import ROWS_PER_GROUP, SNAPSHOTS, FileInfo, file_info
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import ArchiveUnavailable
from ibkr_depth_pipeline.schema.gaps import Gap, GapCause
from ibkr_depth_pipeline.schema.keys import StreamId

LISTINGS = 5
"""How often files are listed again, because some were gone when they were to be read."""

_T = TypeVar("_T")


class SpannedFile(NamedTuple):
    """A snapshot file and what it holds. Of `runs` it holds all; between two of them there may be more elsewhere."""

    span: IdSpan
    place: Place
    runs: tuple[IdSpan, ...]


def days(store: ArchiveStore) -> list[date]:
    """The dates that have snapshots, in order."""
    return sorted({place.day for tree in (PARTS, DAYS) for place in store.places(tree)})


def symbols(store: ArchiveStore, day: date) -> list[str]:
    """The symbols that have snapshots on that date, by name."""
    return sorted({place.symbol for tree in (PARTS, DAYS) for place in store.places(day_folder(tree, day))})


def positions(store: ArchiveStore) -> dict[str, StreamId]:
    """The id of the newest snapshot that is kept of each symbol.

    Parts are listed before days: compaction publishes a day before it deletes the parts in it, so that
    the newest snapshot is in one of the two listings, whenever it runs.
    """
    return settled(store, lambda: _positions(store))


def _positions(store: ArchiveStore) -> dict[str, StreamId]:
    parts, compacted = store.places(PARTS), store.places(DAYS)
    newest: dict[str, StreamId] = {}
    for place in parts:
        if (span := place.span) is not None:
            newest[place.symbol] = max(newest.get(place.symbol, span.last), span.last)
    for place in {place.symbol: place for place in sorted(compacted, key=lambda place: place.day)}.values():
        if (span := _info(store, place).span) is not None:
            newest[place.symbol] = max(newest.get(place.symbol, span.last), span.last)
    return newest


def files_of(store: ArchiveStore, day: date, symbol: str) -> list[SpannedFile]:
    """The files that hold that day, in order of their first id; parts that the compacted file covers left out."""
    parts = [
        SpannedFile(span, place, (span,))
        for place in store.places(folder(PARTS, day, symbol))
        if (span := place.span) is not None
    ]
    compacted = compacted_file(store, day, symbol)
    if compacted is not None:
        parts = [part for part in parts if not _covers(compacted, part.span)] + [compacted]
    return sorted(parts, key=lambda file: file.span)


def compacted_file(store: ArchiveStore, day: date, symbol: str) -> SpannedFile | None:
    """The day's one file, if there is one."""
    place = day_place(symbol, day)
    if place not in store.places(folder(DAYS, day, symbol)):
        return None
    info = _info(store, place)
    if info.span is None:
        raise ArchiveUnavailable(f"archive {store.url}: {place.name} is not a file of this archive's")
    return SpannedFile(info.span, place, info.runs)


def read_day(store: ArchiveStore, day: date, symbol: str) -> Any:
    """That day of that symbol as one Arrow table (parquet_schema.SNAPSHOTS), each snapshot once, in order.

    Raises ArchiveUnavailable.
    """
    found = settled(store, lambda: list(tables(store, files_of(store, day, symbol))))
    return pa.concat_tables([SNAPSHOTS.empty_table(), *found])


def settled(store: ArchiveStore, read: Callable[[], _T]) -> _T:
    """What `read` returns, which lists files and reads them; done again if some of them are gone meanwhile.

    Raises ArchiveUnavailable if that does not end.
    """
    for _ in range(LISTINGS):
        with contextlib.suppress(FileNotFoundError):
            return read()
    raise ArchiveUnavailable(f"archive {store.url}: files vanish while they are read")


def tables(
    store: ArchiveStore, files: Iterable[SpannedFile], columns: Sequence[str] = SNAPSHOTS.names
) -> Iterator[Any]:
    """The snapshots of `files`, each once, in order, piece by piece: a day need not fit into memory.

    Fewer `columns` are faster; `ts` and `seq` must be among them. Raises FileNotFoundError if a file is gone, or is
    another one by now: list them again (`settled`).
    """
    for cluster in _clusters(files):
        if len(cluster) == 1:
            yield from _pieces(store, cluster[0], columns)
        else:  # two archivers were at work: rare, and not more than they wrote in that time
            yield _merged([piece for file in cluster for piece in _pieces(store, file, columns)])


POSITION = ("ts", "seq")
"""The columns that make the id of a snapshot."""


def read_in_order(
    store: ArchiveStore, day: date, symbol: str, columns: Sequence[str] = SNAPSHOTS.names
) -> Iterator[Any]:
    """The snapshots of `read_day`, piece by piece; a compaction meanwhile does no harm. Raises ArchiveUnavailable.

    `ts` and `seq` must be among the columns.
    """
    last = NOTHING
    for _ in range(LISTINGS):
        try:
            for table in tables(store, files_of(store, day, symbol), columns):
                table = _behind(table, last)
                if table.num_rows:
                    yield table
                    last = StreamId(*(int(column[-1]) for column in ids_of(table)))
            return
        except FileNotFoundError:
            continue
    raise ArchiveUnavailable(f"archive {store.url}: files vanish while they are read")


def _behind(table: Any, last: StreamId) -> Any:
    ts, seq = ids_of(table)
    old = (ts < last.ts) | ((ts == last.ts) & (seq <= last.seq))
    return table.filter(pa.array(~old)) if old.any() else table


def ids_of(table: Any) -> tuple[Any, Any]:
    """`ts` (unix ms) and `seq` of a table of snapshots, as numpy arrays."""
    return table["ts"].cast(pa.int64()).to_numpy(), table["seq"].to_numpy()


def matrix(table: Any, column: str) -> Any:
    """A column of lists as a numpy array, one row a snapshot."""
    flat = [chunk.flatten().to_numpy() for chunk in table[column].chunks]
    return np.concatenate([np.zeros(0), *flat]).reshape(table.num_rows, -1)


def gaps_of(store: ArchiveStore, day: date, symbol: str) -> list[Gap]:
    """The gaps found on that day, in order."""
    return _gaps_below(store, folder(HOLES, day, symbol))


def all_gaps(store: ArchiveStore) -> list[Gap]:
    """Every gap on record, by symbol, in order."""
    return _gaps_below(store, HOLES)


def _gaps_below(store: ArchiveStore, under: str) -> list[Gap]:
    found = settled(store, lambda: [gap for place in store.places(under) for gap in _gaps_in(store, place)])
    return _outermost(found)


def _outermost(gaps: Iterable[Gap]) -> list[Gap]:
    """Without those that lie within another: a gap found before a kill may be found again, grown."""
    kept: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: (gap.symbol, gap.after, -gap.next_ts)):
        outer = kept[-1] if kept else None
        within = outer is not None and outer.symbol == gap.symbol and gap.next_ts <= outer.next_ts
        if not (within and outer is not None and outer.first_seq <= gap.first_seq and gap.last_seq <= outer.last_seq):
            kept.append(gap)
    return kept


def _gaps_in(store: ArchiveStore, place: Place) -> list[Gap]:
    with store.parquet(place) as file:
        table = file.read()
    moments = [table[name].cast(pa.int64()).to_pylist() for name in ("after_ts", "before_ts")]
    seqs = [table[name].to_pylist() for name in ("first_seq", "last_seq")]
    causes = map(GapCause, table["reason"].to_pylist())
    after_seq = int(place.file.rpartition("-")[2].partition(".")[0])
    return [
        Gap(place.symbol, first - 1, last + 1, before_ts, cause, StreamId(after_ts, after_seq))
        for first, last, after_ts, before_ts, cause in zip(*seqs, *moments, causes, strict=True)
    ]


def _info(store: ArchiveStore, place: Place) -> FileInfo:
    with store.parquet(place) as file:
        return file_info(file)


def _covers(outer: SpannedFile, inner: IdSpan) -> bool:
    return any(run.first <= inner.first and inner.last <= run.last for run in outer.runs)


def _clusters(files: Iterable[SpannedFile]) -> Iterator[list[SpannedFile]]:
    """Files in groups: within one, each overlaps another; between two, none does."""
    cluster: list[SpannedFile] = []
    for file in sorted(files, key=lambda file: file.span):
        if cluster and file.span.first > max(each.span.last for each in cluster):
            yield cluster
            cluster = []
        cluster.append(file)
    if cluster:
        yield cluster


def _pieces(store: ArchiveStore, file: SpannedFile, columns: Sequence[str]) -> Iterator[Any]:
    schema = pa.schema([SNAPSHOTS.field(name) for name in columns])
    with store.parquet(file.place) as opened:
        if file.place.span is None and file_info(opened).span != file.span:
            raise FileNotFoundError(f"{file.place.name} has been compacted again")
        for batch in opened.iter_batches(batch_size=ROWS_PER_GROUP, columns=list(columns)):
            yield _completed(pa.Table.from_batches([batch]), schema)


def _completed(table: Any, schema: Any) -> Any:
    """The table with the columns of `schema`: null where the file is of before they were there."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema)


def _merged(pieces: list[Any]) -> Any:
    table = pa.concat_tables(pieces)
    ts, seq = (table[name].cast(pa.int64()).to_numpy() for name in ("ts", "seq"))
    order = np.lexsort((seq, ts))
    ts, seq = ts[order], seq[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ts[1:] != ts[:-1]) | (seq[1:] != seq[:-1])
    return table.take(pa.array(order[new]))
