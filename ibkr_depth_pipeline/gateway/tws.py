"""TWS or IB Gateway through ib_insync's client: the one home of that library.

Only its protocol client is used, with a wrapper of our own: its `IB` class keeps one order book per contract, mixes the
rows of a cancelled request into the next one's, and loses rows (docs/architecture.md). Depth rows are taken from the
decoder's table as texts, so that a row which is no row is counted here instead of raised and lost there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

from ib_insync.client import Client
from ib_insync.contract import Contract
from ib_insync.decoder import Decoder
from ib_insync.objects import DepthMktDataDescription

from ibkr_depth_pipeline.errors import ClientIdsExhausted, GatewayError, GatewayUnavailable
from ibkr_depth_pipeline.gateway.error_codes import CLIENT_ID_IN_USE, READ_ONLY, event_of
from ibkr_depth_pipeline.gateway.events import ConnectionLost, GatewayEvent, Notice, RowUnreadable
from ibkr_depth_pipeline.gateway.venues import ContractAnswer, DepthExchange, Wanted
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Instrument, RowFault, Side

ANSWER_TIMEOUT_SECS = 10.0

ALLOWED_MESSAGES = {
    5: "reqOpenOrders",  # asked once by the operator's check, to learn whether the gateway is in read-only mode
    9: "reqContractDetails",
    10: "reqMktDepth",
    11: "cancelMktDepth",
    49: "reqCurrentTime",
    71: "startApi",
    82: "reqMktDepthExchanges",
}
"""Message types that this program may send. Anything else, an order above all, is refused before it is sent."""

_OPERATIONS = {"0": DepthOperation.INSERT, "1": DepthOperation.UPDATE, "2": DepthOperation.DELETE}
_SIDES = {"0": Side.ASK, "1": Side.BID}

OnEvent = Callable[[GatewayEvent], None]
OnRow = Callable[[int, DepthRow], None]
_T = TypeVar("_T")


class TwsGateway:
    """A gateway at host and port. Events and rows come through the two callbacks, in the order they were received.

    request_ids yields ids never used before; the caller's depth requests draw from the same iterator. timeout is how
    long a connect may take, in seconds. All methods belong to one event loop.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        request_ids: Iterator[int],
        on_event: OnEvent,
        on_row: OnRow,
        connect_timeout: float,
    ) -> None:
        self._host = host
        self._port = port
        self._request_ids = request_ids
        self._on_event = on_event
        self._on_row = on_row
        self._connect_timeout = connect_timeout
        self._session: _Session | None = None

    # ---- connection

    async def connect(self, client_ids: Sequence[int], on_conflict: Callable[[int], None] = lambda _: None) -> int:
        """Connect under the first of `client_ids` that is free, and return it. on_conflict hears of each taken one.

        Raises ClientIdsExhausted where all are taken, GatewayUnavailable where nothing answers in time.
        """
        for client_id in client_ids:
            session = _Session(self._on_event, self._on_row)
            if await session.open(self._host, self._port, client_id, self._connect_timeout):
                self._session = session
                return client_id
            on_conflict(client_id)
        tried = f"{client_ids[0]} to {client_ids[-1]}"
        raise ClientIdsExhausted(
            f"{self._host}:{self._port}: every client id from {tried} is in use (326); "
            "end the other client, or set IBKR_CLIENT_ID or IBKR_CLIENT_ID_MAX_OFFSET"
        )

    def disconnect(self) -> None:
        """Close the connection. No ConnectionLost follows. May be called at any time."""
        if self._session is not None:
            self._session.close()
            self._session = None

    @property
    def server_version(self) -> int:
        """The protocol version in force; 0 while not connected."""
        return int(self._session.client.serverVersion()) if self._session else 0

    # ---- questions

    async def contracts(self, wanted: Wanted) -> list[ContractAnswer]:
        """The contracts that match; none where the gateway knows of none (200). Raises GatewayError."""
        contract = Contract(
            conId=wanted.con_id or 0,
            symbol=wanted.symbol,
            secType=wanted.sec_type,
            currency=wanted.currency,
            exchange="SMART" if wanted.sec_type == "STK" else wanted.exchange or "",
            primaryExchange=wanted.primary_exchange or "",
        )
        session = self._connected()
        request = next(self._request_ids)
        answer = session.expect_details(request)
        session.client.reqContractDetails(request, contract)
        details = await self._within(answer, f"contract details of {wanted.symbol}")
        return [_contract_answer(each) for each in details]

    async def depth_exchanges(self) -> list[DepthExchange]:
        """Every venue that the gateway has depth for. Raises GatewayError."""
        session = self._connected()
        answer = session.expect("depth exchanges")
        session.client.reqMktDepthExchanges()
        described: list[DepthMktDataDescription] = await self._within(answer, "depth exchanges")
        return [DepthExchange(each.exchange, each.secType) for each in described]

    async def server_time(self, timeout: float = ANSWER_TIMEOUT_SECS) -> int:
        """The gateway's clock, unix seconds: the proof that it answers. Raises GatewayError."""
        session = self._connected()
        answer = session.expect("time")
        session.client.reqCurrentTime()
        return int(await self._within(answer, "current time", timeout))

    async def is_read_only(self) -> bool:
        """Whether the gateway refuses order requests (its Read-Only API setting). Raises GatewayError."""
        session = self._connected()
        answer = session.expect("open orders")
        session.client.reqOpenOrders()
        return bool(await self._within(answer, "open orders"))

    async def _within(self, answer: asyncio.Future[_T], what: str, timeout: float = ANSWER_TIMEOUT_SECS) -> _T:
        try:
            return await asyncio.wait_for(answer, timeout)
        except (asyncio.TimeoutError, TimeoutError):
            raise GatewayUnavailable(f"{self._host}:{self._port}: no answer ({what}) within {timeout:g} s") from None

    # ---- depth

    def subscribe(self, request: int, instrument: Instrument, rows: int) -> None:
        """Ask for `rows` rows a side of the instrument's own venue. Rows or an error event are the only answer."""
        contract = Contract(
            conId=instrument.con_id,
            symbol=instrument.symbol,
            secType=instrument.sec_type,
            currency=instrument.currency,
            exchange=instrument.exchange,
            primaryExchange=instrument.primary_exchange,
            localSymbol=instrument.local_symbol,
            tradingClass=instrument.trading_class,
        )
        self._connected().client.reqMktDepth(request, contract, rows, False, [])

    def cancel(self, request: int) -> None:
        """Cancel by id, with the same isSmartDepth as the request; nothing acknowledges it."""
        self._connected().client.cancelMktDepth(request, False)

    def _connected(self) -> _Session:
        if self._session is None or not self._session.client.isReady():
            raise GatewayUnavailable(f"{self._host}:{self._port}: not connected")
        return self._session


