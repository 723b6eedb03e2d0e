"""Reads an archive in any state of its files: running, compacted, killed in between, or of the older layout.

A day may stand in parts, in the compacted file, or in both: for a moment or after a kill, where a folder can't be
swapped at once. What is read is always each entry once, in order: a part that the compacted file covers counts no more,
and if files overlap, ids do not repeat. A compaction may replace files between their listing and their reading; then
they are listed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from ibkr_depth_pipeline.archive.layout import (
    BOOKS,
    DAYS,
    HOLES,
    NOTHING,
    PARTS,
    IdSpan,
    Place,
    day_folder,
    day_of,
    folder,
)
from ibkr_depth_pipeline.archive.parquet_schema import (
    ROWS_PER_GROUP,
    TABLES,
    file_info,
    table_at,
)
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
    rows: int = 0
    """Of a compacted file: how many entries there are in it."""


def days(store: ArchiveStore, tree: str = BOOKS) -> list[date]:
    """The dates that have snapshots, or entries of another of the STREAMED trees, in order."""
    return sorted({place.day for each in _trees(store, tree) for place in store.places(each)})


def symbols(store: ArchiveStore, day: date, tree: str = BOOKS) -> list[str]:
    """The symbols that have snapshots on that date, or entries of another tree, by name."""
    return sorted({place.symbol for each in _trees(store, tree) for place in store.places(day_folder(each, day))})


def dates_of_symbols(store: ArchiveStore, tree: str = BOOKS) -> dict[str, list[date]]:
    """The dates of each symbol, in order, by the symbols' names: of the whole archive by one listing."""
    found: dict[str, set[date]] = {}
    for each in _trees(store, tree):
        for place in store.places(each):
            found.setdefault(place.symbol, set()).add(place.day)
    return {symbol: sorted(found[symbol]) for symbol in sorted(found)}


def _trees(store: ArchiveStore, tree: str) -> tuple[str, ...]:
    """Where that tree's files are. Older ones come first: compaction publishes before it deletes."""
    return (PARTS, DAYS, tree) if tree == BOOKS and store.has_any_of(PARTS, DAYS) else (tree,)


def positions(store: ArchiveStore, tree: str = BOOKS) -> dict[str, StreamId]:
    """The id of the newest entry that is kept of each symbol: a snapshot, or what another tree holds."""
    return settled(store, lambda: _positions(store, tree))


def _positions(store: ArchiveStore, tree: str) -> dict[str, StreamId]:
    newest: dict[str, StreamId] = {}
    for place in (place for each in _trees(store, tree) for place in store.places(each)):
        if place.span is not None or place.day >= day_of(newest.get(place.symbol, NOTHING).ts):
            span = _spanned(store, place).span
            newest[place.symbol] = max(newest.get(place.symbol, span.last), span.last)
    return newest


def files_of(store: ArchiveStore, day: date, symbol: str, tree: str = BOOKS) -> list[SpannedFile]:
    """The files that hold that day, in order of their first id; those that a compacted file covers left out."""
    found = [place for each in _trees(store, tree) for place in _listed(store, folder(each, day, symbol))]
    files = [_spanned(store, place) for place in found]
    kept: list[SpannedFile] = []
    for file in sorted(files, key=lambda file: (not file.place.compacted, file.place.tree == DAYS, -file.rows)):
        if not any(_covers(outer, file) for outer in kept if outer.place.compacted):
            kept.append(file)
    return sorted(kept, key=lambda file: file.span)


def _listed(store: ArchiveStore, under: str) -> list[Place]:
    """All files of a folder. A compacted one that appears while they are listed is among them."""
    found = store.places(under)
    if any(not place.compacted for place in found):
        found += [place for place in store.places(under) if place.compacted and place not in found]
    return found


def _spanned(store: ArchiveStore, place: Place) -> SpannedFile:
    if place.span is not None and not place.compacted:
        return SpannedFile(place.span, place, (place.span,))
    with store.parquet(place) as file:
        info = file_info(file)
    if info.span is None:
        raise ArchiveUnavailable(f"archive {store.url}: {place.name} is not a file of this archive's")
    return SpannedFile(place.span or info.span, place, info.runs, info.rows)


def read_day(store: ArchiveStore, day: date, symbol: str, tree: str = BOOKS) -> Any:
    """That day of that symbol as one Arrow table (parquet_schema.TABLES), each entry once, in order.

    Raises ArchiveUnavailable.
    """
    found = settled(store, lambda: list(tables(store, files_of(store, day, symbol, tree))))
    return pa.concat_tables([TABLES[tree].schema.empty_table(), *found])


