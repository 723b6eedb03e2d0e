"""The process that writes a tape: `python -m ibkr_depth_pipeline.tape.scribe OPTIONS`, fed by the proxy on stdin.

It is a process of its own, so that neither a slow disk nor the work of reading messages delays a byte that the proxy
forwards. The bytes of a connection come as they were read; what leaves this process is sanitized.
"""

from __future__ import annotations

import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import orjson

from ibkr_depth_pipeline.tape.files import Entry, LinkEvent, Read, TapeWriter
from ibkr_depth_pipeline.tape.messages import MessageSplitter, NotTheProtocol, Way
from ibkr_depth_pipeline.tape.sanitizer import Sanitizer

FRAME = struct.Struct("<cqII")
"""Kind (a Way's value, or EVENT), unix nanoseconds, number of the connection, bytes that follow."""

EVENT, FLUSH = b"!", b"."


def frame(kind: bytes, at: int, connection: int, data: bytes) -> bytes:
    """What the proxy writes for a read; with the kind EVENT and a JSON object, for an event; FLUSH: what came so far is
    to be readable."""
    return FRAME.pack(kind, at, connection, len(data)) + data


class TapeRecorder:
    """Turns the bytes of connections into entries. Pure. sanitizer: what cleans them, with one key for all."""

    def __init__(self, sanitizer: type[Sanitizer] = Sanitizer) -> None:
        self._sanitizer = sanitizer
        self._sanitizers: dict[int, Sanitizer] = {}
        self._splitters: dict[tuple[int, Way], MessageSplitter | None] = {}
        self._key = Sanitizer().key

    def read(self, at: int, connection: int, way: Way, data: bytes) -> Entry:
        """What one read brought. Of a side that does not speak the protocol only the number of bytes is kept."""
        sanitizer = self._sanitizers.setdefault(connection, self._sanitizer(self._key))
        splitter = self._splitters.setdefault((connection, way), MessageSplitter(way))
        messages = []
        try:
            for message in splitter.split(data) if splitter is not None else ():
                messages.append(sanitizer.sanitized(way, message))
        except NotTheProtocol:
            self._splitters[connection, way] = None
        return Read(at, connection, way, len(data), messages)

    def cleaned(self, text: str) -> str:
        """A text of the recorder's own as the tape may hold it."""
        return self._sanitizer(self._key).cleaned(text)

    def event(self, at: int, connection: int, detail: dict[str, Any]) -> Entry:
        """An event; its name stands in `detail`."""
        name = detail.pop("name")
        if name == "closed":
            self._sanitizers.pop(connection, None)
            for way in Way:
                self._splitters.pop((connection, way), None)
        return LinkEvent(at, connection, name, detail)


def entries(recorder: TapeRecorder, source: IO[bytes]) -> Iterator[Entry | None]:
    """The entries of the frames on `source`, until it ends; None if what came so far is to be flushed."""
    while len(head := source.read(FRAME.size)) == FRAME.size:
        kind, at, connection, size = FRAME.unpack(head)
        data = source.read(size)
        if len(data) < size:
            return
        if kind == FLUSH:
            yield None
        elif kind == EVENT:
            yield recorder.event(at, connection, orjson.loads(data))
        else:
            yield recorder.read(at, connection, Way(kind.decode()), data)


def main(arguments: list[str]) -> None:
    """Arguments: stem, bytes of a part, number of parts, who makes the tape."""
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with its stdin
        signal.signal(number, signal.SIG_IGN)
    stem, part_bytes, parts, made_by = arguments
    writer = TapeWriter(Path(stem), part_bytes=int(part_bytes), parts=int(parts), made_by=made_by)
    try:
        for entry in entries(TapeRecorder(), sys.stdin.buffer):
            if entry is None:
                writer.flush()
            else:
                writer.write([entry])
    finally:
        writer.close()


if __name__ == "__main__":
    main(sys.argv[1:])
