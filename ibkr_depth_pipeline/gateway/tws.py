"""TWS or IB Gateway through ib_insync's client. This module and tws_session.py are the one home of that library.

Only its protocol client is used, with a wrapper of our own: its `IB` class keeps one order book per contract, mixes the
rows of a cancelled request into the next one's, and loses rows (docs/architecture.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ib_insync.contract import Contract

from ibkr_depth_pipeline.errors import GatewayUnavailable, QuestionUnanswered
from ibkr_depth_pipeline.gateway.connecting import Connector, ConnectRound
from ibkr_depth_pipeline.gateway.endpoint import Endpoint
from ibkr_depth_pipeline.gateway.greeting import Greeting
from ibkr_depth_pipeline.gateway.pacing import DEFAULT_RATE, TokenBucket
from ibkr_depth_pipeline.gateway.tws_session import (
    ALLOWED_MESSAGES,
    LacksRows,
    OnDepth,
    OnEvent,
    OnRow,
    TwsSession,
    decline,
    lacks_rows,
)
from ibkr_depth_pipeline.gateway.venues import ContractAnswer, ContractQuery, DepthExchange
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.settings import Settings

__all__ = ["ALLOWED_MESSAGES", "ANSWER_TIMEOUT_SECS", "OnDepth", "OnEvent", "OnRow", "TwsGateway"]

ANSWER_TIMEOUT_SECS = 10.0

_T = TypeVar("_T")


class TwsGateway:
    """A gateway at host and port. Events and rows come through the callbacks, in the order they were received.

    request_ids yields ids never used before; the caller's depth requests draw from the same iterator. lacks_rows spares
    a depth request that has rows from being sent twice after a 100. connect_timeout is how long a connect may take, in
    seconds; messages_per_second is the pace of all that is sent. All methods belong to one event loop.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        request_ids: Iterator[int],
        on_event: OnEvent,
        on_row: OnRow,
        on_depth: OnDepth = decline,
        lacks_rows: LacksRows = lacks_rows,
        connect_timeout: float,
        messages_per_second: float = DEFAULT_RATE,
        id_setting: str = "IBKR_CLIENT_ID",
    ) -> None:
        endpoint = Endpoint(host, port, id_setting)
        self._where = str(endpoint)
        self._request_ids = request_ids
        self._on_event = on_event
        self._on_row = on_row
        self._on_depth = on_depth
        self._connector = Connector(endpoint, connect_timeout, self._new_session)
        self._lacks_rows = lacks_rows
        self._bucket = TokenBucket(messages_per_second)  # of all connections: the limit is the account's
        self._session: TwsSession | None = None
        self.answer_secs = 0.0
        """How long the newest answer of `contracts` took, from when its question was sent."""

    @classmethod
    def of_settings(
        cls,
        settings: Settings,
        *,
        request_ids: Iterator[int],
        on_event: OnEvent,
        on_row: OnRow,
        on_depth: OnDepth = decline,
        lacks_rows: LacksRows = lacks_rows,
        id_setting: str = "IBKR_CLIENT_ID",
    ) -> TwsGateway:
        """The gateway that the settings name; `id_setting` is the one that the client ids come from."""
        return cls(
            settings.ibkr_host,
            settings.ibkr_port,
            request_ids=request_ids,
            on_event=on_event,
            on_row=on_row,
            on_depth=on_depth,
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
        """One round: connect under the first of `client_ids` that is answered, and return it; see Connector.connect.

        on_conflict hears of each taken one, unless `terms` say more.
        """
        self._session, client_id = await self._connector.connect(client_ids, terms or ConnectRound(on_conflict))
        return client_id

    def _new_session(self, on_version: Callable[[TwsSession], None]) -> TwsSession:
        return TwsSession(
            self._on_event,
            self._on_row,
            self._on_depth,
            bucket=self._bucket,
            lacks_rows=self._lacks_rows,
            on_version=on_version,
        )

    async def drain(self) -> None:
        """Returns once nothing but questions waits to be sent. To be called before `disconnect`, with a time limit."""
        if self._session is not None:
            await self._session.outbox.urgent_sent()

    def disconnect(self) -> None:
        """Close the connection. No ConnectionLost follows. May be called at any time."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def pause_reading(self) -> None:
        """Read no more for now; what comes stays with the kernel. A new connection reads."""
        if self._session is not None:
            self._session.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._session is not None:
            self._session.resume_reading()

    @property
    def server_version(self) -> int:
        """The protocol version in force; 0 while not connected."""
        return int(self._session.client.serverVersion()) if self._session else 0

    @property
    def greeting(self) -> Greeting:
        """What the gateway said of itself when the connection was made; of version 0 while not connected."""
        return Greeting(self.server_version, self._session.connection_time if self._session else "")

    # ---- questions

    async def contracts(self, wanted: ContractQuery, timeout: float = ANSWER_TIMEOUT_SECS) -> list[ContractAnswer]:
        """The contracts that match; none where the gateway knows of none (200).

        timeout counts from when the question is sent, however long it waits for that. Raises QuestionUnanswered where
        no answer comes in time or one that says nothing of the contract, and GatewayError.
        """
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
        answer: asyncio.Future[Any] = session.expect_details(request)
        sent: asyncio.Future[Any] = session.sent(request)
        session.client.reqContractDetails(request, contract)
        try:
            await asyncio.wait([sent, answer], return_when=asyncio.FIRST_COMPLETED)
            sent_at = session.now()
            details = await self._within(answer, f"contract details of {wanted.symbol}", timeout)
            self.answer_secs = session.now() - sent_at
        finally:
            answer.cancel()
        return [_contract_answer(each) for each in details]

    @property
    def known_depth_exchanges(self) -> list[DepthExchange]:
        """What `depth_exchanges` has found on this connection; none before, and again after a farm has come back."""
        described = self._session.depth_exchanges if self.is_connected and self._session else ()
        return [DepthExchange(each.exchange, each.secType) for each in described]

    async def depth_exchanges(self, timeout: float = ANSWER_TIMEOUT_SECS) -> list[DepthExchange]:
        """Every venue that the gateway has depth for; asked once a connection.

        Raises QuestionUnanswered where no answer comes in time, and GatewayError.
        """
        session = self._connected()
        if not session.depth_exchanges:
            is_asked = session.is_expected("depth exchanges")
            answer = session.expect("depth exchanges")
            if not is_asked:
                session.client.reqMktDepthExchanges()
            await self._within(answer, "depth exchanges", timeout)
        return self.known_depth_exchanges

    async def server_time(self, timeout: float | None = ANSWER_TIMEOUT_SECS) -> int:
        """The gateway's clock, unix seconds: the proof that it answers. Raises GatewayError.

        With None it waits for as long as the connection stands.
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

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands."""
        return self._session is not None and bool(self._session.client.isReady())

    def _connected(self) -> TwsSession:
        if self._session is None or not self._session.client.isReady():
            raise GatewayUnavailable(f"{self._where}: not connected")
        return self._session


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
