"""A connection to TWS or IB Gateway that can be made again: queries, depth subscriptions, and events in return.

Only ib_insync's protocol client is used (ib_client.py): its `IB` class keeps one order book per contract, mixes the
rows of a cancelled request into the next one's, and loses rows (docs/ibkr-market-depth.md, "Client libraries").
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ibkr_depth_pipeline.clock import loop_time
from ibkr_depth_pipeline.errors import GatewayUnavailable, QuestionUnanswered
from ibkr_depth_pipeline.gateway.connecting import Connector, ConnectRound
from ibkr_depth_pipeline.gateway.contracts import ContractAnswer, ContractQuery, DepthExchange, Question, questions
from ibkr_depth_pipeline.gateway.endpoint import Endpoint, Greeting
from ibkr_depth_pipeline.gateway.ib_client import Contract
from ibkr_depth_pipeline.gateway.pacing import DEFAULT_RATE, TokenBucket
from ibkr_depth_pipeline.gateway.tws_session import (
    GatewayCallbacks,
    LacksRows,
    TwsSession,
    lacks_rows,
)
from ibkr_depth_pipeline.gateway.wire import NO_VALUE
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.settings import Settings

ANSWER_TIMEOUT_SECS = 10.0

_T = TypeVar("_T")


class TwsGateway:
    """The gateway at host and port. Events and rows come through the callbacks, in the order in which they came.

    request_ids yields ids never used before; the caller's depth requests draw from the same iterator. lacks_rows keeps
    a depth request that has rows from being sent twice after a 100. connect_timeout: longest connect, in seconds;
    messages_per_second: the pace of all that is sent. All methods belong to one event loop.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        request_ids: Iterator[int],
        callbacks: GatewayCallbacks,
        lacks_rows: LacksRows = lacks_rows,
        connect_timeout: float,
        messages_per_second: float = DEFAULT_RATE,
        id_setting: str = "IBKR_CLIENT_ID",
    ) -> None:
        endpoint = Endpoint(host, port, id_setting)
        self._where = str(endpoint)
        self._request_ids = request_ids
        self._callbacks = callbacks
        self._connector = Connector(endpoint, connect_timeout, self._new_session)
        self._lacks_rows = lacks_rows
        self._bucket = TokenBucket(messages_per_second)  # of all connections: the limit is the account's
        self._session: TwsSession | None = None
        self.answer_secs = 0.0
        """How long the newest answer of `contracts` took, from when its query was sent, in seconds."""

    @classmethod
    def of_settings(
        cls,
        settings: Settings,
        *,
        request_ids: Iterator[int],
        callbacks: GatewayCallbacks,
        lacks_rows: LacksRows = lacks_rows,
        id_setting: str = "IBKR_CLIENT_ID",
    ) -> TwsGateway:
        """The gateway of the settings; `id_setting` is the setting that the client ids come from."""
        return cls(
            settings.ibkr_host,
            settings.ibkr_port,
            request_ids=request_ids,
            callbacks=callbacks,
            lacks_rows=lacks_rows,
            connect_timeout=settings.ibkr_connect_timeout_secs,
            messages_per_second=settings.ibkr_messages_per_second,
            id_setting=id_setting,
        )

    # ---- connection

    async def connect(
        self,
        client_ids: Sequence[int],
        on_conflict: Callable[[int], None] = lambda _: None,
        terms: ConnectRound | None = None,
    ) -> int:
        """Connects under the first of `client_ids` that is answered, and returns it; see Connector.connect.

        on_conflict is called for each id that is taken; `terms` replace it.
        """
        self._session, client_id = await self._connector.connect(client_ids, terms or ConnectRound(on_conflict))
        return client_id

    def _new_session(self, on_version: Callable[[TwsSession], None]) -> TwsSession:
        return TwsSession(
            self._callbacks,
            bucket=self._bucket,
            lacks_rows=self._lacks_rows,
            on_version=on_version,
        )

    async def drain(self) -> None:
        """Returns once only queries wait to be sent. To be called before `disconnect`, with a time limit."""
        if self._session is not None:
            await self._session.drain()

    def disconnect(self) -> None:
        """Closes the connection. No ConnectionLost follows. May be called at any time."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def pause_reading(self) -> None:
        """Leaves what comes with the kernel, until `resume_reading` or a new connection."""
        if self._session is not None:
            self._session.client.pause_reading()

    def resume_reading(self) -> None:
        """Ends `pause_reading`."""
        if self._session is not None:
            self._session.client.resume_reading()

    @property
    def server_version(self) -> int:
        """The protocol version in force; 0 while not connected."""
        return int(self._session.client.serverVersion()) if self._session else 0

    @property
    def greeting(self) -> Greeting:
        """The greeting of this connection; of version 0 while not connected."""
        return Greeting(self.server_version, self._session.connection_time if self._session else "")

    @property
    def accounts(self) -> tuple[str, ...]:
        """The numbers of the accounts behind the gateway; none while not connected."""
        return tuple(self._session.client.getAccounts()) if self._session and self.is_connected else ()

    # ---- queries

    async def contracts(self, query: ContractQuery, timeout: float = ANSWER_TIMEOUT_SECS) -> list[ContractAnswer]:
        """The contracts that match; none if the gateway knows of none (200) whichever way it is asked.

        timeout is in seconds from when a query is sent, however long it waits for that. Raises QuestionUnanswered if
        no answer comes in time, or an error that does not concern the contract, and GatewayError for other errors.
        """
        for question in questions(query):
            details = await self._contract_details(question, query.name, timeout)
            if details:
                return [_contract_answer(each) for each in details]
        return []

    async def _contract_details(self, question: Question, name: str, timeout: float) -> list[Any]:
        session = self._connected()
        request = next(self._request_ids)
        answer: asyncio.Future[Any] = session.expect_details(request)
        sent: asyncio.Future[Any] = session.sent(request)
        session.client.reqContractDetails(request, _contract(question))
        try:
            await asyncio.wait([sent, answer], return_when=asyncio.FIRST_COMPLETED)
            sent_at = loop_time()
            details = list(await self._within(answer, f"contract details of {name}", timeout))
            self.answer_secs = loop_time() - sent_at
        finally:
            answer.cancel()
        return details

    @property
    def known_depth_exchanges(self) -> list[DepthExchange]:
        """What `depth_exchanges` has found on this connection; none before it, and after a farm has come back."""
        described = self._session.depth_exchanges if self.is_connected and self._session else ()
        return [DepthExchange(each.exchange, each.secType, each.listingExch) for each in described]

    async def depth_exchanges(self, timeout: float = ANSWER_TIMEOUT_SECS) -> list[DepthExchange]:
        """Every venue that has depth by the gateway's list, which is requested once a connection.

        Raises QuestionUnanswered if no answer comes in time, and GatewayError.
        """
        session = self._connected()
        if not session.depth_exchanges:
            is_requested = session.is_expected("depth exchanges")
            answer = session.expect("depth exchanges")
            if not is_requested:
                session.client.reqMktDepthExchanges()
            await self._within(answer, "depth exchanges", timeout)
        return self.known_depth_exchanges

    async def server_time(self, timeout: float | None = ANSWER_TIMEOUT_SECS) -> int:
        """The gateway's clock in unix seconds, which proves that it answers. Raises GatewayError.

        timeout None: waits until the connection ends.
        """
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

    async def _within(self, answer: asyncio.Future[_T], what: str, timeout: float | None = ANSWER_TIMEOUT_SECS) -> _T:
        try:
            return await asyncio.wait_for(answer, timeout)
        except (asyncio.TimeoutError, TimeoutError):
            raise QuestionUnanswered(f"{self._where}: no answer ({what}) within {timeout:g} s") from None

    # ---- depth

    def subscribe(self, request: int, instrument: Instrument, rows: int) -> None:
        """Requests `rows` rows a side of the instrument's own venue. Rows or an error event are the only answer.

        con_id and exchange alone are sent: what the SMART line is called may clash with the venue's (478, 200).
        """
        contract = Contract(conId=instrument.con_id, exchange=instrument.exchange)
        self._connected().client.reqMktDepth(request, contract, rows, False, [])

    def cancel(self, request: int) -> None:
        """Cancels by id, with the request's isSmartDepth (docs/ibkr-market-depth.md, "Slots"). Not acknowledged."""
        self._connected().client.cancelMktDepth(request, False)

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands."""
        return self._session is not None and bool(self._session.client.isReady())

    def _connected(self) -> TwsSession:
        if self._session is None or not self._session.client.isReady():
            raise GatewayUnavailable(f"{self._where}: not connected")
        return self._session


def _contract(question: Question) -> Contract:
    return Contract(
        conId=question.con_id,
        symbol=question.symbol,
        secType=question.sec_type,
        currency=question.currency,
        exchange=question.exchange,
        primaryExchange=question.primary_exchange,
        localSymbol=question.local_symbol,
        tradingClass=question.trading_class,
        multiplier=question.multiplier,
        lastTradeDateOrContractMonth=question.expiry,
        strike=question.strike,
        right=question.right,
    )


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
        multiplier=contract.multiplier,
        expiry=contract.lastTradeDateOrContractMonth,
        contract_month=details.contractMonth,
        strike=float(contract.strike or 0),
        right=contract.right[:1] if contract.right in ("C", "P", "CALL", "PUT") else "",
        time_zone=details.timeZoneId,
        trading_hours=details.tradingHours,
        liquid_hours=details.liquidHours,
        min_size=_size(details.minSize),
        size_increment=_size(details.sizeIncrement),
    )


def _size(number: Any) -> float | None:
    """A size of contract details; None for none, which ib_insync gives as 0, and the protocol as its unset number."""
    size = float(number or 0)
    return None if size in NO_VALUE or not 0 < size < math.inf else size
