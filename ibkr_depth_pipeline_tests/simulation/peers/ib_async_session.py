"""One whole session of ib_async with a gateway: `ib_async_session.py HOST PORT`. Prints what it saw as JSON."""

import asyncio
import contextlib
import json
import sys

from ib_async import IB, Contract, Forex, Stock

PATIENCE = 60.0
ROWS = 200


class Watcher:
    """The rows and errors of one connection, row by row, before ib_async makes books of them."""

    def __init__(self, ib: IB) -> None:
        self.codes: list[int] = []
        self.rows: dict[int, list[list[object]]] = {}
        self.news = asyncio.Event()
        ib.errorEvent += self._on_error
        forward = ib.wrapper.updateMktDepthL2

        def on_row(request_id, position, market_maker, operation, side, price, size, smart=False):  # type: ignore
            row = [position, operation, side, price, size, market_maker]
            self.rows.setdefault(request_id, []).append(row)
            self.news.set()
            forward(request_id, position, market_maker, operation, side, price, size, smart)

        ib.wrapper.updateMktDepthL2 = on_row

    def _on_error(self, request_id: int, code: int, text: str, contract: Contract) -> None:
        self.codes.append(code)
        self.news.set()

    async def until(self, condition) -> None:  # type: ignore
        while not condition():
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), PATIENCE)


async def session(host: str, port: int) -> dict[str, object]:
    ib = IB()
    watcher = Watcher(ib)
    await ib.connectAsync(host, port, clientId=11, readonly=True)
    (details,) = await ib.reqContractDetailsAsync(Stock("AAPL", "SMART", "USD"))
    await ib.reqContractDetailsAsync(Stock("NOSUCH", "SMART", "USD"))
    exchanges = await ib.reqMktDepthExchangesAsync()

    contracts = {"AAPL": Stock("AAPL", "ISLAND", "USD"), "IBM": Stock("IBM", "NYSE", "USD"), "EUR.USD": Forex("EURUSD")}
    await ib.qualifyContractsAsync(*contracts.values())
    for contract in contracts.values():
        ib.reqMktDepth(contract, 10)
    await watcher.until(lambda: [len(rows) >= ROWS for rows in watcher.rows.values()] == [True] * 3)
    ib.client.reqMktDepth(ib.client.getReqId(), Stock("SPY", "ARCA", "USD"), 10, False, [])
    await watcher.until(lambda: 309 in watcher.codes)

    second = IB()
    other = Watcher(second)
    with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
        await second.connectAsync(host, port, clientId=11, timeout=1)

    numbers = sorted(watcher.rows)
    ib.cancelMktDepth(contracts["AAPL"])
    ib.client.cancelMktDepth(numbers[0], False)
    await watcher.until(lambda: 310 in watcher.codes)
    rows = {name: watcher.rows[number][:ROWS] for number, name in zip(numbers, contracts, strict=True)}
    accounts, version = ib.managedAccounts(), ib.client.serverVersion()
    ib.disconnect()
    return {
        "server_version": version,
        "accounts": accounts,
        "details": [
            details.contract.conId,
            details.contract.primaryExchange,
            details.longName,
            details.minTick,
        ],
        "depth_exchanges": [exchange.exchange for exchange in exchanges],
        "codes": watcher.codes,
        "second_client_codes": other.codes,
        "rows": rows,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(session(sys.argv[1], int(sys.argv[2])))))
