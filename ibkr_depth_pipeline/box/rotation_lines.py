"""From the engine's JSON log to a line per rotation for the person at the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

_SHOWN_LEVELS = ("error", "critical")
_OWN_FIELDS = ("event", "level", "timestamp")


class RotationLines:
    """Reads log lines in order, adds the snapshots up, and words the rotations and the errors."""

    def __init__(self) -> None:
        self.snapshots = 0
        self.rotations = 0

    def line_for(self, raw: str) -> str | None:
        """What to show for one line of the log; None for most. A line that is not the engine's is none of ours."""
        happening = _parse(raw)
        event = happening.get("event")
        if event == "snapshots_persisted":
            self.snapshots += int(happening.get("snapshots", 0))
        if event == "rotation_started":
            return self._rotation(happening)
        if happening.get("level") in _SHOWN_LEVELS:
            details = " ".join(f"{key}={value}" for key, value in happening.items() if key not in _OWN_FIELDS)
            return f"{_clock(happening)}  {happening['level'].upper()} {event} {details}".rstrip()
        return None

    def _rotation(self, happening: dict[str, Any]) -> str:
        self.rotations += 1
        symbols = " ".join(happening.get("symbols", ()))
        turn = happening.get("turn", self.rotations)
        return f"{_clock(happening)}  rotation {turn}: {symbols:<24} {self.snapshots:>10,} snapshots so far"


def _parse(raw: str) -> dict[str, Any]:
    try:
        happening = json.loads(raw)
    except ValueError:
        return {}
    return happening if isinstance(happening, dict) else {}


def _clock(happening: dict[str, Any]) -> str:
    """The local time of a happening, to the second."""
    try:
        return datetime.fromisoformat(happening["timestamp"].replace("Z", "+00:00")).astimezone().strftime("%H:%M:%S")
    except (KeyError, ValueError, AttributeError):
        return "--:--:--"


class LogFollower:
    """The complete lines added since the last look to the files under `folder` that match; new files, too."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder, self._pattern = folder, pattern
        self._read: dict[Path, int] = {}

    def new_lines(self) -> Iterator[str]:
        for path in sorted(self._folder.glob(self._pattern)):
            yield from self._new_lines_of(path)

    def _new_lines_of(self, path: Path) -> list[str]:
        start = self._read.get(path, 0)
        if path.stat().st_size <= start:
            return []
        with path.open("rb") as log:
            log.seek(start)
            complete, newline, _rest = log.read().rpartition(b"\n")
        self._read[path] = start + len(complete) + len(newline)
        return complete.decode(errors="replace").splitlines()
