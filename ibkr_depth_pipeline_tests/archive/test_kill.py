"""kill -9 of the real console script, at random moments: nothing is lost, and nothing is there twice, in any reader."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ibkr_depth_pipeline.archive.layout import BOOKS
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.reading import all_gaps
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline_tests.archive import dying
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON, Desk, Mirror, ids_of, parts_of
from ibkr_depth_pipeline_tests.archive.dying import STEPS
from ibkr_depth_pipeline_tests.archive.midway import DiesAt
from ibkr_depth_pipeline_tests.archive.recorder import SYMBOLS, recorder
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

KILLS = 8


def plainly_read(desk: Desk) -> dict[str, list[StreamId]]:
    """All books, read as a program would that knows nothing of this archive: no name, no order, no ids."""
    found: dict[str, list[StreamId]] = {}
    for path in Path(desk.settings.archive_url, BOOKS).glob("*/*/*.parquet"):
        symbol = path.parent.name.removeprefix("symbol=").replace("%20", " ")
        with pq.ParquetFile(path) as file:
            found.setdefault(symbol, []).extend(ids_of(file.read()))
    return {symbol: sorted(ids) for symbol, ids in found.items()}


def leftovers(desk: Desk) -> list[str]:
    """What nobody needs any more among the temporary files."""
    return [path.name for path in Path(desk.settings.archive_url, ".tmp").iterdir() if path.suffix != ".lock"]


def count_of(desk: Desk) -> int:
    return len(parts_of(desk.store))


def has_grown(desk: Desk, before: int) -> bool:
    return count_of(desk) > before


@pytest.mark.faults
def test_archiver_killed_again_and_again_keeps_each_snapshot_once(mirror: Mirror, desk: Desk) -> None:
    dice = random.Random(6)
    with recorder(mirror):
        for _ in range(KILLS):
            with desk.starts("run", ARCHIVE_FLUSH_SECS="0.1", ARCHIVE_FLUSH_ROWS="300"):
                assert wait_until(partial(has_grown, desk, count_of(desk)), PATIENCE_SECS), "nothing is kept"
                time.sleep(dice.uniform(0, 0.3))  # the kill comes at a random moment
    finished = desk.runs("run", "--once")
    assert finished.returncode == 0, finished.stderr
    assert plainly_read(desk) == mirror.written
    assert desk.kept() == mirror.written
    assert all_gaps(desk.store) == []


@pytest.mark.faults
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
        assert plainly_read(desk) == mirror.written, "a plain glob finds each snapshot once in any state"
        begun.unlink()
    finished = desk.runs("compact", str(DAY))
    assert finished.returncode == 0, finished.stderr
    assert plainly_read(desk) == mirror.written
    assert parts_of(desk.store) == []
    assert leftovers(desk) == []


@pytest.mark.parametrize("swaps", [True, False])
def test_day_reads_as_before_after_each_single_step_of_a_compaction(mirror: Mirror, desk: Desk, swaps: bool) -> None:
    for first in (1, 101, 201):
        mirror.write("SPY", range(first, first + 100), start=NOON + first)
        desk.keep()
    for step in range(7):  # to sweep, to swap or publish, three parts to delete, to sweep
        with contextlib.suppress(KeyboardInterrupt):
            compact_day(DiesAt(desk.settings.archive_url, step, swaps=swaps), DAY)
        assert desk.kept() == mirror.written
        if swaps:
            assert plainly_read(desk) == mirror.written
        desk.keep()
        assert desk.kept() == mirror.written, "and an archiver that starts just then goes on where it was"
        assert plainly_read(desk) == mirror.written, "and has deleted what the compaction had not"
        mirror.write("SPY", range(301 + step, 302 + step), start=NOON + 400 + step)
        desk.keep()
        assert desk.kept() == mirror.written, "nor is what comes late lost"
    compact_day(desk.store, DAY)
    assert plainly_read(desk) == mirror.written
    assert parts_of(desk.store) == []
    assert leftovers(desk) == []


@pytest.mark.parametrize(
    "step",
    [*range(1, 2 * len(STEPS), 2), *(pytest.param(at, marks=pytest.mark.faults) for at in range(0, 2 * len(STEPS), 2))],
)
def test_glob_finds_each_snapshot_once_after_a_kill_at_any_step_of_a_compaction(
    mirror: Mirror, desk: Desk, step: int
) -> None:
    for first in (1, 101):
        mirror.write("SPY", range(first, first + 100), start=NOON + first)
        desk.keep()
    command = [sys.executable, "-m", dying.__name__, desk.settings.archive_url, str(DAY), str(step)]
    assert subprocess.run(command, timeout=PATIENCE_SECS).returncode == -signal.SIGKILL
    assert plainly_read(desk) == mirror.written
    mirror.write("SPY", [201], start=NOON + 300)
    desk.keep()
    assert plainly_read(desk) == mirror.written, "with what comes after the kill as well"
    compact_day(desk.store, DAY)
    assert plainly_read(desk) == mirror.written
    assert (len(parts_of(desk.store)), leftovers(desk)) == (0, [])


@pytest.mark.faults
def test_glob_in_the_midst_of_compactions_and_new_parts_finds_each_snapshot_once(mirror: Mirror, desk: Desk) -> None:
    """A reader that lists, opens what it has listed, and begins again if a file is gone by then."""
    over = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not over.is_set():
            with contextlib.suppress(FileNotFoundError):
                ids = plainly_read(desk).get("SPY", [])
                assert [entry.seq for entry in ids] == list(range(1, len(ids) + 1)), "none is missing or doubled"
                seen.append(len(ids))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            for first in range(1, 1001, 50):
                mirror.write("SPY", range(first, first + 50), start=NOON + first)
                desk.keep()
                compact_day(desk.store, DAY)
        finally:
            over.set()
        reading.result()
    assert plainly_read(desk) == mirror.written
    assert seen == sorted(seen), "what has been there once stays"
    assert len(set(seen)) > 3, "it was read in the midst"
