"""Dumped tapes of a gateway stay in bounds of number, age and size; those of another one are not touched."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ibkr_depth_pipeline.tape.retention import KeptTapes, dumps_of, remove_old_tapes, stem_of_dump

ALL = KeptTapes(count=1000, days=1000, total_bytes=1 << 40)
DAY = 86_400


def tape(folder: Path, gateway: str, age_days: float, size: int = 10, reason: str = "reconnect") -> Path:
    at = time.time() - age_days * DAY
    stem = stem_of_dump(folder, gateway, reason, int(at * 1e9))
    path = stem.with_name(f"{stem.name}-0001.tape.gz")
    path.write_bytes(b"x" * size)
    os.utime(path, (at, at))
    return path


@pytest.mark.parametrize(
    ("kept", "stay"),
    [
        (ALL, 5),
        (KeptTapes(count=2, days=1000, total_bytes=1 << 40), 2),
        (KeptTapes(count=1000, days=2.5, total_bytes=1 << 40), 3),
        (KeptTapes(count=1000, days=1000, total_bytes=35), 3),
        (KeptTapes(count=1000, days=1000, total_bytes=1), 1),
    ],
)
def test_newest_tapes_within_every_bound_stay(tmp_path: Path, kept: KeptTapes, stay: int) -> None:
    tapes = [tape(tmp_path, "default", days) for days in (4, 3, 2, 1, 0)]
    remove_old_tapes(tapes[-1], kept)
    assert dumps_of(tmp_path, "default") == tapes[-stay:]


def test_tapes_of_other_gateways_and_other_files_are_left_alone(tmp_path: Path) -> None:
    others = [tape(tmp_path, "default-2", 9), tape(tmp_path, "paper", 9), tmp_path / "spy-0001.tape.gz"]
    others[-1].touch()
    own = [tape(tmp_path, "default", days) for days in (3, 0)]
    assert remove_old_tapes(own[-1], KeptTapes(1, 1, 1)) == [own[0]]
    assert all(path.exists() for path in [*others, own[-1]])


def test_two_tapes_of_one_second_have_two_names(tmp_path: Path) -> None:
    at = 1_790_000_000_000_000_000
    first = stem_of_dump(tmp_path, "default", "reconnect", at)
    first.with_name(f"{first.name}-0001.tape.gz").touch()
    second = stem_of_dump(tmp_path, "default", "reconnect", at)
    second.with_name(f"{second.name}-0001.tape.gz").touch()
    assert first != second
    assert len(dumps_of(tmp_path, "default")) == 2
