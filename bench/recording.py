"""Records a tape: the bytes that the simulated gateway sends, once for all measurements of a run."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from bench.tape import Row, Tape, framed, frames_of
from ibkr_depth_pipeline.simulation import GatewayOptions, GatewayThread

RECORDED = ("AAPL", "MSFT", "NVDA")
"""One stream of rows each, all of the venue ISLAND."""

_ROWS_PER_SECOND = 20_000.0


def record(rows: int, depth: int) -> Tape:
    """`rows` rows of each of RECORDED, `depth` rows a side, as the simulated gateway sends them."""
    options = GatewayOptions(
        rows_per_second=_ROWS_PER_SECOND, first_row_delay=0.0, keep_rows=False, largest_backlog=1 << 28
    )
    with GatewayThread(options) as gateway, socket.create_connection((gateway.host, gateway.port)) as wire:
        wire.sendall(b"API\0" + framed(b"v157..176"))
        bodies = frames_of(wire)
        next(bodies)
        wire.sendall(framed(b"71\x002\x001\0\0"))
        for request, symbol in enumerate(RECORDED, start=1):
            wire.sendall(framed(_depth_request(request, symbol, depth)))
        return Tape(depth, _sorted_by_request(bodies, rows))


def _depth_request(request: int, symbol: str, depth: int) -> bytes:
    contract = ("0", symbol, "STK", "", "0.0", "", "", "ISLAND", "", "USD", "", "")
    return "".join(f"{field}\0" for field in ("10", "5", request, *contract, depth, "0", "")).encode()


def _sorted_by_request(bodies: Iterator[bytes], rows: int) -> tuple[list[Row], ...]:
    streams: dict[int, list[Row]] = {number: [] for number in range(1, len(RECORDED) + 1)}
    for body in bodies:
        if body.startswith((b"12\0", b"13\0")):
            kind, version, request, tail = body.split(b"\0", 3)
            stream = streams[int(request)]
            if len(stream) < rows:
                stream.append((kind + b"\0" + version + b"\0", tail))
            if all(len(each) == rows for each in streams.values()):
                break
    return tuple(streams.values())
