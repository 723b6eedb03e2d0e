"""Books and figures that a test can reckon with: round times, round prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ibkr_depth_pipeline.archive.figures import FiguresBuffer, read_figures
from ibkr_depth_pipeline.archive.layout import day_of
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.report.timeline import SnapshotColumns
from ibkr_depth_pipeline.schema.status import FeedFigures

START = 1_767_614_400_000  # 2026-01-05 12:00 UTC

Side = Sequence[tuple[float, float]]


def books(*snapshots: tuple[int, Side, Side]) -> SnapshotColumns:
    """Snapshots as (ms after START, bids, asks), a side being (price, size) best first."""
    count = len(snapshots)
    sides = [np.zeros((count, 10)) for _ in range(4)]
    for row, (_, bids, asks) in enumerate(snapshots):
        for side, levels in ((0, bids), (1, asks)):
            for level, (price, size) in enumerate(levels):
                sides[side][row, level], sides[side + 2][row, level] = price, size
    ts = np.array([START + at for at, _, _ in snapshots], dtype=np.int64)
    return SnapshotColumns(ts, *sides)


def quoted(at: int, bid: float = 99.0, ask: float = 101.0) -> tuple[int, Side, Side]:
    """A book of two rows."""
    return at, [(bid, 1.0)], [(ask, 1.0)]


def part(all_of: SnapshotColumns, start: int, end: int) -> SnapshotColumns:
    """Some of them."""
    columns = (all_of.ts, all_of.bid_price, all_of.ask_price, all_of.bid_size, all_of.ask_size)
    return SnapshotColumns(*(column[start:end] for column in columns))


def keep_figures(store: ArchiveStore, states: Sequence[FeedFigures], ingest: str = "default") -> Any:
    """Put them where the archiver does; the table that a reader gets."""
    buffer = FiguresBuffer()
    for state in states:
        buffer.add(ingest, state, 0.0)
    for place, content in buffer.take(float("inf")):
        store.put(place, content)
    return read_figures(store, day_of(states[0].written_ts), ingest)
