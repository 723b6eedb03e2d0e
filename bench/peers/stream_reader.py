"""A blocked XREAD on streams: `... stream_reader REDIS_PORT COUNT FILE SYMBOL...`. Says `reading`, later `read`.

FILE gets three 64-bit numbers for each entry: which symbol, its seq, and when it was here (time.monotonic_ns).
"""

from __future__ import annotations

import json
import socket
import sys
import time
from array import array
from pathlib import Path
from typing import Any

from hiredis import Reader, pack_command

from bench.peers.packed import stream_of


def run(port: int, count: int, file: Path, symbols: list[str]) -> None:
    numbers = {stream_of(symbol).encode(): number for number, symbol in enumerate(symbols)}
    newest = dict.fromkeys(numbers, b"0-0")
    seen = array("q")
    reader = Reader()
    with socket.create_connection(("127.0.0.1", port)) as wire:
        print(json.dumps({"reading": True}), flush=True)
        while len(seen) < 3 * count:
            reply = _ask(wire, reader, "XREAD", "BLOCK", "0", "STREAMS", *newest, *newest.values())
            now = time.monotonic_ns()
            for stream, entries in reply:
                for entry_id, _ in entries:
                    seen.extend((numbers[stream], int(entry_id.partition(b"-")[2]), now))
                # A stream that is still empty but has a last id answers at once, with nothing, until asked from there.
                newest[stream] = entries[-1][0] if entries else _last_id(wire, reader, stream)
    file.write_bytes(seen.tobytes())
    print(json.dumps({"read": len(seen) // 3}), flush=True)


def _ask(wire: socket.socket, reader: Reader, *words: str | bytes) -> Any:
    command: Any = words
    wire.sendall(pack_command(command))
    while (reply := reader.gets()) is False:
        reader.feed(wire.recv(1 << 18))
    return reply


def _last_id(wire: socket.socket, reader: Reader, stream: bytes) -> bytes:
    told = _ask(wire, reader, "XINFO", "STREAM", stream)
    last: bytes = dict(zip(told[::2], told[1::2], strict=True))[b"last-generated-id"]
    return last if _ask(wire, reader, "XLEN", stream) == 0 else b"0-0"


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
