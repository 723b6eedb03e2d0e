"""The plain design: ib_insync's updateEvent, json, three redis-py commands one after the other for each snapshot.

`... plain_design PORT ROWS DEPTH REDIS_URL SYMBOL...`. ib_insync makes one updateEvent of all rows in one read of the
socket, so as it stands this design stores a few snapshots of thousands of rows. To have it mirror every row as this
project does, the bytes are handed to ib_insync one message at a time.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from typing import Any

import redis
from ib_insync import IB, Stock

HEARTBEAT_SECS = 30


class OneMessageAtATime:
    """In place of ib_insync's reading: as if each message had come in a read of its own."""

    def __init__(self, client: Any) -> None:
        self._take = client._onSocketHasData
        self._pending = b""
        client.conn.hasData -= client._onSocketHasData
        client.conn.hasData += self.feed

    def feed(self, data: bytes) -> None:
        data = self._pending + data
        start = 0
        while len(data) - start >= 4:
            stop = start + 4 + struct.unpack_from(">I", data, start)[0]
            if stop > len(data):
                break
            self._take(data[start:stop])
            start = stop
        self._pending = data[start:]


def padded(levels: list[Any]) -> list[list[Any]]:
    return [[level.price, level.size, level.marketMaker] for level in levels[:10]] + [[0.0, 0.0, ""]] * (
        10 - len(levels[:10])
    )


def mirror(store: Any, ticker: Any) -> None:
    """One snapshot."""
    symbol, ts = ticker.contract.symbol, int(time.time() * 1000)
    bids, asks = json.dumps(padded(ticker.domBids)), json.dumps(padded(ticker.domAsks))
    entry = {"ts": ts, "bids": bids, "asks": asks, "venue": ticker.contract.exchange}
    store.xadd(f"plain:stream:{symbol}", entry, maxlen=10_000_000, approximate=True)
    store.hset(f"plain:last:{symbol}", mapping={"ts": ts, "bids_json": bids, "asks_json": asks})
    store.set(f"plain:hb:{symbol}", ts, ex=HEARTBEAT_SECS)


async def run(port: int, rows: int, depth: int, url: str, symbols: list[str]) -> None:
    store = redis.Redis.from_url(url)
    ib = IB()
    reading = OneMessageAtATime(ib.client)  # kept: the event that calls it does not
    await ib.connectAsync("127.0.0.1", port, clientId=1, readonly=True)
    before = ib.client.connectionStats().numMsgRecv
    for symbol in symbols:
        ib.reqMktDepth(Stock(symbol, "ISLAND", "USD"), depth).updateEvent += lambda ticker: mirror(store, ticker)
    cpu = time.process_time()
    while ib.client.connectionStats().numMsgRecv - before < rows:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.005)
    finished = time.monotonic_ns()
    cost = time.process_time() - cpu
    stored = sum(store.xlen(f"plain:stream:{symbol}") for symbol in symbols)
    print(json.dumps({"finished": finished, "cpu_secs": cost, "stored": stored}), flush=True)
    ib.disconnect()
    del reading


if __name__ == "__main__":
    port, rows, depth, url, *symbols = sys.argv[1:]
    asyncio.run(run(int(port), int(rows), int(depth), url, symbols))
