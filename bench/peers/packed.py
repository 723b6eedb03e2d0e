"""The XADDs that the recorder sends for a tape, as bytes: for Redis's own limit and the bare round trip."""

from __future__ import annotations

import json
from typing import Any

from hiredis import pack_command

from bench.tape import Tape, books

SYMBOLS = ("AAPL", "MSFT", "NVDA")


def stream_of(symbol: str) -> str:
    return f"raw:ibkr:depth:stream:{symbol}"


def xadds(tape: Tape, rows: int) -> list[bytes]:
    """One command for each row, the symbols in turn; ids are `1700000000000-<seq>`."""
    each = rows // len(SYMBOLS)
    streams = [
        [_xadd(symbol, seq, bids, asks) for seq, (bids, asks) in enumerate(_books(tape, number, each), start=1)]
        for number, symbol in enumerate(SYMBOLS)
    ]
    return [command for together in zip(*streams, strict=True) for command in together]


def _books(tape: Tape, number: int, rows: int) -> list[tuple[str, str]]:
    def text(side: object) -> str:
        return json.dumps(side, separators=(",", ":"))

    return [(text(bids), text(asks)) for bids, asks in books(tape.stream(number, rows), tape.depth, "ISLAND")]


def _xadd(symbol: str, seq: int, bids: str, asks: str) -> bytes:
    ts = 1_700_000_000_000
    fields = ("ts", ts, "bids", bids, "asks", asks, "seq", seq, "venue", "ISLAND")
    command: Any = ("XADD", stream_of(symbol), "MAXLEN", "~", 10_000_000, f"{ts}-{seq}", *fields)
    packed: bytes = pack_command(command)
    return packed