class _Session:
    """One connection: ib_insync's client, and the wrapper that it calls. Never used again after it closed."""

    def __init__(self, on_event: OnEvent, on_row: OnRow) -> None:
        self._on_event = on_event
        self._on_row = on_row
        self._details: dict[int, tuple[list[Any], asyncio.Future[list[Any]]]] = {}
        self._expected: dict[str, asyncio.Future[Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._id_taken = self._loop.create_future()
        self._socket_closed = self._loop.create_future()
        self._silent = True  # until the connection stands, and after we closed it
        self.client: Any = _ReadOnlyClient(self)
        self.client.decoder = _CountingDecoder(self)
        self.client.decoder.handlers.update({12: self._row, 13: self._row_of_market_maker})

    async def open(self, host: str, port: int, client_id: int, timeout: float) -> bool:
        """Connect. False: the client id is in use. Raises GatewayUnavailable."""
        opening = asyncio.ensure_future(self.client.connectAsync(host, port, client_id, timeout))
        await asyncio.wait({opening, self._id_taken, self._socket_closed}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done() and opening.exception() is None and not self._socket_closed.done():
            self._silent = False
            return True
        why = None if opening.done() else "the gateway closed the connection before it was ready"
        opening.cancel()
        error = (await asyncio.gather(opening, return_exceptions=True))[0]
        self.close()
        if self._id_taken.done():
            return False
        if isinstance(error, asyncio.TimeoutError):
            why = f"no answer within {timeout:g} s"
        raise GatewayUnavailable(f"{host}:{port}: {why or error}")

    def close(self) -> None:
        self._silent = True
        self.client.disconnect()
        self._fail_questions("disconnected")

    # ---- questions

    def expect(self, what: str) -> asyncio.Future[Any]:
        """A future for the one answer to a question without an id; a question under way is shared."""
        future = self._expected.get(what)
        if future is None or future.done():
            future = self._expected[what] = self._loop.create_future()
        return future

    def expect_details(self, request: int) -> asyncio.Future[list[Any]]:
        self._details[request] = ([], self._loop.create_future())
        return self._details[request][1]

    def _answer(self, what: str, value: object) -> None:
        future = self._expected.pop(what, None)
        if future is not None and not future.done():
            future.set_result(value)

    def _fail_questions(self, why: str) -> None:
        futures = [future for _, future in self._details.values()] + list(self._expected.values())
        self._details.clear()
        self._expected.clear()
        for future in futures:
            if not future.done():
                future.set_exception(GatewayUnavailable(f"the gateway went away: {why}"))
                future.exception()  # whoever asked may be gone

    # ---- rows, from the decoder's table

    def _row(self, fields: list[str]) -> None:
        # 12: version, request, position, operation, side, price, size
        self._take_row(fields, fields[3:4], "", fields[4:8])

    def _row_of_market_maker(self, fields: list[str]) -> None:
        # 13: version, request, position, market maker, operation, side, price, size, is smart depth
        self._take_row(fields, fields[3:4], fields[4] if len(fields) > 4 else "", fields[5:9])

    def _take_row(self, fields: list[str], position: list[str], venue: str, rest: list[str]) -> None:
        try:
            request = int(fields[2])
        except (ValueError, IndexError):
            self._on_event(RowUnreadable(0, RowFault.UNREADABLE, tuple(fields)))
            return
        try:
            operation, side, price, size = rest
            row = DepthRow(_OPERATIONS[operation], _SIDES[side], int(position[0]), float(price), float(size), venue)
        except KeyError:
            unknown = RowFault.UNKNOWN_SIDE if operation in _OPERATIONS else RowFault.UNKNOWN_OPERATION
            self._on_event(RowUnreadable(request, unknown, tuple(fields)))
        except (ValueError, IndexError):
            self._on_event(RowUnreadable(request, RowFault.UNREADABLE, tuple(fields)))
        else:
            self._on_row(request, row)

    def unreadable(self, fields: list[str]) -> None:
        """A message that could not be decoded, or that no one knows."""
        self._on_event(Notice(None, 0, f"a message was not understood: {fields[:12]!r}"))

    # ---- what ib_insync's client and decoder call

    def error(self, reqId: int, errorCode: int, errorString: str, advancedOrderRejectJson: str) -> None:
        if errorCode == CLIENT_ID_IN_USE:
            if not self._id_taken.done():
                self._id_taken.set_result(None)
            return
        if reqId in self._details:
            found, future = self._details.pop(reqId)
            if not future.done() and errorCode == 200:
                future.set_result(found)
            elif not future.done():
                future.set_exception(GatewayError(f"the gateway answers {errorCode}: {errorString}"))
            return
        if errorCode == READ_ONLY and "open orders" in self._expected:
            self._answer("open orders", True)
            return
        self._on_event(event_of(reqId, errorCode, errorString))

    def contractDetails(self, reqId: int, details: Any) -> None:
        if reqId in self._details:
            self._details[reqId][0].append(details)

    def contractDetailsEnd(self, reqId: int) -> None:
        if reqId in self._details:
            found, future = self._details.pop(reqId)
            if not future.done():
                future.set_result(found)

    def mktDepthExchanges(self, descriptions: list[Any]) -> None:
        self._answer("depth exchanges", descriptions)

    def currentTime(self, time: int) -> None:
        self._answer("time", time)

    def openOrderEnd(self) -> None:
        self._answer("open orders", False)

    def connectAck(self) -> None:
        """The handshake is through; the client goes on by itself."""

    def connectionClosed(self) -> None:
        """Follows setEventsDone, which has said all."""

    def setEventsDone(self) -> None:
        """The socket is gone, whoever closed it."""
        if not self._socket_closed.done():
            self._socket_closed.set_result(None)
        self._fail_questions("connection lost")
        if not self._silent:
            self._silent = True
            self._on_event(ConnectionLost("the connection was closed or broke"))


class _ReadOnlyClient(Client):
    """ib_insync's client, which can't send what ALLOWED_MESSAGES does not name."""

    def __init__(self, session: _Session) -> None:
        Client.__init__(self, session)

    def send(self, *fields: Any, makeEmpty: bool = True) -> None:
        if fields[0] not in ALLOWED_MESSAGES:
            raise GatewayError(f"message type {fields[0]} is not one that this program may send")
        Client.send(self, *fields, makeEmpty=makeEmpty)


class _CountingDecoder(Decoder):
    """ib_insync's decoder, which hands on what it can't read instead of logging it."""

    def __init__(self, session: _Session) -> None:
        super().__init__(cast(Any, session), 0)
        self._session = session

    def interpret(self, fields: list[str]) -> None:
        try:
            handler = self.handlers[int(fields[0])]
        except (KeyError, ValueError, IndexError):
            self._session.unreadable(fields)
            return
        try:
            handler(fields)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError):
            self._session.unreadable(fields)


def _contract_answer(details: Any) -> ContractAnswer:
    contract = details.contract
    return ContractAnswer(
        con_id=int(contract.conId),
        symbol=contract.symbol,
        sec_type=contract.secType,
        currency=contract.currency,
        exchange=contract.exchange,
        primary_exchange=contract.primaryExchange,
        valid_exchanges=tuple(name for name in details.validExchanges.split(",") if name),
        local_symbol=contract.localSymbol,
        trading_class=contract.tradingClass,
    )
