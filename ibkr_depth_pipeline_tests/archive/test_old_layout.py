"""Archives of the older layout, parts/ and days/, are read as they are, and become books by a compaction."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ibkr_depth_pipeline.archive.maintenance import compact_day, convert_old_layout
from ibkr_depth_pipeline.archive.parquet_schema import SNAPSHOTS
from ibkr_depth_pipeline.archive.reading import positions, read_day
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline.simulation.archive_tape import archived_symbols, read_archived
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON, Desk, Mirror, compacted_of, ids_of, parts_of
from ibkr_depth_pipeline_tests.archive.midway import DiesAt

LATER = {"con_id", "local_symbol", "expiry", "recv_ns"}
STATES = ("parts", "days", "days and parts it covers", "days and late parts", "runs unknown")


def old_file(path: Path, table: pa.Table, ids: list[StreamId], *, runs: bool = True) -> None:
    """A file of schema version 1."""
    first, last = str(ids[0]).encode(), str(ids[-1]).encode()
    said = {
        b"ibkr_depth.schema": b"1",
        b"ibkr_depth.symbol": b"SPY",
        b"ibkr_depth.first_id": first,
        b"ibkr_depth.last_id": last,
    }
    if runs:
        said[b"ibkr_depth.runs"] = first + b"_" + last
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [name for name in SNAPSHOTS.names if name not in LATER]
    pq.write_table(table.select(columns).replace_schema_metadata(said), path, compression="zstd")


def made_old(mirror: Mirror, desk: Desk, state: str) -> Path:
    """An archive of the older layout in that state, with 200 snapshots of SPY, and nothing of today's layout."""
    mirror.write("SPY", range(1, 201))
    desk.keep()
    root = Path(desk.settings.archive_url)
    table, ids = read_day(desk.store, DAY, "SPY"), mirror.written["SPY"]
    desk.store.delete(parts_of(desk.store))
    below = f"date={DAY}/symbol=SPY"
    in_day = {"parts": 0, "days and late parts": 150}.get(state, 200)
    if in_day:
        old_file(root / "days" / below / "depth.parquet", table[:in_day], ids[:in_day], runs=state != "runs unknown")
    if "parts" in state:
        for first in range(0 if "covers" in state else in_day, 200, 50):
            one, other = ids[first], ids[first + 49]
            name = f"{one.ts:013d}-{one.seq:012d}_{other.ts:013d}-{other.seq:012d}.parquet"
            old_file(root / "parts" / below / name, table[first : first + 50], ids[first : first + 50])
    return root


@pytest.mark.parametrize("state", STATES)
def test_old_archive_is_read_followed_and_converted(mirror: Mirror, desk: Desk, state: str) -> None:
    root = made_old(mirror, desk, state)
    assert desk.kept() == mirror.written
    assert positions(desk.store) == {"SPY": mirror.written["SPY"][-1]}
    assert len(read_archived(root, DAY, "SPY").moments) > 0
    mirror.write("SPY", range(201, 221), start=NOON + 500)
    assert desk.keep().summary.snapshots == {"SPY": 20}, "the archiver goes on where the old files end"
    assert desk.kept() == mirror.written
    before = read_day(desk.store, DAY, "SPY").to_pylist()
    compact_day(desk.store, DAY)
    assert desk.kept() == mirror.written
    assert read_day(desk.store, DAY, "SPY").to_pylist() == before
    assert (len(compacted_of(desk.store)), parts_of(desk.store)) == (1, [])
    assert not (root / "parts").exists()
    assert not (root / "days").exists()
    assert archived_symbols(root, DAY) == ("SPY",)
    (place,) = compacted_of(desk.store)
    with pq.ParquetFile(root / place.name) as file:
        assert file.schema_arrow.equals(SNAPSHOTS), "its files have the columns of today"


@pytest.mark.parametrize("state", STATES)
def test_conversion_that_is_cut_short_at_any_step_reads_as_before(mirror: Mirror, desk: Desk, state: str) -> None:
    made_old(mirror, desk, state)
    for step in range(7):
        try:
            list(convert_old_layout(DiesAt(desk.settings.archive_url, step)))
        except KeyboardInterrupt:
            assert desk.kept() == mirror.written
    assert [day for day, _ in convert_old_layout(desk.store)] == []
    assert desk.kept() == mirror.written
    books = [
        pq.read_table(path, partitioning=None) for path in Path(desk.settings.archive_url, "books").rglob("*.parquet")
    ]
    assert [entry for table in books for entry in ids_of(table)] == mirror.written["SPY"]
