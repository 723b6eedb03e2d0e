"""kill -9 of the real console script, at random moments: nothing is lost, and nothing is there twice, in any reader."""

from __future__ import annotations

import random
import time
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ibkr_depth_pipeline.archive.layout import DAYS, PARTS
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.reading import all_gaps
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON, PATIENCE_SECS, Desk, Mirror, ids_of
from ibkr_depth_pipeline_tests.archive.midway import DiesAt
from ibkr_depth_pipeline_tests.archive.recorder import SYMBOLS, recorder

KILLS = 8


def plainly_read(desk: Desk, tree: str) -> dict[str, list[StreamId]]:
    """All files of a tree, read as a program would that knows nothing of this archive: no name, no order, no ids."""
    found: dict[str, list[StreamId]] = {}
    for path in Path(desk.settings.archive_url, tree).rglob("*.parquet"):
        symbol = path.parent.name.removeprefix("symbol=").replace("%20", " ")
        with pq.ParquetFile(path) as file:
            found.setdefault(symbol, []).extend(ids_of(file.read()))
    return {symbol: sorted(ids) for symbol, ids in found.items()}


def count_of(desk: Desk) -> int:
    return len(desk.store.places(PARTS))


def has_grown(desk: Desk, before: int) -> bool:
    return count_of(desk) > before


@pytest.mark.timeout(300)
def test_archiver_killed_again_and_again_keeps_each_snapshot_once(mirror: Mirror, desk: Desk) -> None:
    dice = random.Random(6)
    with recorder(mirror):
        for _ in range(KILLS):
            with desk.starts("run", ARCHIVE_FLUSH_SECS="0.1", ARCHIVE_FLUSH_ROWS="300"):
                assert wait_until(partial(has_grown, desk, count_of(desk)), PATIENCE_SECS), "nothing is kept"
                time.sleep(dice.uniform(0, 0.3))  # the kill comes at a random moment
    finished = desk.runs("run", "--once")
    assert finished.returncode == 0, finished.stderr
    assert plainly_read(desk, PARTS) == mirror.written
    assert desk.kept() == mirror.written
    assert all_gaps(desk.store) == []


@pytest.mark.timeout(300)
def test_compaction_killed_at_any_moment_leaves_a_day_that_reads_as_before(mirror: Mirror, desk: Desk) -> None:
    dice = random.Random(9)
    for first in range(1, 6001, 500):
        for symbol in SYMBOLS:
            mirror.write(symbol, range(first, first + 500), start=NOON + first)
        desk.keep()
    begun = Path(desk.settings.archive_url) / ".tmp" / "compaction.lock"
    for _ in range(KILLS):
        with desk.starts("compact", str(DAY)):
            assert wait_until(begun.exists, PATIENCE_SECS)
            time.sleep(dice.uniform(0, 0.15))  # the kill comes at a random moment
        assert desk.kept() == mirror.written
        begun.unlink()
    finished = desk.runs("compact", str(DAY))
    assert finished.returncode == 0, finished.stderr
    assert plainly_read(desk, DAYS) == mirror.written
    assert desk.store.places(PARTS) == []
    assert [path.name for path in begun.parent.iterdir() if path.suffix == ".writing"] == []


def test_day_reads_as_before_after_each_single_step_of_a_compaction(mirror: Mirror, desk: Desk) -> None:
    for first in (1, 101, 201):
        mirror.write("SPY", range(first, first + 100), start=NOON + first)
        desk.keep()
    for step in range(4):  # publish, and three parts to delete
        with pytest.raises(KeyboardInterrupt):
            compact_day(DiesAt(desk.settings.archive_url, step), DAY)
        assert desk.kept() == mirror.written
        desk.keep()
        assert desk.kept() == mirror.written, "and an archiver that starts just then goes on where it was"
        mirror.write("SPY", range(301 + step, 302 + step), start=NOON + 400 + step)
        desk.keep()
        assert desk.kept() == mirror.written, "nor is what comes late lost"
    compact_day(desk.store, DAY)
    assert plainly_read(desk, DAYS) == mirror.written
