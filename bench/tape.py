"""Rows of depth as they were on the wire, and an independent model of the books that they make.

The model shares no code with the recorder: lists, and the wire's own numbers.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN = 10
"""Levels of a side in a stored snapshot."""

_LENGTH = struct.Struct(">I")
_BID = b"1"

Level = list[object]
Book = tuple[list[Level], list[Level]]
Row = tuple[bytes, bytes]
"""A depth message before and after its request id, without the frame's length."""


@dataclass(frozen=True)
class Tape:
    """depth is the rows a side that were subscribed to. Each stream begins with an empty book.

    More symbols than there are streams share them.
    """

    depth: int
    streams: tuple[list[Row], ...]

    def stream(self, number: int, rows: int) -> list[Row]:
        """The first `rows` rows for the symbol that was subscribed to as `number`, from 0."""
        stream = self.streams[number % len(self.streams)]
        if rows > len(stream):
            raise ValueError(f"{rows} rows wanted of a tape of {len(stream)}")
        return stream[:rows]

    def save(self, path: Path) -> Path:
        path.write_bytes(pickle.dumps(self))
        return path

    @staticmethod
    def load(path: Path) -> Tape:
        tape = pickle.loads(path.read_bytes())
        assert isinstance(tape, Tape)
        return tape


def framed(body: bytes) -> bytes:
    """As it is on the wire."""
    return _LENGTH.pack(len(body)) + body


def frames_of(stream: socket.socket) -> Iterator[bytes]:
    """The bodies of the frames that come, until the connection ends."""
    pending = b""
    while data := stream.recv(1 << 18):
        pending += data
        start = 0
        while len(pending) - start >= 4:
            (length,) = _LENGTH.unpack_from(pending, start)
            if len(pending) < start + 4 + length:
                break
            yield pending[start + 4 : start + 4 + length]
            start += 4 + length
        pending = pending[start:]


def books(rows: Sequence[Row], depth: int, venue: str) -> Iterator[Book]:
    """The model: (bids, asks) as they are to be stored after each row. The lists are new each time."""
    bids: list[Level] = []
    asks: list[Level] = []
    for head, tail in rows:
        fields = tail.split(b"\0")
        maker = fields.pop(1).decode() if head.startswith(b"13") else ""
        position, operation, price, size = int(fields[0]), fields[1], float(fields[3]), float(fields[4])
        side = bids if fields[2] == _BID else asks
        if operation == b"0":
            side.insert(position, [price, size, maker or venue])
        elif operation == b"1":
            side[position : position + 1] = [[price, size, maker or venue]]
        else:
            del side[position]
        del side[depth:]
        yield _shown(bids), _shown(asks)


def _shown(side: list[Level]) -> list[Level]:
    return (side + [[0.0, 0.0, ""]] * SHOWN)[:SHOWN]
