"""One whole session of IBKR's own ibapi, of any age: `ibapi_session.py HOST PORT`. Prints what it saw as JSON."""

import json
import sys
import threading

from ibapi.client import EClient
from ibapi.contract import Contract, ContractDetails
from ibapi.wrapper import EWrapper

PATIENCE = 60.0
ROWS = 200


class Session(EWrapper, EClient):  # type: ignore
    """A connection with its reader thread, and everything it was told."""

    def __init__(self, host: str, port: int, client_id: int) -> None:
        EClient.__init__(self, self)
        self.news = threading.Condition()
        self.codes: list[int] = []
        self.accounts: list[str] = []
        self.details: list[ContractDetails] = []
        self.ended: list[int] = []
        self.exchanges: list[str] = []
        self.rows: dict[int, list[list[object]]] = {}
        self.next_id = 0
        self.connect(host, port, client_id)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def until(self, condition) -> None:  # type: ignore
        with self.news:
            if not self.news.wait_for(condition, PATIENCE):
                raise TimeoutError(f"codes so far: {self.codes}")

    def error(self, reqId, *words):  # type: ignore
        errorCode = words[-2] if len(words) == 2 else words[1]  # since 10.33 a time comes before it
        with self.news:
            self.codes.append(errorCode)
            self.news.notify_all()

    def nextValidId(self, orderId):  # type: ignore
        with self.news:
            self.next_id = orderId
            self.news.notify_all()

    def managedAccounts(self, accountsList):  # type: ignore
        self.accounts = accountsList.split(",")

    def contractDetails(self, reqId, contractDetails):  # type: ignore
        self.details.append(contractDetails)

    def contractDetailsEnd(self, reqId):  # type: ignore
        with self.news:
            self.ended.append(reqId)
            self.news.notify_all()

    def mktDepthExchanges(self, depthMktDataDescriptions):  # type: ignore
        with self.news:
            self.exchanges = [description.exchange for description in depthMktDataDescriptions]
            self.news.notify_all()

    def updateMktDepth(self, reqId, position, operation, side, price, size):  # type: ignore
        self.updateMktDepthL2(reqId, position, "", operation, side, price, size, False)

    def updateMktDepthL2(self, reqId, position, marketMaker, operation, side, price, size, isSmartDepth):  # type: ignore
        with self.news:
            self.rows.setdefault(reqId, []).append([position, operation, side, price, size, marketMaker])
            self.news.notify_all()


def contract(symbol: str, exchange: str, sec_type: str = "STK") -> Contract:
    made = Contract()
    made.symbol, made.secType, made.exchange, made.currency = symbol, sec_type, exchange, "USD"
    return made


def session(host: str, port: int) -> dict[str, object]:
    first = Session(host, port, 12)
    first.until(lambda: first.next_id and first.accounts and 2158 in first.codes)
    first.reqContractDetails(1, contract("AAPL", "SMART"))
    first.until(lambda: 1 in first.ended)
    first.reqContractDetails(2, contract("NOSUCH", "SMART"))
    first.until(lambda: 200 in first.codes)
    first.reqMktDepthExchanges()
    first.until(lambda: first.exchanges)

    contracts = {
        "AAPL": contract("AAPL", "ISLAND"),
        "IBM": contract("IBM", "NYSE"),
        "EUR.USD": contract("EUR", "IDEALPRO", "CASH"),
    }
    for request_id, wanted in enumerate(contracts.values(), start=101):
        first.reqMktDepth(request_id, wanted, 10, False, [])
    first.until(lambda: all(len(first.rows.get(number, [])) >= ROWS for number in (101, 102, 103)))
    first.reqMktDepth(104, contract("SPY", "ARCA"), 10, False, [])
    first.until(lambda: 309 in first.codes)

    second = Session(host, port, 12)
    second.until(lambda: second.codes)
    first.cancelMktDepth(101, False)
    first.cancelMktDepth(101, False)
    first.until(lambda: 310 in first.codes)
    rows = {name: first.rows[number][:ROWS] for number, name in enumerate(contracts, start=101)}
    version = first.serverVersion()
    first.disconnect()
    second.disconnect()
    (details,) = first.details
    return {
        "server_version": version,
        "accounts": first.accounts,
        "details": [
            details.contract.conId,
            details.contract.primaryExchange,
            details.longName,
            details.minTick,
        ],
        "depth_exchanges": first.exchanges,
        "codes": first.codes,
        "second_client_codes": second.codes[:1],
        "rows": rows,
    }


if __name__ == "__main__":
    print(json.dumps(session(sys.argv[1], int(sys.argv[2])), default=float))  # newer ones give sizes as Decimal
