"""Which dumped tapes stay in their folder: at most so many, so old and so large together, of each gateway."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from ibkr_depth_pipeline.tape.files import SUFFIX

_STAMP = r"\d{8}T\d{6}Z"
_TAPE = re.compile(rf"(?P<gateway>.+)-{_STAMP}(?:-\d+)?-(?P<reason>[a-z_]+)-0001{re.escape(SUFFIX)}")
_DAY_SECS = 86_400


@dataclass(frozen=True, slots=True)
class KeptTapes:
    """The bounds of what stays: number, days, and bytes of all together. The newest one stays in any case."""

    count: int
    days: float
    total_bytes: int


def stem_of_dump(folder: Path, gateway: str, reason: str, at: int) -> Path:
    """The stem of a tape that is dumped at unix ns `at`; no file has it."""
    stamp = datetime.fromtimestamp(at / 1e9, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    stem = folder / f"{gateway}-{stamp}-{reason}"
    number = 1
    while stem.with_name(f"{stem.name}-0001{SUFFIX}").exists():
        number += 1
        stem = folder / f"{gateway}-{stamp}-{number}-{reason}"
    return stem


def dumps_of(folder: Path, gateway: str) -> list[Path]:
    """The dumped tapes of a gateway, the oldest first."""
    found = ((path, _TAPE.fullmatch(path.name)) for path in folder.glob(f"*{SUFFIX}"))
    mine = [path for path, match in found if match is not None and match["gateway"] == gateway]
    return sorted(mine, key=lambda path: path.stat().st_mtime_ns)


def remove_old_tapes(newest: Path, kept: KeptTapes) -> list[Path]:
    """Removes what is beyond the bounds beside the tape `newest`, of the same gateway; returns what is gone."""
    match = _TAPE.fullmatch(newest.name)
    if match is None:
        return []
    tapes = [path for path in dumps_of(newest.parent, match["gateway"]) if path != newest]
    size, count, since = newest.stat().st_size, 1, time.time() - kept.days * _DAY_SECS
    gone = []
    for path in reversed(tapes):
        status = path.stat()
        size, count = size + status.st_size, count + 1
        if count > kept.count or size > kept.total_bytes or status.st_mtime < since:
            path.unlink(missing_ok=True)
            gone.append(path)
    return gone
