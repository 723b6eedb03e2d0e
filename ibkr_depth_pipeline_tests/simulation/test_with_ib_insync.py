"""The client that this project uses, unchanged, against the simulated gateway."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from ib_insync import IB, Forex, MarketOrder, Stock
from ib_insync.client import Client
from ib_insync.wrapper import Wrapper

from ibkr_depth_pipeline.simulation import EarlyCancel, GatewayOptions, GatewayThread, SimulatedGateway
from ibkr_depth_pipeline.simulation.rows import Book, WireRow, apply_rows
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS


class Events:
    """What an IB object reports of errors."""

    def __init__(self, ib: IB) -> None:
        self.errors: list[tuple[int, int]] = []
        ib.errorEvent += self._on_error

    def _on_error(self, request_id: int, code: int, text: str, contract: object) -> None:
        self.errors.append((request_id, code))

    def has(self, code: int) -> bool:
        return any(code == seen for _, seen in self.errors)


@asynccontextmanager
async def connected(**options: object) -> AsyncIterator[tuple[SimulatedGateway, IB, Events]]:
    async with SimulatedGateway(GatewayOptions(**options)) as gateway:  # type: ignore[arg-type]
        ib = IB()
        events = Events(ib)
        await ib.connectAsync(gateway.host, gateway.port, clientId=1, readonly=True)
        try:
            yield gateway, ib, events
        finally:
            ib.disconnect()
            await gateway.wait_for(lambda: not gateway.clients)


async def test_default_connection_synchronises_whole() -> None:
    async with SimulatedGateway(GatewayOptions(read_only_api=False)) as gateway:
        ib = IB()
        await ib.connectAsync(gateway.host, gateway.port, clientId=1)
        assert ib.client.serverVersion() == 176
        assert ib.managedAccounts() == ["DU1234567"]
        assert {value.tag for value in ib.accountValues()} >= {"NetLiquidation", "BuyingPower"}
        assert ib.positions() == ib.openTrades() == ib.fills() == []
        assert not gateway.journal.errors(321)
        ib.disconnect()


async def test_default_connection_to_a_read_only_gateway_still_connects() -> None:
    async with SimulatedGateway() as gateway:
        ib = IB()
        await ib.connectAsync(gateway.host, gateway.port, clientId=1, timeout=0.5)
        assert ib.isConnected()
        assert len(gateway.journal.errors(321)) == 2
        ib.disconnect()


async def test_read_only_connection_asks_for_nothing_that_is_refused() -> None:
    async with connected() as (_, ib, events):
        assert ib.isConnected()
        assert [code for _, code in events.errors] == [2104, 2106, 2158]


async def test_bare_client_connects() -> None:
    async with SimulatedGateway() as gateway:
        client = Client(Wrapper(IB()))
        await client.connectAsync(gateway.host, gateway.port, 5)
        assert client.isReady()
        client.disconnect()


@pytest.fixture
def own_loop() -> Iterator[None]:
    """An event loop of the test's own for a blocking client, as a script has one."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.run_until_complete(asyncio.sleep(0))  # lets a closed transport let go of its socket
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("own_loop")
def test_blocking_client_connects_to_a_gateway_in_a_thread() -> None:
    with GatewayThread() as gateway:
        ib = IB()
        ib.connect(gateway.host, gateway.port, clientId=1, readonly=True)
        ib.reqMktDepth(Stock("IBM", "NYSE", "USD"), 10)
        assert ib.waitOnUpdate(timeout=PATIENCE_SECS)
        ib.disconnect()
        gateway.wait_for(lambda simulated: not simulated.clients)


async def test_contract_details_are_whole() -> None:
    async with connected() as (_, ib, events):
        (details,) = await ib.reqContractDetailsAsync(Stock("AAPL", "SMART", "USD"))
        assert details.contract is not None
        assert (details.contract.conId, details.contract.primaryExchange) == (265598, "NASDAQ")
        assert details.longName == "APPLE INC"
        assert details.minTick == 0.01
        assert {"SMART", "ISLAND", "ARCA", "NYSE"} <= set(details.validExchanges.split(","))
        assert details.timeZoneId == "US/Eastern"
        assert details.stockType == "COMMON"
        (forex,) = await ib.reqContractDetailsAsync(Forex("EURUSD"))
        assert forex.contract is not None
        assert forex.contract.conId == 12087792
        assert await ib.reqContractDetailsAsync(Stock("NOSUCH", "SMART", "USD")) == []
        assert events.has(200)


async def test_contract_is_qualified() -> None:
    async with connected() as (_, ib, _events):
        contract = Stock("BRK B", "SMART", "USD")
        assert await ib.qualifyContractsAsync(contract) == [contract]
        assert (contract.conId, contract.primaryExchange) == (72063691, "NYSE")


async def test_depth_exchanges_and_the_time_are_answered() -> None:
    async with connected(nasdaq_name="NASDAQ") as (_, ib, _events):
        venues = {(venue.exchange, venue.secType): venue for venue in await ib.reqMktDepthExchangesAsync()}
        assert venues["NASDAQ", "STK"].serviceDataType == "Deep2"
        assert venues["NYSE", "STK"].serviceDataType == "Deep"
        assert ("ISLAND", "STK") not in venues
        assert (await ib.reqCurrentTimeAsync()).year >= 2024


