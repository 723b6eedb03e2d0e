"""`ibkr_ingest_run run` that notes when a lone row passes each step: `... timed_recorder FILE`.

FILE gets, for each flush of one entry that left in the turn that decoded it, 64-bit numbers (time.monotonic_ns but the
first two): which of RECORDED, its seq, the read of the socket, the end of its rows, the begin and end of the write.
"""

from __future__ import annotations

import atexit
import re
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.recording import RECORDED
from ibkr_depth_pipeline.cli.ingest_run import app
from ibkr_depth_pipeline.gateway.tws_session import TwsSession
from ibkr_depth_pipeline.sink.wire import ServerWire
from ibkr_depth_pipeline.sink.writer import RedisWriter

_ENTRY = re.compile(rb"XADD\r\n.*?:([A-Z]+)\r\n.*\$3\r\nseq\r\n\$\d+\r\n(\d+)", re.DOTALL)

steps = array("q")
moments = {"read": 0, "rows": 0}


def note_read(session: TwsSession, original: Any = TwsSession.on_read) -> None:
    moments["read"] = time.monotonic_ns()
    original(session)


def note_rows(writer: RedisWriter, original: Any = RedisWriter.send_now) -> None:
    moments["rows"] = time.monotonic_ns()
    original(writer)
    moments["rows"] = 0


def note_write(wire: ServerWire, packed: Sequence[bytes], original: Any = ServerWire.write) -> None:
    began = time.monotonic_ns()
    original(wire, packed)
    ended = time.monotonic_ns()
    found = _ENTRY.search(packed[0])
    if moments["rows"] and len(packed) == 1 and found is not None:
        symbol, seq = found[1].decode(), int(found[2])
        steps.extend((RECORDED.index(symbol), seq, moments["read"], moments["rows"], began, ended))


if __name__ == "__main__":
    file = Path(sys.argv[1])
    atexit.register(lambda: file.write_bytes(steps.tobytes()))
    for owner, name, noted in (
        (TwsSession, "on_read", note_read),
        (RedisWriter, "send_now", note_rows),
        (ServerWire, "write", note_write),
    ):
        setattr(owner, name, noted)
    sys.argv[1:] = ["run"]
    app()
