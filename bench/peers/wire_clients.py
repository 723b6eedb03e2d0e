"""ib_insync, ib_async or ibapi decoding a tape with an empty callback, no Redis.

`python -m bench.peers.wire_clients LIBRARY PORT ROWS DEPTH SYMBOL...`. Prints when the last row was decoded, the CPU
seconds that the rows took, and the books that the library holds then (ibapi keeps none).
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
import time
from typing import Any

_POLL_SECS = 0.005


def report(finished: int, cpu: float, books: list[Any]) -> None:
    print(json.dumps({"finished": finished, "cpu_secs": cpu, "books": books}), flush=True)


async def insync_like(library: Any, port: int, rows: int, depth: int, symbols: list[str]) -> None:
    """ib_insync and ib_async have the same interface."""
    ib = library.IB()
    await ib.connectAsync("127.0.0.1", port, clientId=1, readonly=True)
    contracts = [library.Stock(symbol, "ISLAND", "USD") for symbol in symbols]
    await ib.qualifyContractsAsync(*contracts)
    before = ib.client.connectionStats().numMsgRecv
    tickers = [ib.reqMktDepth(contract, depth) for contract in contracts]
    for ticker in tickers:
        ticker.updateEvent += lambda _: None
    cpu = time.process_time()
    while ib.client.connectionStats().numMsgRecv - before < rows:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(_POLL_SECS)
    finished = time.monotonic_ns()
    books = [[[[*level] for level in side[:10]] for side in (each.domBids, each.domAsks)] for each in tickers]
    report(finished, time.process_time() - cpu, books)
    ib.disconnect()


def ibapi(port: int, rows: int, depth: int, symbols: list[str]) -> None:
    """IBKR's own client, with its reader thread."""
    client: Any = importlib.import_module("ibapi.client")
    wrapper: Any = importlib.import_module("ibapi.wrapper")
    contract: Any = importlib.import_module("ibapi.contract")

    class Peer(wrapper.EWrapper, client.EClient):  # type: ignore[misc]
        def __init__(self) -> None:
            client.EClient.__init__(self, self)
            self.ready, self.done, self.seen, self.finished = threading.Event(), threading.Event(), 0, 0

        def nextValidId(self, orderId: int) -> None:
            self.ready.set()

        def error(self, *_: object) -> None:
            """The notices at the start."""

        def updateMktDepth(self, *_: object) -> None:
            self.seen += 1
            if self.seen == rows:
                self.finished = time.monotonic_ns()
                self.done.set()

        updateMktDepthL2 = updateMktDepth

    peer = Peer()
    peer.connect("127.0.0.1", port, 1)
    threading.Thread(target=peer.run, daemon=True).start()
    peer.ready.wait(20)
    for request, symbol in enumerate(symbols, start=1):
        wanted = contract.Contract()
        wanted.symbol, wanted.secType, wanted.exchange, wanted.currency = symbol, "STK", "ISLAND", "USD"
        peer.reqMktDepth(request, wanted, depth, False, [])
    cpu = time.process_time()
    peer.done.wait(120)
    report(peer.finished, time.process_time() - cpu, [])
    peer.disconnect()


def main() -> None:
    name, port, rows, depth, *symbols = sys.argv[1:]
    if name == "ibapi":
        ibapi(int(port), int(rows), int(depth), symbols)
    else:
        asyncio.run(insync_like(importlib.import_module(name), int(port), int(rows), int(depth), symbols))


if __name__ == "__main__":
    main()