async def test_depth_rows_add_up_to_the_books_of_the_gateway() -> None:
    async with connected(rows_per_second=3000.0) as (gateway, ib, _events):
        tickers = [
            ib.reqMktDepth(contract, 10)
            for contract in (Stock("AAPL", "NASDAQ", "USD"), Stock("SPY", "ARCA", "USD"), Forex("EURUSD"))
        ]
        await gateway.wait_for(lambda: all(gateway.journal.row_counts[n] > 500 for n in ("AAPL", "SPY", "EUR.USD")))
        gateway.set_rate(0.0)
        await ib.reqCurrentTimeAsync()
        for ticker, name in zip(tickers, ("AAPL", "SPY", "EUR.USD"), strict=True):
            book = apply_rows(Book(), gateway.journal.rows(name))
            assert [(level.price, level.size) for level in ticker.domBids] == [level[:2] for level in book.bids]
            assert [(level.price, level.size) for level in ticker.domAsks] == [level[:2] for level in book.asks]


async def test_every_row_arrives_as_it_was_sent() -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=3000.0)) as gateway:
        received: list[WireRow] = []

        class Recorder(Wrapper):
            def updateMktDepth(
                self, reqId: int, position: int, operation: int, side: int, price: float, size: float
            ) -> None:
                received.append(WireRow(position, operation, side, price, size))

        client = Client(Recorder(IB()))
        await client.connectAsync(gateway.host, gateway.port, 5)
        client.reqMktDepth(1, Stock("IBM", "NYSE", "USD"), 10, False, [])
        await gateway.wait_for(lambda: len(received) > 1000)
        assert received == gateway.journal.rows("IBM")[: len(received)]
        client.disconnect()


async def test_fourth_subscription_is_refused_with_309() -> None:
    async with connected() as (gateway, ib, events):
        for symbol in ("AAPL", "MSFT", "GOOGL", "AMZN"):
            ib.reqMktDepth(Stock(symbol, "ISLAND", "USD"), 10)
        await gateway.wait_for(lambda: events.has(309))
        assert gateway.journal.counts["subscribed", "GOOGL"] == 1
        assert gateway.journal.counts["subscribed", "AMZN"] == 0


async def test_cancel_ends_the_rows_and_a_second_one_is_310() -> None:
    async with connected(slots=1) as (gateway, ib, events):
        contract = Stock("IBM", "NYSE", "USD")
        ib.client.reqMktDepth(50, contract, 10, False, [])
        await gateway.wait_for(lambda: gateway.journal.row_counts["IBM"])
        ib.client.cancelMktDepth(50, True)
        await gateway.wait_for(lambda: (50, 310) in events.errors)
        ib.client.cancelMktDepth(50, False)
        await gateway.wait_for(lambda: gateway.journal.entries("unsubscribed"))
        ib.client.cancelMktDepth(50, False)
        await gateway.wait_for(lambda: events.errors.count((50, 310)) == 2)


async def test_live_request_id_is_refused_with_322() -> None:
    async with connected() as (gateway, ib, events):
        ib.client.reqMktDepth(50, Stock("IBM", "NYSE", "USD"), 10, False, [])
        ib.client.reqMktDepth(50, Stock("JPM", "NYSE", "USD"), 10, False, [])
        await gateway.wait_for(lambda: (50, 322) in events.errors)


async def test_contract_without_depth_is_refused_with_10092() -> None:
    async with connected() as (gateway, ib, events):
        ib.client.reqMktDepth(50, Stock("IBM", "SMART", "USD"), 10, False, [])
        await gateway.wait_for(lambda: (50, 10092) in events.errors)


async def test_early_cancel_is_lost() -> None:
    async with connected(early_cancel=EarlyCancel.LOST, first_row_delay=0.1) as (gateway, ib, events):
        ib.client.reqMktDepth(50, Stock("IBM", "NYSE", "USD"), 10, False, [])
        ib.client.cancelMktDepth(50, False)
        await gateway.wait_for(lambda: gateway.journal.row_counts["IBM"])
        ib.client.cancelMktDepth(50, False)
        await gateway.wait_for(lambda: (50, 310) in events.errors)


async def test_client_id_in_use_is_refused_with_326_at_once() -> None:
    async with connected() as (gateway, _ib, _events):
        second = IB()
        events = Events(second)
        connecting = asyncio.ensure_future(second.connectAsync(gateway.host, gateway.port, clientId=1, timeout=0.5))
        await gateway.wait_for(lambda: events.has(326))
        with pytest.raises((asyncio.TimeoutError, ConnectionError)):
            await connecting


async def test_dropped_connection_is_noticed() -> None:
    async with connected() as (gateway, ib, _events):
        gone = asyncio.Event()
        ib.disconnectedEvent += gone.set
        gateway.drop_connections()
        await asyncio.wait_for(gone.wait(), PATIENCE_SECS)
        assert not ib.isConnected()


async def test_placed_order_is_refused_and_stands_in_the_journal() -> None:
    async with connected(read_only_api=False) as (gateway, ib, events):
        trade = ib.placeOrder(Stock("IBM", "NYSE", "USD"), MarketOrder("BUY", 1))
        await gateway.wait_for(lambda: events.has(321))
        assert gateway.journal.requests("placeOrder")[0].detail["orderId"] == str(trade.order.orderId)
