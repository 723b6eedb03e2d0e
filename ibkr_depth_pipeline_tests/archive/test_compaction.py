"""A day becomes one file per symbol, and reads as before."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ibkr_depth_pipeline.archive.layout import IdSpan, part_place
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.parquet_schema import SNAPSHOTS, part_bytes
from ibkr_depth_pipeline.archive.reading import files_of, positions, read_day
from ibkr_depth_pipeline.errors import ArchiveHeld
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON, Desk, Mirror, compacted_of, ids_of, parts_of
from ibkr_depth_pipeline_tests.archive.midway import Overlooks


def in_parts(mirror: Mirror, desk: Desk, symbol: str = "SPY", parts: int = 5, rows: int = 40) -> None:
    """So many parts of so many rows."""
    for first in range(1, parts * rows + 1, rows):
        mirror.write(symbol, range(first, first + rows), start=NOON + first)
        desk.keep()


def day_file(desk: Desk) -> Path:
    """The one compacted file that there is."""
    (place,) = compacted_of(desk.store)
    return Path(desk.settings.archive_url) / place.name


def test_parts_become_one_file_per_symbol_with_the_same_rows(mirror: Mirror, desk: Desk) -> None:
    for symbol in ("SPY", "BRK B"):
        in_parts(mirror, desk, symbol)
    before = {symbol: read_day(desk.store, DAY, symbol) for symbol in mirror.written}
    done = compact_day(desk.store, DAY)
    assert [(each.symbol, each.parts, each.rows) for each in done] == [("BRK B", 5, 200), ("SPY", 5, 200)]
    assert parts_of(desk.store) == []
    assert [place.symbol for place in compacted_of(desk.store)] == ["BRK B", "SPY"]
    for symbol, table in before.items():
        assert read_day(desk.store, DAY, symbol).to_pylist() == table.to_pylist()


def test_second_compaction_changes_nothing_and_merges_late_parts(mirror: Mirror, desk: Desk) -> None:
    in_parts(mirror, desk)
    compact_day(desk.store, DAY)
    file = day_file(desk)
    first = file.read_bytes()
    assert compact_day(desk.store, DAY)[0].parts == 0
    assert file.read_bytes() == first
    mirror.write("SPY", range(201, 231), start=NOON + 500)
    desk.keep()
    assert desk.kept() == mirror.written
    assert [(each.parts, each.rows) for each in compact_day(desk.store, DAY)] == [(1, 230)]
    assert desk.kept() == mirror.written


def test_archiver_finds_its_position_in_a_compacted_day(mirror: Mirror, desk: Desk) -> None:
    in_parts(mirror, desk)
    compact_day(desk.store, DAY)
    assert positions(desk.store) == {"SPY": mirror.written["SPY"][-1]}
    assert desk.keep().summary.files == 0


def test_row_groups_are_filled_across_parts(mirror: Mirror, desk: Desk) -> None:
    in_parts(mirror, desk)
    compact_day(desk.store, DAY, rows_per_group=64)
    with pq.ParquetFile(day_file(desk)) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert sizes == [64, 64, 64, 8]
    assert desk.kept() == mirror.written


def test_parts_that_overlap_are_merged_without_doubles_and_nothing_of_either_is_lost(
    mirror: Mirror, desk: Desk
) -> None:
    """As two archivers would leave them, where nothing keeps them apart."""
    mirror.write("SPY", range(1, 101))
    desk.keep()
    whole = read_day(desk.store, DAY, "SPY")
    desk.store.delete(parts_of(desk.store))
    ids = ids_of(whole)
    every, some, few = list(range(60)), [30, *range(31, 99, 2), 99], [50, 52, 54]
    for rows in (every, some, few):
        span = IdSpan(ids[rows[0]], ids[rows[-1]])
        content = part_bytes("SPY", span, whole.take(pa.array(rows)))
        desk.store.put(part_place("SPY", DAY, span), content)
    expected = [ids[row] for row in sorted({*every, *some, *few})]
    assert desk.kept() == {"SPY": expected}
    compact_day(desk.store, DAY)
    assert desk.kept() == {"SPY": expected}


def test_part_missing_from_the_listing_is_neither_lost_nor_skipped(mirror: Mirror, desk: Desk) -> None:
    in_parts(mirror, desk)
    overlooked = parts_of(desk.store)[2]
    compact_day(Overlooks(desk.settings.archive_url, overlooked), DAY)
    assert parts_of(desk.store) == [overlooked]
    assert desk.kept() == mirror.written
    for parts in (1, 0):
        assert [(each.parts, each.rows) for each in compact_day(desk.store, DAY)] == [(parts, 200)]
        assert parts_of(desk.store) == []
        assert desk.kept() == mirror.written


def test_file_without_runs_holds_all_of_its_span(mirror: Mirror, desk: Desk) -> None:
    in_parts(mirror, desk, parts=2)
    parts = {place: (desk.folder / "archive" / place.name).read_bytes() for place in parts_of(desk.store)}
    compact_day(desk.store, DAY)
    path = day_file(desk)
    table = pq.read_table(path, partitioning=None)
    said = {key: value for key, value in table.schema.metadata.items() if key != b"ibkr_depth.runs"}
    pq.write_table(table.replace_schema_metadata(said), path)
    for place, content in parts.items():
        desk.store.put(place, content)  # as if it had been killed before it deleted them
    assert [file.place for file in files_of(desk.store, DAY, "SPY")] == compacted_of(desk.store)
    assert [(each.parts, each.rows) for each in compact_day(desk.store, DAY)] == [(0, 80)]
    assert desk.kept() == mirror.written


def test_compacted_file_names_its_contents_and_has_the_documented_schema(mirror: Mirror, desk: Desk) -> None:
    in_parts(mirror, desk)
    compact_day(desk.store, DAY)
    with pq.ParquetFile(day_file(desk)) as file:
        assert file.schema_arrow.equals(SNAPSHOTS)
        assert file.schema_arrow.metadata[b"ibkr_depth.symbol"] == b"SPY"
        first, last = (str(mirror.written["SPY"][at]) for at in (0, -1))
        assert file.schema_arrow.metadata[b"ibkr_depth.last_id"] == last.encode()
        assert file.schema_arrow.metadata[b"ibkr_depth.runs"] == f"{first}_{last}".encode()
        assert {file.metadata.row_group(0).column(n).compression for n in range(9)} == {"ZSTD"}


def test_second_compaction_at_once_is_refused(mirror: Mirror, desk: Desk) -> None:
    in_parts(mirror, desk, parts=1)
    with desk.store.alone("compaction"), pytest.raises(ArchiveHeld):
        compact_day(desk.store, DAY)


def test_compaction_of_a_day_without_snapshots_does_nothing(desk: Desk) -> None:
    assert compact_day(desk.store, DAY) == []


def test_foreign_files_survive(mirror: Mirror, desk: Desk) -> None:
    in_parts(mirror, desk, parts=2)
    notes = Path(desk.settings.archive_url) / "books" / f"date={DAY}" / "symbol=SPY" / "notes.txt"
    notes.write_text("mine")
    compact_day(desk.store, DAY)
    assert notes.read_text() == "mine"
