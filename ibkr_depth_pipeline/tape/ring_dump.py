"""Makes a tape of a held ring (ring.py): `python -m ibkr_depth_pipeline.tape.ring_dump FOLDER`, a process of its own.

Sanitizing the minutes of a busy wire takes seconds; in the recorder's process that would delay rows. The folder's
about.json says what the head of the tape is to say (`notes`), where the tape goes (`stem`), and how many stay there
(`keep`). Prints one JSON object on stdout: the tape's path, size and span, or `error`. The folder is removed.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import orjson

from ibkr_depth_pipeline.tape.files import Entry, LinkEvent, Read, TapeWriter, part_path
from ibkr_depth_pipeline.tape.messages import Way, framed, message_of
from ibkr_depth_pipeline.tape.redaction import TapeOfRingSanitizer
from ibkr_depth_pipeline.tape.retention import KeptTapes, remove_old_tapes
from ibkr_depth_pipeline.tape.ring import ABOUT, CHECKPOINT, head_name, lock_folder
from ibkr_depth_pipeline.tape.scribe import EVENT, FRAME, TapeRecorder

_ONE_PART = 1 << 62
_NICE = 10
"""A tenth of the share of a process with normal priority: on a machine that is always busy, a tape still gets done."""

_Frame = tuple[bytes, int, int, bytes]


# ---- reading


def entries_of_ring(folder: Path, sizes: Mapping[str, int], recorder: TapeRecorder) -> Iterator[Entry]:
    """The entries of a held ring; sizes: file -> how many of its bytes belong to it."""
    frames = _frames_of_segments(folder, sizes)
    first = next(frames, None)
    if first is None or first[0] != CHECKPOINT:
        return
    yield from _Beginning(folder, recorder, first[1], orjson.loads(first[3])).entries()
    for kind, at, connection, data in frames:
        if kind == EVENT:
            yield recorder.event(at, connection, orjson.loads(data))
        elif kind != CHECKPOINT:
            yield recorder.read(at, connection, Way(kind.decode()), data)


def _frames_of_segments(folder: Path, sizes: Mapping[str, int]) -> Iterator[_Frame]:
    for name in sorted(name for name in sizes if name.startswith("segment-")):
        yield from _frames(folder / name, sizes[name])


def _frames(path: Path, size: int) -> Iterator[_Frame]:
    """The whole frames in the first `size` bytes of a file."""
    with path.open("rb") as file:
        left = size
        while left >= FRAME.size and len(head := file.read(FRAME.size)) == FRAME.size:
            kind, at, connection, length = FRAME.unpack(head)
            left -= FRAME.size + length
            data = file.read(length)
            if left < 0 or len(data) < length:
                return
            yield kind, at, connection, data


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What a tape needs before the oldest segment: of each connection that is older, its head, and its books as rows.

    `at` is the time of the checkpoint, unix ns.
    """

    folder: Path
    recorder: TapeRecorder
    at: int
    checkpoint: Mapping[str, Any]

    def entries(self) -> Iterator[Entry]:
        for number, connection in self.checkpoint["connections"].items():
            yield from self._connection(int(number), connection)

    def _connection(self, number: int, known: Mapping[str, Any]) -> Iterator[Entry]:
        yield LinkEvent(known["opened"], number, "opened")
        for kind, at, _, data in self._head(number, known["head"]):
            yield self.recorder.read(at, number, Way(kind.decode()), data)
        requests = known["requests"]
        lines = [line for line in self.checkpoint["lines"] if str(line["request"]) in requests]
        seeded = {line["request"] for line in lines if line["bids"] or line["asks"]}
        shown = [{**self._named(line), "levels": len(line["bids"]) + len(line["asks"])} for line in lines]
        unknown = sorted(int(request) for request in requests if int(request) not in seeded)
        detail = {"lines": shown, "without_book": unknown, "head_is_whole": self._head_is_whole(number, known)}
        yield LinkEvent(self.at, number, "resumed", detail)
        for text in requests.values():
            yield self._made_up(number, Way.CLIENT, framed(text.encode()))
        for line in lines:
            yield self._made_up(number, Way.GATEWAY, b"".join(map(framed, _rows_of(line))))
        self.recorder.read(self.at, number, Way.GATEWAY, base64.b64decode(known["unfinished"]))

    def _head_is_whole(self, number: int, known: Mapping[str, Any]) -> bool:
        path = self.folder / head_name(number)
        return bool(known["head_is_whole"]) and path.exists() and path.stat().st_size >= known["head"]

    def _head(self, number: int, size: int) -> Iterator[_Frame]:
        path = self.folder / head_name(number)
        return _frames(path, size) if path.exists() else iter(())

    def _named(self, line: Mapping[str, Any]) -> dict[str, Any]:
        texts = {name: self.recorder.cleaned(line[name]) for name in ("trouble",) if line[name]}
        return {"symbol": line["symbol"], "request": line["request"], "seq": line["seq"], "ts": line["ts"], **texts}

    def _made_up(self, number: int, way: Way, data: bytes) -> Read:
        """An entry of bytes that no read brought: its size is 0."""
        return replace(cast(Read, self.recorder.read(self.at, number, way, data)), size=0)


