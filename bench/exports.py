"""Exports of a day in each format: records a CPU second and bytes, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.figures import Measured
from bench.processes import REPOSITORY, BenchmarkFailed, Child
from bench.reading import DAY, SYMBOL, make_day
from bench.tape import Tape
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.export.formats import ExportFormat

EXPORTS_PYTHON = REPOSITORY / ".venv-exports" / "bin" / "python"
PYTHON = REPOSITORY / ".venv" / "bin" / "python"

Sample = dict[str, Any]


def measure(tape: Tape, folder: Path, snapshots: int, runs: int, say: Callable[[str], None]) -> list[Sample]:
    """One row of the table for each format, interleaved. A format whose library is not installed is left out."""
    store = ArchiveStore(str(folder / "archive"))
    make_day(store, tape, snapshots)
    found: dict[ExportFormat, list[Sample]] = {}
    for number in range(runs):
        for form in ExportFormat:
            python = EXPORTS_PYTHON if form is ExportFormat.NAUTILUS else PYTHON
            if not python.exists():
                say(f"  {form.value} is left out: {python} is missing, `make test` makes it")
                continue
            sample = export(python, store.url, form, folder / f"day.{form.value}")
            if sample["snapshots_in_archive"] != snapshots:
                raise BenchmarkFailed(f"{form.value}: {sample['snapshots_in_archive']} of {snapshots} snapshots")
            found.setdefault(form, []).append(sample)
            say(f"  round {number + 1}: {form.value}: {sample['records'] / sample['cpu']:,.0f} records a CPU second")
    return [
        {
            "format": form.value,
            "snapshots": each[-1]["snapshots"],
            "records": each[-1]["records"],
            "bytes": each[-1]["bytes"],
            "rss_mb": max(sample["rss_mb"] for sample in each),
            "rate": Measured.of([sample["records"] / sample["cpu"] for sample in each]).as_json(),
            "secs": Measured.of([sample["secs"] for sample in each]).as_json(),
        }
        for form, each in found.items()
    ]


def export(python: Path, archive: str, form: ExportFormat, path: Path) -> Sample:
    """Once, in a process of its own."""
    with Child([python, "-m", "bench.peers.day_export", archive, str(DAY), SYMBOL, form.value, path]) as child:
        return child.line_with("records")
