"""A tape on disk: gzipped JSON lines, in parts of bounded size; written by one process, read by any.

The first line of each part is its head. Each other line is what one read of a socket brought, or an event:

    {"t": 1764150000123456789, "c": 1, "d": "<", "n": 57, "m": [["12", "1", "7", ...], {"type": 3, ...}]}
    {"t": 1764150000123456789, "c": 1, "e": "closed", "by": "gateway"}

`t` is when it was read, in unix nanoseconds; `c` the number of the connection; `d` who sent it; `n` how many bytes the
read had; `m` the messages that it completed (sanitizer.py).
"""

from __future__ import annotations

import glob
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

import orjson

from ibkr_depth_pipeline.tape.messages import Way
from ibkr_depth_pipeline.tape.sanitizer import Kept

SUFFIX = ".tape.gz"
FORMAT = "ibkr-depth-tape"
VERSION = 1
ABOUT = (
    "What an API client and an IBKR gateway sent to each other, as far as recording market depth needs it. Account "
    "numbers are replaced by hashes; orders, positions, balances and all other messages are dropped but for their type."
)
_COMPRESSION = 5
_PART = re.compile(r"-\d{4,}\.tape\.gz")


class UnreadableTape(ValueError):
    """A file that is no tape, or one that can't be read; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Read:
    """What one read of a socket brought. `at` is unix nanoseconds."""

    at: int
    connection: int
    way: Way
    size: int
    messages: Sequence[Kept]


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """`opened`, `closed`, `refused` (a message that was not forwarded), `missed` (bytes that were not recorded), or
    `resumed`, of a connection that is older than the tape: what stands before is what a client needs to go on here."""

    at: int
    connection: int
    name: str
    detail: dict[str, Any] = field(default_factory=dict)


Entry = Read | LinkEvent


def encode_entry(entry: Entry) -> bytes:
    """The line of an entry."""
    if isinstance(entry, Read):
        line = {"t": entry.at, "c": entry.connection, "d": entry.way.value, "n": entry.size, "m": entry.messages}
    else:
        line = {"t": entry.at, "c": entry.connection, "e": entry.name, **entry.detail}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def decode_entry(line: bytes) -> Entry:
    """The entry of a line. Raises ValueError, KeyError or TypeError if it is none."""
    found = orjson.loads(line)
    at, connection = int(found.pop("t")), int(found.pop("c"))
    if "e" in found:
        return LinkEvent(at, connection, str(found.pop("e")), found)
    return Read(at, connection, Way(found["d"]), int(found["n"]), found["m"])


class TapeWriter:
    """Writes a tape to parts `<stem>-0001.tape.gz`, ...: a new one after `part_bytes` compressed bytes.

    At most `parts` of them are kept. Each begins with a head, and with an `opened` event for each connection that is
    open then, so that it can be read by itself. notes: what the head holds besides. Blocks on the disk.
    """

    def __init__(
        self, stem: Path, *, part_bytes: int, parts: int, made_by: str, notes: Mapping[str, Any] | None = None
    ) -> None:
        self._stem = stem
        self._part_bytes = part_bytes
        self._parts = parts
        self._made_by = made_by
        self._notes = dict(notes or {})
        self._number = 0
        self._open: dict[int, LinkEvent] = {}
        self._raw: IO[bytes] | None = None
        self._file: gzip.GzipFile | None = None

    def write(self, entries: Iterable[Entry]) -> None:
        """Appends entries."""
        for entry in entries:
            self._part(entry.at).write(encode_entry(entry))
            if isinstance(entry, LinkEvent) and entry.name == "opened":
                self._open[entry.connection] = entry
            elif isinstance(entry, LinkEvent) and entry.name == "closed":
                self._open.pop(entry.connection, None)

    def flush(self) -> None:
        """Hands all that was written to the operating system, so that a reader finds it."""
        if self._file is not None:
            self._file.flush(zlib.Z_SYNC_FLUSH)

    def close(self) -> None:
        """Ends the part."""
        if self._file is not None and self._raw is not None:
            self._file.close()
            self._raw.close()
        self._file = self._raw = None

    def _part(self, at: int) -> gzip.GzipFile:
        if self._raw is not None and self._raw.tell() >= self._part_bytes:
            self.close()
        if self._file is None:
            self._file = self._next_part(at)
        return self._file

    def _next_part(self, at: int) -> gzip.GzipFile:
        existing = parts_of(self._stem)
        self._number = 1 + (_number(existing[-1]) if existing else 0)
        for path in existing[: max(0, len(existing) + 1 - self._parts)]:
            path.unlink(missing_ok=True)
        self._raw = part_path(self._stem, self._number).open("xb")
        file = gzip.GzipFile(fileobj=self._raw, mode="wb", compresslevel=_COMPRESSION, filename="", mtime=0)
        made = datetime.fromtimestamp(at / 1e9, timezone.utc).isoformat(timespec="seconds")
        head = {"format": FORMAT, "version": VERSION, "about": ABOUT, "made": made, "made_by": self._made_by}
        file.write(orjson.dumps({**head, "part": self._number, **self._notes}, option=orjson.OPT_APPEND_NEWLINE))
        for event in self._open.values():
            file.write(encode_entry(LinkEvent(at, event.connection, "opened", {**event.detail, "earlier": event.at})))
        file.flush(zlib.Z_SYNC_FLUSH)  # so that a part whose writer is killed at once is one
        return file


def part_path(stem: Path, number: int) -> Path:
    """The path of a part."""
    return stem.with_name(f"{stem.name}-{number:04}{SUFFIX}")


def stem_of(out: Path) -> Path:
    """What the names of a tape's parts begin with, if the tape is called `out`."""
    return out.with_name(out.name.removesuffix(SUFFIX))