def _rows_of(line: Mapping[str, Any]) -> Iterator[bytes]:
    """The rows that make a book as it is: appending inserts, asks (0) and bids (1)."""
    for side, levels in (("0", line["asks"]), ("1", line["bids"])):
        for position, (price, size, venue) in enumerate(levels):
            row = ["13", "1", str(line["request"]), str(position), venue, "0", side, repr(price), repr(size), "0"]
            yield message_of(row)


# ---- writing


def dump(folder: Path) -> dict[str, Any]:
    """Writes the tape of a held ring; what is to be reported of it. Raises OSError."""
    about = orjson.loads((folder / ABOUT).read_bytes())
    stem, recorder = Path(about["stem"]), TapeRecorder(TapeOfRingSanitizer)
    part = part_path(stem, 1)
    unfinished = stem.with_name(f".{stem.name}.writing")
    notes = _cleaned(about["notes"], recorder)
    span = _Span()
    writer = TapeWriter(unfinished, part_bytes=_ONE_PART, parts=1, made_by=about["made_by"], notes=notes)
    try:
        writer.write(span.counted(entries_of_ring(folder, about["files"], recorder)))
        writer.close()
        if span.entries == 0:
            raise OSError("nothing was recorded yet: no connection to a gateway has been made")
        part_path(unfinished, 1).rename(part)
    finally:
        writer.close()
        part_path(unfinished, 1).unlink(missing_ok=True)
    remove_old_tapes(part, KeptTapes(**about["keep"]))
    return {"path": str(part), "bytes": part.stat().st_size, **span.as_json()}


def _cleaned(notes: Any, recorder: TapeRecorder) -> Any:
    if isinstance(notes, str):
        return recorder.cleaned(notes)
    if isinstance(notes, dict):
        return {name: _cleaned(each, recorder) for name, each in notes.items()}
    return [_cleaned(each, recorder) for each in notes] if isinstance(notes, list) else notes


@dataclass(slots=True)
class _Span:
    """Counts what goes by. began and ended are unix ns."""

    entries: int = 0
    messages: int = 0
    began: int = 0
    ended: int = 0

    def counted(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self.entries += 1
            if isinstance(entry, Read):
                self.messages += len(entry.messages)
            self.began = (
                entry.at if isinstance(entry, LinkEvent) and entry.name == "resumed" else self.began or entry.at
            )
            self.ended = max(self.ended, entry.at)
            yield entry

    def as_json(self) -> dict[str, Any]:
        secs = (self.ended - self.began) / 1e9
        began = datetime.fromtimestamp(self.began / 1e9, timezone.utc).isoformat(timespec="milliseconds")
        return {"messages": self.messages, "began": began, "secs": round(secs, 3)}


def _give_way() -> None:
    """Lets the recorder go first, also if that has real-time priority."""
    with suppress(AttributeError, OSError):  # not Linux, or not allowed
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(_NICE)


def main(folder: Path) -> int:
    """0 if a tape was made, or if another process makes it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # its recorder's end is not its own
        signal.signal(number, signal.SIG_IGN)
    _give_way()
    lock = lock_folder(folder)
    if lock is None:
        return 0
    try:
        made, code = dump(folder), 0
    except Exception as problem:
        made, code = {"error": str(problem) or repr(problem)}, 1
    shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(orjson.dumps(made).decode())
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