def settled(store: ArchiveStore, read: Callable[[], _T]) -> _T:
    """What `read` returns, which lists files and reads them; done again if some of them are gone meanwhile.

    Raises ArchiveUnavailable if that does not end.
    """
    for _ in range(LISTINGS):
        with contextlib.suppress(FileNotFoundError):
            return read()
    raise ArchiveUnavailable(f"archive {store.url}: files vanish while they are read")


def tables(store: ArchiveStore, files: Iterable[SpannedFile], columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The entries of `files`, each once, in order, piece by piece: a day need not fit into memory.

    Fewer `columns` are faster; those of the id must be among them. Raises FileNotFoundError if a file is gone by
    now: list them again (`settled`).
    """
    for cluster in _clusters(files):
        if len(cluster) == 1:
            yield from _pieces(store, cluster[0], columns)
        else:  # two archivers were at work: rare, and not more than they wrote in that time
            pieces = [piece for file in cluster for piece in _pieces(store, file, columns)]
            yield _merged(pieces, table_at(cluster[0].place).ids)


POSITION = ("ts", "seq")
"""The columns that make the id of a snapshot."""


def read_in_order(
    store: ArchiveStore, day: date, symbol: str, columns: Sequence[str] | None = None, tree: str = BOOKS
) -> Iterator[Any]:
    """The entries of `read_day`, piece by piece, also while it is compacted. Raises ArchiveUnavailable.

    Those of the id must be among the columns.
    """
    last = NOTHING
    for _ in range(LISTINGS):
        try:
            for table in tables(store, files_of(store, day, symbol, tree), columns):
                table = _behind(table, last, TABLES[tree].ids)
                if table.num_rows:
                    yield table
                    last = StreamId(*(int(column[-1]) for column in ids_of(table, TABLES[tree].ids)))
            return
        except FileNotFoundError:
            continue
    raise ArchiveUnavailable(f"archive {store.url}: files vanish while they are read")


def _behind(table: Any, last: StreamId, ids: tuple[str, str]) -> Any:
    ts, seq = ids_of(table, ids)
    old = (ts < last.ts) | ((ts == last.ts) & (seq <= last.seq))
    return table.filter(pa.array(~old)) if old.any() else table


def ids_of(table: Any, names: tuple[str, str] = POSITION) -> tuple[Any, Any]:
    """The ids of a table's entries, `ts` (unix ms) and `seq` unless other columns hold them, as numpy arrays."""
    ts, seq = names
    return table[ts].cast(pa.int64()).to_numpy(), table[seq].to_numpy()


def matrix(table: Any, column: str) -> Any:
    """A column of lists as a numpy array, one row a snapshot."""
    flat = [chunk.flatten().to_numpy() for chunk in table[column].chunks]
    return np.concatenate([np.zeros(0), *flat]).reshape(table.num_rows, -1)


def name_codes(table: Any, column: str) -> Any:
    """A column of lists of names like `matrix`, a number in the place of each name."""
    flat = pa.chunked_array([chunk.flatten().cast(pa.string()) for chunk in table[column].chunks], pa.string())
    return flat.combine_chunks().dictionary_encode().indices.to_numpy().reshape(table.num_rows, -1)


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


def _covers(outer: SpannedFile, inner: SpannedFile) -> bool:
    return all(any(run.first <= one.first and one.last <= run.last for run in outer.runs) for one in inner.runs)


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


def _pieces(store: ArchiveStore, file: SpannedFile, columns: Sequence[str] | None) -> Iterator[Any]:
    table = table_at(file.place)
    wanted = pa.schema([table.schema.field(name) for name in columns or table.schema.names])
    with store.parquet(file.place) as opened:
        there = [name for name in wanted.names if name in opened.schema_arrow.names]
        for batch in opened.iter_batches(batch_size=ROWS_PER_GROUP, columns=there):
            yield _as(wanted, pa.Table.from_batches([batch]))


def _as(wanted: Any, table: Any) -> Any:
    """The table with the wanted columns; those that an older file does not have are null."""
    for at, column in enumerate(wanted):
        if column.name not in table.column_names:
            table = table.add_column(at, column, pa.nulls(table.num_rows, column.type))
    return table.select(wanted.names).cast(wanted)


def _merged(pieces: list[Any], ids: tuple[str, str]) -> Any:
    table = pa.concat_tables(pieces)
    ts, seq = (table[name].cast(pa.int64()).to_numpy() for name in ids)
    order = np.lexsort((seq, ts))
    ts, seq = ts[order], seq[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ts[1:] != ts[:-1]) | (seq[1:] != seq[:-1])
    return table.take(pa.array(order[new]))