def parts_of(stem: Path) -> list[Path]:
    """The parts that there are, in order."""
    found = stem.parent.glob(f"{glob.escape(stem.name)}-*{SUFFIX}")
    return sorted((path for path in found if _PART.fullmatch(path.name[len(stem.name) :])), key=_number)


def _number(part: Path) -> int:
    return int(part.name.removesuffix(SUFFIX).rpartition("-")[2])


def read_entries(path: Path) -> Iterator[Entry]:
    """The entries of a tape: `path` is one part, or what the names of its parts begin with.

    A part whose writer was killed is read up to its end. Raises UnreadableTape.
    """
    for part in _parts_to_read(path):
        yield from _entries_of_part(part)


def read_head(path: Path) -> dict[str, Any]:
    """The head of a tape's first part. Raises UnreadableTape."""
    first = _parts_to_read(path)[0]
    with gzip.open(first) as file:
        return _head(first, file)


def _parts_to_read(path: Path) -> list[Path]:
    """At least one. Raises UnreadableTape."""
    parts = [path] if path.is_file() else parts_of(stem_of(path))
    if not parts:
        raise UnreadableTape(f"{path}: no such tape: name a file that ends in {SUFFIX}, or what its parts begin with")
    return parts


def _entries_of_part(path: Path) -> Iterator[Entry]:
    with gzip.open(path) as file:
        _head(path, file)
        for number in range(2, 1 << 62):
            try:
                line = file.readline()
            except (EOFError, zlib.error):  # its writer was killed
                return
            if not line.endswith(b"\n"):
                return
            try:
                yield decode_entry(line)
            except (ValueError, KeyError, TypeError) as problem:
                raise UnreadableTape(f"{path}, line {number}: not an entry of a tape ({problem})") from None


def _head(path: Path, file: gzip.GzipFile) -> dict[str, Any]:
    try:
        head = orjson.loads(file.readline())
        if head["format"] != FORMAT:
            raise ValueError
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):
        raise UnreadableTape(f"{path}: not a tape of this program") from None
    if head["version"] > VERSION:
        raise UnreadableTape(f"{path}: of version {head['version']}; up to {VERSION} can be read: install a newer one")
    return dict(head)
