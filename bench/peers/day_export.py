"""Exports an archived day once: `python -m bench.peers.day_export ARCHIVE DATE SYMBOL FORMAT PATH`. Prints one JSON.

It runs in the environment that has the format's library, and imports nothing of the benchmark.
"""

import json
import sys
import time
from datetime import date, datetime, timezone
from pathlib import Path

from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.export.exporting import ExportRequest, export_day
from ibkr_depth_pipeline.export.formats import ExportFormat


def main() -> None:
    archive, day, symbol, form, path = sys.argv[1:]
    request = ExportRequest(date.fromisoformat(day), symbol, ExportFormat(form), Path(path), force=True)
    began, worked = time.perf_counter(), time.process_time()
    done = export_day(ArchiveStore(archive), request, now=datetime.now(timezone.utc), progress=lambda *_: None)
    secs = {"secs": time.perf_counter() - began, "cpu": time.process_time() - worked}
    stored = sum(int(each["bytes"]) for each in done.manifest["files"])
    print(json.dumps({**secs, **done.manifest["counts"], "bytes": stored, "rss_mb": peak_rss_mb()}))


def peak_rss_mb() -> float:
    """Of this program alone: getrusage would count what its parent had before it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
