"""Depth rows at a rate, each by itself: `... paced_gateway ROWS RATE FILE`; on stdout its port.

FILE gets when each was sent, in 64-bit numbers (time.monotonic_ns). The row's number stands in its size.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from array import array
from pathlib import Path

GREETING = b"176\x0020261126 09:30:00 EST\0"


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def run(rows: int, rate: float, file: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    client, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.recv(1 << 16)
    client.sendall(framed(GREETING))
    sent, start = array("q"), time.monotonic_ns()
    for number in range(rows):
        wait = start + int(number * 1e9 / rate) - time.monotonic_ns()
        if wait > 0:
            time.sleep(wait / 1e9)
        body = b"13\x001\x007\x00%d\x00NSDQ\x001\x001\x00150.%d\x00%d\x000\0" % (number % 10, number % 100, number)
        sent.append(time.monotonic_ns())
        client.sendall(framed(body))
    file.write_bytes(sent.tobytes())
    client.recv(1 << 16)  # until the client has all of it


if __name__ == "__main__":
    run(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
