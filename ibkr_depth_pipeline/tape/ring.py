"""The last minutes of a wire, in files of bounded size: what a flight recorder keeps, and a dump makes a tape of.

A ring is a folder of its owner's alone:

    lock               locked as long as its process lives
    segment-00000001   frames (scribe.py) of all connections; the first one is a checkpoint
    head-1             of connection 1: the messages, each a frame, that a client needs before it can go on from any
                       later segment: greeting, contracts, depth exchanges; no rows, no depth requests

A checkpoint is JSON, what a reader must know to begin there: `connections`, number -> `opened` (unix ns), `head` (bytes
of the head until then) and whether `head_is_whole`, `unfinished` (base64 of the bytes of a row whose rest follows),
`requests` (live depth requests, as they were sent); and `lines`, the books of the live subscriptions. Rows are as they
came, all other messages redacted (redaction.py); what leaves the folder is sanitized (ring_dump.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

CHECKPOINT = b"#"
"""The kind of a frame that holds a checkpoint."""

SEGMENTS = 16
"""A ring has about so many segments: with each, that part of what is kept goes at once."""

HEAD_BOUND_BYTES = 8 << 20
"""The largest head of a connection, and of those that have ended together: the details of some 3,000 contracts. What
would go beyond it is left out."""

ABOUT = "about.json"
_LOCK = "lock"


@dataclass(slots=True)
class _Segment:
    path: Path
    began: float
    size: int = 0


class RingFiles:
    """The files of one ring. They take at most `bound` bytes, beside the heads, and `secs` seconds and a segment.

    That is if what is appended before the next `turn` is an eighth of the bound at most.

    about: what a dump needs to know if this process is killed (ring_dump.py: about.json).

    Blocks on the disk, and raises OSError; `restart` goes on after that. Belongs to one thread.
    """

    def __init__(self, folder: Path, bound: int, secs: float, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self._about = about
        self._bound = bound
        self._secs = secs
        self._numbers = 0
        self._segments: deque[_Segment] = deque()
        self._heads: dict[int, IO[bytes]] = {}
        self._ended: dict[int, int] = {}  # connection -> number of the segment in which it ended
        self._file: IO[bytes] | None = None
        self._lock: int | None = None

    def begin(self, checkpoint: bytes, now: float) -> None:
        """Makes the folder and its first segment; as `turn`."""
        self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._lock = lock_folder(self.folder)
        (self.folder / ABOUT).write_bytes(orjson.dumps(self._about))
        self.turn(checkpoint, now)

    def append(self, frames: bytes) -> None:
        """Writes frames to the newest segment."""
        if self._file is not None:
            _write(self._file, frames)
            self._segments[-1].size += len(frames)

    def append_head(self, connection: int, frames: bytes) -> None:
        """Writes frames to the head of a connection."""
        if connection not in self._heads:
            self._heads[connection] = _open(self.folder / head_name(connection))
        head = self._heads[connection]
        size = head.tell()
        try:
            _write(head, frames)
        except OSError:
            head.truncate(size)  # half a frame would hide what follows
            head.seek(size)
            raise

    def end(self, connection: int) -> None:
        """The connection is closed: its head goes with the newest segment, or for want of room."""
        self._ended[connection] = self._numbers
        if head := self._heads.pop(connection, None):
            head.close()
        heads = {each: _size(self.folder / head_name(each)) for each in self._ended}
        for each in list(heads):
            if sum(heads.values()) > HEAD_BOUND_BYTES:
                del self._ended[each]
                (self.folder / head_name(each)).unlink(missing_ok=True)
                heads[each] = 0

    def turn(self, checkpoint: bytes, now: float) -> None:
        """Begins a segment with that frame, and removes those whose time is over, or whose room is needed.

        now: seconds by a clock that never steps.
        """
        if self._file is not None:
            self._file.close()
            self._file = None
        self._numbers += 1
        segment = _Segment(self.folder / f"segment-{self._numbers:08}", now)
        self._file = _open(segment.path)
        self._segments.append(segment)
        self.append(checkpoint)
        needed = 2 * self._bound // SEGMENTS + len(checkpoint)  # one segment, and what comes before the next is begun
        while len(self._segments) > 1 and self._is_over(now, needed):
            self._segments.popleft().path.unlink(missing_ok=True)
        self._remove_heads()

    def _is_over(self, now: float, needed: int) -> bool:
        """Whether the oldest segment is to go: the others reach back far enough, or its room is needed."""
        kept = sum(segment.size for segment in self._segments)
        return self._segments[1].began <= now - self._secs or kept + needed > self._bound

    def _remove_heads(self) -> None:
        oldest = self._numbers - len(self._segments) + 1
        for connection in [each for each, ended in self._ended.items() if ended < oldest]:
            del self._ended[connection]
            (self.folder / head_name(connection)).unlink(missing_ok=True)

    def restart(self, checkpoint: bytes, now: float) -> None:
        """Forgets all segments, and starts again, as `turn`; the heads stay."""
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
        self._file = None
        while self._segments:
            self._segments.popleft().path.unlink(missing_ok=True)
        self._unlock()
        self.begin(checkpoint, now)

    def hold(self, target: Path, about: Mapping[str, Any]) -> None:
        """Keeps what there is now in the folder `target` as well, for a dump; about: what its about.json says."""
        target.mkdir(parents=True, mode=0o700)
        sizes = {segment.path.name: segment.size for segment in self._segments}
        for head in self.folder.glob("head-*"):
            sizes[head.name] = head.stat().st_size
        for name in sizes:
            _link(self.folder / name, target / name)
        (target / ABOUT).write_bytes(orjson.dumps({**about, "files": sizes}))

    def remove(self) -> None:
        """Ends the ring: nothing of it stays."""
        for file in (self._file, *self._heads.values()):
            with contextlib.suppress(OSError):
                if file is not None:
                    file.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def head_name(connection: int) -> str:
    """The name of the file with a connection's head."""
    return f"head-{connection}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _open(path: Path) -> IO[bytes]:
    """Unbuffered: what is written survives the process."""
    return open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600))


def _write(file: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def lock_folder(folder: Path) -> int | None:
    """Locks a ring or a held one for this process. None if another one has it. Raises OSError."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def adopt(folder: Path, target: Path, about: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> bool:
    """Takes over a ring whose process is dead, for a dump, as the folder `target`. False if its process lives.

    about(what its own about.json says) is what it says from now on. Raises OSError, and ValueError if it was cut off
    before it began.
    """
    lock = lock_folder(folder)
    if lock is None:
        return False
    try:
        files = [path for path in folder.iterdir() if path.name.startswith(("segment-", "head-"))]
        known = orjson.loads((folder / ABOUT).read_bytes())
        sizes = {path.name: path.stat().st_size for path in files}
        (folder / ABOUT).write_bytes(orjson.dumps({**about(known), "files": sizes}))
        folder.rename(target)
    finally:
        os.close(lock)
    return True
