"""A compaction whose process is killed (SIGKILL) at one step: `python -m ... FOLDER DATE STEP`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ibkr_depth_pipeline.archive import store as store_module
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.store import ArchiveStore

STEPS: tuple[tuple[Any, str], ...] = (
    (pq.ParquetWriter, "write_table"),
    (os, "link"),
    (store_module, "swap_folders"),
    (os, "fsync"),
    (shutil, "rmtree"),
    (Path, "unlink"),
)
"""What a compaction does with files, in its order."""


def _killed_before(work: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)


def _killed_after(work: Callable[..., Any]) -> Callable[..., Any]:
    def works_and_is_killed(*args: Any, **kwargs: Any) -> None:
        work(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    return works_and_is_killed


if __name__ == "__main__":
    folder, day, step = sys.argv[1:]
    owner, name = STEPS[int(step) // 2]
    killed = _killed_after if int(step) % 2 else _killed_before
    setattr(owner, name, killed(getattr(owner, name)))
    compact_day(ArchiveStore(folder), date.fromisoformat(day))
