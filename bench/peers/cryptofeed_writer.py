"""cryptofeed's Redis stream writer, fed the books of a tape: `... cryptofeed_writer TAPE ROWS REDIS_PORT`.

A writer only: the books are made before the clock starts. They arrive a hundred at a time, as from a busy socket.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from cryptofeed.backends.redis import BookStream  # type: ignore[import-not-found]
from cryptofeed.types import OrderBook  # type: ignore[import-not-found]

from bench.tape import SHOWN, Tape, books

SYMBOLS = ("AAPL", "MSFT", "NVDA")
TOGETHER = 100


def made(tape: Tape, rows: int) -> list[Any]:
    """cryptofeed's own book objects, the symbols in turn."""
    each = rows // len(SYMBOLS)
    streams = [
        [_book(symbol, bids, asks) for bids, asks in books(tape.stream(number, each), tape.depth, "ISLAND")]
        for number, symbol in enumerate(SYMBOLS)
    ]
    return [book for together in zip(*streams, strict=True) for book in together]


def _book(symbol: str, bids: list[Any], asks: list[Any]) -> Any:
    book = OrderBook("IBKR", symbol, bids={p: s for p, s, _ in bids if p}, asks={p: s for p, s, _ in asks if p})
    book.timestamp, book.delta = time.time(), None
    return book


async def run(tape: Tape, rows: int, port: int) -> None:
    feed = made(tape, rows)
    store = redis.Redis(port=port)
    writer = BookStream(port=port, snapshots_only=True)
    started, cpu = time.monotonic_ns(), time.process_time()
    writer.start(asyncio.get_running_loop())
    for number, book in enumerate(feed):
        await writer(book, book.timestamp)
        if number % TOGETHER == 0:
            await asyncio.sleep(0)
    stored = 0
    while stored < len(feed):
        await asyncio.sleep(0.005)
        stored = sum([await store.xlen(f"book-IBKR-{symbol}") for symbol in SYMBOLS])
    finished = time.monotonic_ns()
    cost = time.process_time() - cpu
    print(json.dumps({"started": started, "finished": finished, "cpu_secs": cost, "levels": SHOWN}), flush=True)
    await writer.stop()
    await asyncio.wait_for(writer.worker, 5)
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(run(Tape.load(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])))
