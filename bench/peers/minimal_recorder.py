"""The least that a recorder in Python can do for a row: two asyncio protocols and nothing else.

A message is cut out of the socket's bytes, changes a book, and leaves as the same XADD in the callback that read it.
No lease, no hash or heartbeat, no answer that is read, no second connection, no check of anything: a floor for the
delay of a row, not a recorder. The port and Redis are those of the recorder's settings.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from bench.recording import RECORDED
from bench.tape import framed
from ibkr_depth_pipeline.ingest.hot_path import HotPath, LiveBook, Numbering
from ibkr_depth_pipeline.schema.encoding import EntryPacker
from ibkr_depth_pipeline.schema.keys import stream_key

MAXLEN = 10_000_000
_LENGTH = struct.Struct(">I")


class Answers(asyncio.BufferedProtocol):
    """Redis' side: what it answers is thrown away."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(1 << 16))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer


class Rows(Answers):
    """The gateway's side."""

    def __init__(self, write: Callable[[bytes], None], rows: int, levels: int) -> None:
        super().__init__()
        self._pending = b""
        self._sizes = rows, levels
        self._path = HotPath()
        for request, symbol in enumerate(RECORDED, start=1):
            self._path.open(self._book(request, symbol, write))

    def _book(self, request: int, symbol: str, write: Callable[[bytes], None]) -> LiveBook:
        packer = EntryPacker(stream_key(symbol), MAXLEN)

        def store(ts: int, seq: int, venue: bytes, bids: bytes, asks: bytes) -> None:
            write(packer.pack(ts, seq, venue, bids, asks))

        return LiveBook(request, symbol, "ISLAND", Numbering(0, 0), store, *self._sizes)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"API\0" + framed(b"v157..176") + framed(b"71\x002\x001\0\0"))
        for request, symbol in enumerate(RECORDED, start=1):
            contract = ("0", symbol, "STK", "", "0.0", "", "", "ISLAND", "", "USD", "", "")
            fields = ("10", "5", request, *contract, self._sizes[0], "0", "")
            transport.write(framed("".join(f"{field}\0" for field in fields).encode()))

    def buffer_updated(self, nbytes: int) -> None:
        data, at, now_ms = self._pending + bytes(self._buffer[:nbytes]), 0, time.time_ns() // 1_000_000
        while len(data) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            body = at + _LENGTH.size
            if len(data) < body + length:
                break
            if data.startswith((b"12\0", b"13\0"), body):
                self._path.take(data[body : body + length], now_ms)
            at = body + length
        self._pending = data[at:]


async def run() -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    rows = int(os.environ["IBKR_DEPTH_ROWS"]) + int(os.environ["IBKR_DEPTH_EXTRA_ROWS"])
    redis, _ = await loop.create_connection(Answers, "127.0.0.1", urlsplit(os.environ["REDIS_URL"]).port)
    await loop.create_connection(
        lambda: Rows(redis.write, rows, int(os.environ["IBKR_DEPTH_ROWS"])), "127.0.0.1", int(os.environ["IBKR_PORT"])
    )
    await stopped.wait()


if __name__ == "__main__":
    asyncio.run(run())
