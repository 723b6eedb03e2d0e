"""Plain XADDs at a rate: `... bare_writer TAPE ROWS RATE REDIS_PORT FILE`.

FILE gets when each was sent, in 64-bit numbers (time.monotonic_ns).
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from array import array
from pathlib import Path

from bench.peers.packed import xadds
from bench.tape import Tape


def run(commands: list[bytes], rate: float, port: int, file: Path) -> None:
    sent = array("q")
    interval = int(1e9 / rate)
    with socket.create_connection(("127.0.0.1", port)) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.monotonic_ns()
        for number, command in enumerate(commands):
            wait = start + number * interval - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            sent.append(time.monotonic_ns())
            wire.sendall(command)
            with contextlib.suppress(BlockingIOError):
                wire.recv(1 << 16, socket.MSG_DONTWAIT)
    file.write_bytes(sent.tobytes())
    print(json.dumps({"sent": len(commands)}), flush=True)


if __name__ == "__main__":
    run(xadds(Tape.load(Path(sys.argv[1])), int(sys.argv[2])), float(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
