"""What is read is the same whatever a compaction does meanwhile."""

from __future__ import annotations

import contextlib

import pytest

from ibkr_depth_pipeline.archive.audit import audit_day
from ibkr_depth_pipeline.archive.figures import read_figures
from ibkr_depth_pipeline.archive.layout import PARTS
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.reading import LISTINGS, positions, read_day, settled
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import ArchiveUnavailable
from ibkr_depth_pipeline.schema.keys import ingest_key
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity
from ibkr_depth_pipeline_tests.archive.conftest import DAY, NOON, Desk, Mirror, ids_of
from ibkr_depth_pipeline_tests.archive.midway import DiesAt, MeanwhileAt

STEPS = range(6)


@pytest.fixture
def half_compacted(mirror: Mirror, desk: Desk) -> Desk:
    """A day's file, and three parts that came late."""
    for first in range(1, 201, 40):
        mirror.write("SPY", range(first, first + 40), start=NOON + first)
        desk.keep()
        if first == 41:
            compact_day(desk.store, DAY)
    return desk


def compact(desk: Desk, steps: int) -> None:
    """So far: to publish the day's file is the first step, to delete a part another one."""
    with contextlib.suppress(KeyboardInterrupt):
        compact_day(DiesAt(desk.settings.archive_url, steps), DAY)


@pytest.mark.parametrize("at", STEPS)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_day_that_is_compacted_while_it_is_read_has_each_snapshot_once(
    mirror: Mirror, half_compacted: Desk, at: int, steps: int
) -> None:
    store = MeanwhileAt(half_compacted.settings.archive_url, at, lambda: compact(half_compacted, steps))
    assert ids_of(read_day(store, DAY, "SPY")) == mirror.written["SPY"]
    assert positions(store) == {"SPY": mirror.written["SPY"][-1]}


@pytest.mark.parametrize("at", STEPS)
def test_day_that_is_compacted_while_it_is_checked_passes(half_compacted: Desk, at: int) -> None:
    store = MeanwhileAt(half_compacted.settings.archive_url, at, lambda: compact(half_compacted, 4))
    assert [audit.passed for audit in audit_day(half_compacted.settings, DAY, store=store)] == [True]


@pytest.mark.parametrize("at", range(3))
def test_figures_that_are_compacted_while_they_are_read_are_each_there_once(
    mirror: Mirror, desk: Desk, at: int
) -> None:
    moments = [NOON + at for at in (1, 2001)]
    for moment in moments:
        mirror.redis.set(ingest_key("default"), FeedFigures(RunIdentity("a", "a-host", 7, NOON), moment).to_json())
        desk.keep()
    store = MeanwhileAt(desk.settings.archive_url, at, lambda: compact_day(desk.store, DAY))
    found = read_figures(store, DAY, "default")["written_ts"].to_pylist()
    assert [round(each.timestamp() * 1000) for each in found] == moments


def test_files_that_vanish_at_every_read_are_an_error_in_the_end(desk: Desk) -> None:
    tries: list[int] = []

    def read() -> None:
        tries.append(1)
        raise FileNotFoundError(PARTS)

    with pytest.raises(ArchiveUnavailable, match="vanish"):
        settled(ArchiveStore(desk.settings.archive_url), read)
    assert len(tries) == LISTINGS
