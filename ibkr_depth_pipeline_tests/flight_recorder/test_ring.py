"""A ring takes no more room than it may, forgets what is over, and is read up to where its process was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ibkr_depth_pipeline.tape.files import Read
from ibkr_depth_pipeline.tape.messages import Way, framed, message_of
from ibkr_depth_pipeline.tape.ring import (
    ABOUT,
    CHECKPOINT,
    HEAD_BOUND_BYTES,
    SEGMENTS,
    RingFiles,
    adopt,
    head_name,
    lock_folder,
)
from ibkr_depth_pipeline.tape.ring_dump import entries_of_ring
from ibkr_depth_pipeline.tape.scribe import TapeRecorder, frame

BOUND = 1 << 16
SECOND = 1_000_000_000
OF_NOBODY = frame(CHECKPOINT, 0, 0, orjson.dumps({"connections": {}, "lines": []}))


MakeRing = Callable[..., RingFiles]


@pytest.fixture
def make_ring(tmp_path: Path) -> Iterator[MakeRing]:
    """Begins a ring in `tmp_path / "ring"`, which is gone after the test."""
    made: list[RingFiles] = []

    def make(bound: int = BOUND, secs: float = 60.0) -> RingFiles:
        made.append(RingFiles(tmp_path / "ring", bound, secs, {"made_by": "a test"}))
        made[-1].begin(OF_NOBODY, 0)
        return made[-1]

    yield make
    for ring in made:
        ring.remove()


def read(at: int, *messages: list[str]) -> bytes:
    return frame(b"<", at, 1, b"".join(framed(message_of(each)) for each in messages))


def row(number: int) -> list[str]:
    return ["12", "1", "7", "0", "1", "1", "150.25", str(number)]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("segment-*"))


def entries(folder: Path) -> list[Any]:
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    return list(entries_of_ring(folder, sizes, greeted()))


def greeted() -> TapeRecorder:
    """One that knows the greeting already: here no head has it."""
    recorder = TapeRecorder()
    recorder.read(0, 1, Way.GATEWAY, framed(message_of(["176", "20261126 09:30:00 EST"])))
    return recorder


def numbers(found: list[Any]) -> list[int]:
    return [int(message[-1]) for entry in found if isinstance(entry, Read) for message in entry.messages]


def test_ring_never_takes_more_room_than_it_may(tmp_path: Path, make_ring: MakeRing) -> None:
    ring, part = make_ring(), BOUND // SEGMENTS
    for number in range(1000):
        data = read(number, row(number)) * 8
        ring.append(data)
        if ring_segment_is_full(tmp_path / "ring", part - len(data)):
            ring.turn(OF_NOBODY, 0.0)
        assert size_of(tmp_path / "ring") <= BOUND
    assert size_of(tmp_path / "ring") > BOUND / 2


def ring_segment_is_full(folder: Path, bound: int) -> bool:
    return max(folder.glob("segment-*")).stat().st_size >= bound


def test_ring_keeps_its_seconds_and_forgets_what_is_older(tmp_path: Path, make_ring: MakeRing) -> None:
    ring = make_ring(bound=1 << 30, secs=10.0)
    for second in range(100):
        ring.turn(OF_NOBODY, second)
        ring.append(read(second * SECOND, row(second)))
    assert numbers(entries(tmp_path / "ring")) == list(range(89, 100))


def test_head_of_a_connection_goes_with_the_last_segment_that_has_its_bytes(
    tmp_path: Path, make_ring: MakeRing
) -> None:
    ring = make_ring(bound=1 << 30, secs=10.0)
    ring.append_head(1, read(0, ["9", "1", "1"]))
    ring.turn(OF_NOBODY, 1)
    ring.end(1)
    head = tmp_path / "ring" / head_name(1)
    ring.turn(OF_NOBODY, 5)
    assert head.exists()
    for second in (9, 12, 30):
        ring.turn(OF_NOBODY, second)
    assert not head.exists()


DIES = """
import os, pathlib
from ibkr_depth_pipeline_tests.flight_recorder.test_ring import BOUND, OF_NOBODY, RingFiles, read, row
ring = RingFiles(pathlib.Path("ring"), BOUND, 60.0, {"made_by": "a test"})
ring.begin(OF_NOBODY, 0)
ring.append(read(2, row(1)) + read(3, row(2))[:-5])
os.kill(os.getpid(), 9)
"""


def test_ring_of_a_killed_process_is_adopted_and_read_to_its_last_whole_frame(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    assert subprocess.run([sys.executable, "-c", DIES], cwd=tmp_path, env=environment, check=False).returncode == -9
    assert adopt(tmp_path / "ring", tmp_path / "adopted", lambda about: {**about, "why": "killed"})
    about = orjson.loads((tmp_path / "adopted" / ABOUT).read_bytes())
    assert (about["made_by"], about["why"]) == ("a test", "killed")
    assert numbers(list(entries_of_ring(tmp_path / "adopted", about["files"], greeted()))) == [1]


def test_ring_of_a_living_process_is_not_adopted(tmp_path: Path, make_ring: MakeRing) -> None:
    make_ring()
    assert not adopt(tmp_path / "ring", tmp_path / "adopted", lambda about: about)
    assert (tmp_path / "ring").exists()


def test_held_ring_stays_as_it_was_while_the_ring_goes_on(tmp_path: Path, make_ring: MakeRing) -> None:
    ring = make_ring(bound=1 << 30, secs=10.0)
    for second in range(20):
        ring.turn(OF_NOBODY, second)
        ring.append(read(second * SECOND, row(second)))
    ring.hold(tmp_path / "held", {"stem": "x"})
    for second in range(20, 60):
        ring.append(read(second * SECOND, row(second)))
        ring.turn(OF_NOBODY, second)
    about = orjson.loads((tmp_path / "held" / ABOUT).read_bytes())
    assert numbers(list(entries_of_ring(tmp_path / "held", about["files"], greeted()))) == list(range(9, 20))


def test_heads_of_ended_connections_are_bounded_together(tmp_path: Path, make_ring: MakeRing) -> None:
    ring = make_ring()
    part = b"x" * (HEAD_BOUND_BYTES // 4)
    for connection in range(1, 20):
        ring.append_head(connection, part)
        ring.end(connection)
        assert sum(path.stat().st_size for path in (tmp_path / "ring").glob("head-*")) <= HEAD_BOUND_BYTES
    assert {path.name for path in (tmp_path / "ring").glob("head-*")} == {head_name(each) for each in range(16, 20)}


def test_ring_whose_folder_was_removed_fails_and_begins_anew_when_it_is_asked_to(
    tmp_path: Path, make_ring: MakeRing
) -> None:
    ring = make_ring()
    for path in (tmp_path / "ring").iterdir():
        path.unlink()
    (tmp_path / "ring").rmdir()
    with pytest.raises(OSError, match="segment"):
        ring.turn(OF_NOBODY, 1)
    ring.restart(OF_NOBODY, 2)
    ring.append(read(3, row(3)))
    assert numbers(entries(tmp_path / "ring")) == [3]


def test_ring_is_its_owners_alone(tmp_path: Path, make_ring: MakeRing) -> None:
    ring = make_ring()
    ring.append_head(1, read(0, ["15", "1", "U1234567"]))
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "ring").iterdir() if path.name != ABOUT} == {0}
    assert (tmp_path / "ring").stat().st_mode & 0o077 == 0
    assert lock_folder(tmp_path / "ring") is None
    ring.remove()
    assert not (tmp_path / "ring").exists()
