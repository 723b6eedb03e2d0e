"""Two archives to export from: a simulated rotation with gaps, and the real AAPL recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.export.exporting import Exported, ExportRequest, export_day
from ibkr_depth_pipeline.export.formats import ExportFormat
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval
from ibkr_depth_pipeline_tests.export.kept import Kept, interval_of, keep, real_books, rotated

DAY = date(2026, 1, 5)
REAL_CHANGES = 2500


@dataclass
class Source:
    """An archive, what is in it, and its exports."""

    store: ArchiveStore
    snapshots: list[Kept]
    intervals: list[SubscriptionInterval]
    folder: Path

    def export(
        self, form: ExportFormat, name: str = "", *, symbol: str = "SPY", day: date = DAY, **asked: Any
    ) -> Exported:
        request = ExportRequest(day, symbol, form, self.folder / (name or f"spy.{form.value}"), **asked)
        return export_day(self.store, request, now=datetime.now(timezone.utc), progress=lambda read, total: None)


@pytest.fixture
def rotation(tmp_path: Path) -> Source:
    """Three turns with unobserved time between them, and a hole in one."""
    return Source(*rotated(tmp_path / "archive"), tmp_path)


@pytest.fixture(scope="session")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """One long subscription of the real AAPL book."""
    folder = tmp_path_factory.mktemp("real")
    snapshots = real_books(shared_data, REAL_CHANGES)
    intervals = [interval_of(snapshots, 1)]
    return Source(keep(folder / "archive", snapshots, intervals, pieces=3), snapshots, intervals, folder)


@pytest.fixture(params=["rotation", "real"])
def source(request: pytest.FixtureRequest) -> Source:
    """Both, one after the other."""
    found: Source = request.getfixturevalue(request.param)
    return found


MakeSource = Callable[..., Source]


@pytest.fixture
def source_of(tmp_path: Path) -> MakeSource:
    """A source of the given snapshots and intervals."""

    def make(snapshots: list[Kept], intervals: list[SubscriptionInterval] | None = None) -> Source:
        chosen = [interval_of(snapshots, 1)] if intervals is None else intervals
        return Source(keep(tmp_path / "archive", snapshots, chosen), snapshots, chosen, tmp_path)

    return make
