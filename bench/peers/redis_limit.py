"""Redis's own limit for the recorder's XADDs, pipelined on one connection: `... redis_limit TAPE ROWS REDIS_PORT`.

The commands are packed before the clock starts; one thread sends, one counts the replies.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from pathlib import Path

from bench.peers.packed import xadds
from bench.tape import Tape

_TOGETHER = 512
_ENDS_A_REPLY = 2  # lines of a bulk string


def run(commands: list[bytes], port: int) -> None:
    blocks = [b"".join(commands[at : at + _TOGETHER]) for at in range(0, len(commands), _TOGETHER)]
    with socket.create_connection(("127.0.0.1", port)) as wire:
        counting = threading.Thread(target=_count, args=(wire, len(commands)))
        counting.start()
        started = time.monotonic_ns()
        for block in blocks:
            wire.sendall(block)
        counting.join()
    print(json.dumps({"started": started, "finished": time.monotonic_ns()}), flush=True)


def _count(wire: socket.socket, replies: int) -> None:
    lines = 0
    while lines < _ENDS_A_REPLY * replies:
        data = wire.recv(1 << 18)
        if not data:
            raise ConnectionError("Redis closed the connection")
        if data.startswith(b"-"):
            raise RuntimeError(data[:200].decode())
        lines += data.count(b"\n")


if __name__ == "__main__":
    run(xadds(Tape.load(Path(sys.argv[1])), int(sys.argv[2])), int(sys.argv[3]))
