"""One connection to TWS or IB Gateway: what is sent and expected on it, and its messages as rows and events.

ib_client.py frames the bytes. Depth messages are read by wire.py; all others, the handshake included, go to ib_insync,
which calls back the methods of TwsSession that have its names.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ibkr_depth_pipeline.errors import GatewayError, GatewayUnavailable, QuestionUnanswered
from ibkr_depth_pipeline.gateway.endpoint import REJECTION_CODES, Endpoint
from ibkr_depth_pipeline.gateway.events import (
    CLIENT_ID_IN_USE,
    DUPLICATE_REQUEST,
    PACING,
    READ_ONLY,
    UNKNOWN_CONTRACT,
    ConnectionLost,
    FarmStatus,
    GatewayEvent,
    MessageUnreadable,
    PacingViolation,
    event_of,
    is_about_the_session,
    is_notice,
    is_transient,
)
from ibkr_depth_pipeline.gateway.ib_client import IbClient, WireListener
from ibkr_depth_pipeline.gateway.pacing import (
    CANCEL,
    DEFAULT_RATE,
    DEPTH,
    DEPTH_EXCHANGES,
    DETAILS,
    OPEN_ORDERS,
    START,
    TIME,
    Outgoing,
    SendSchedule,
    TokenBucket,
)
from ibkr_depth_pipeline.gateway.wire import ROW, ROW_OF_MARKET_MAKER, read_depth
from ibkr_depth_pipeline.model import DepthRow


@dataclass(frozen=True, slots=True)
class GatewayCallbacks:
    """What a connection calls, in the order in which bytes came. What they raise is not caught by it.

    on_read comes before the messages that a read of the socket completes, on_read_end after them. on_depth takes a
    depth message as it came; False if it was not processed: then its row goes to on_row(request, row). on_error takes
    the request id, code and text of each error message, before the event that it makes. wire gets a copy of all bytes,
    of every connection that is tried.
    """

    on_event: Callable[[GatewayEvent], None] = lambda _event: None
    on_row: Callable[[int, DepthRow], None] = lambda _request, _row: None
    on_depth: Callable[[bytes], bool] = lambda _message: False
    on_read: Callable[[], None] = lambda: None
    on_read_end: Callable[[], None] = lambda: None
    on_error: Callable[[int, int, str], None] = lambda _request, _code, _text: None
    wire: WireListener | None = None


LacksRows = Callable[[int], bool]
"""Whether no row of that depth request has come so far."""


def lacks_rows(_request: int) -> bool:
    """A LacksRows for callers that do not track it: the request may lack rows."""
    return True


_EXPECTED = {OPEN_ORDERS: "open orders", TIME: "time", DEPTH_EXCHANGES: "depth exchanges"}
"""Type of a query without an id -> what `expect` calls its answer."""

_DEPTH = (ROW, ROW_OF_MARKET_MAKER)


class TwsSession:
    """One connection, from `open` or `dial` to `close`; never used again after it closed.

    `is_closed`: messages that still come are ignored. `version_agreed` is done when the gateway has answered the
    offer of versions, before startApi is sent with the client id; on_version(self) is called then, and may close the
    session. `connection_time` comes with that answer, in the gateway's own format and time zone.
    """

    def __init__(
        self,
        callbacks: GatewayCallbacks,
        *,
        bucket: TokenBucket | None = None,
        lacks_rows: LacksRows = lacks_rows,
        on_version: Callable[[TwsSession], None] = lambda _: None,
    ) -> None:
        self._callbacks = callbacks
        self._on_depth = callbacks.on_depth
        self._on_version = on_version
        self._lacks_rows = lacks_rows
        self._details: dict[int, _DetailsQuery] = {}
        self._expected: defaultdict[str, list[asyncio.Future[Any]]] = defaultdict(list)
        self._decoded: list[GatewayEvent] = []  # while ib_insync decodes a message
        self._loop = asyncio.get_running_loop()
        self._opening: asyncio.Task[bool] | None = None
        self._id_taken = self._loop.create_future()
        self._rejected: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self.version_agreed: asyncio.Future[None] = self._loop.create_future()
        self.connection_time = ""
        self._socket_closed = self._loop.create_future()
        self._silent = True  # until the connection stands, and after we closed it
        self.is_closed = False
        self._closed_because = ""
        self._depth: set[int] = set()  # depth requests neither cancelled nor answered by an error
        self._sent_twice: set[int] = set()
        self.depth_exchanges: tuple[Any, ...] = ()
        """The venues with market depth, once the gateway has listed any on this connection; () before, and again after
        a farm has come back."""
        self.client: Any = IbClient(self, callbacks.wire)
        self._schedule = SendSchedule(bucket or TokenBucket(DEFAULT_RATE), self._is_needed)
        self._send_timer: asyncio.TimerHandle | None = None

    async def open(self, host: str, port: int, client_id: int, timeout: float) -> bool:
        """Connects; False if the client id is in use. Raises GatewayUnavailable. It closes unless it returns True."""
        endpoint = Endpoint(host, port)
        opening = self.dial(endpoint, client_id)
        await asyncio.wait({opening}, timeout=timeout)
        if opening.done():
            return opening.result()
        await self.abandon()
        raise endpoint.not_answered(timeout)

    def dial(self, endpoint: Endpoint, client_id: int) -> asyncio.Task[bool]:
        """Starts to connect. The task ends as `open` does, without a time limit; `version_agreed` is done before."""
        self._opening = asyncio.ensure_future(self._open(endpoint, client_id))
        return self._opening

    @property
    def is_open(self) -> bool:
        """Whether it is connected under its client id."""
        return not self._silent and not self.is_closed

    async def abandon(self) -> None:
        """Stops connecting, and closes."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self.close()

    async def _open(self, endpoint: Endpoint, client_id: int) -> bool:
        connecting = asyncio.ensure_future(self.client.connectAsync(endpoint.host, endpoint.port, client_id, 0))
        outcomes = {connecting, self._id_taken, self._rejected, self._socket_closed}
        try:
            await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
            if self._id_taken.done():
                return False
            self._raise_if_failed(endpoint, client_id, connecting)
            self._silent = False
            return True
        finally:
            if self._silent:
                connecting.cancel()
                await asyncio.gather(connecting, return_exceptions=True)
                self.close()

    def _raise_if_failed(self, endpoint: Endpoint, client_id: int, connecting: asyncio.Future[None]) -> None:
        if self._rejected.done():
            raise endpoint.rejected(client_id, *self._rejected.result())
        if self._socket_closed.done():
            raise endpoint.closed(self._closed_because)
        failure = connecting.exception()
        if isinstance(failure, OSError):
            raise endpoint.no_connection(failure)
        if failure is not None:
            raise endpoint.closed(str(failure) or repr(failure))

    def close(self) -> None:
        """Closes the connection; no event follows. May be called at any time."""
        self._silent = self.is_closed = True
        self._stop_sending()
        self.client.disconnect()
        self._fail_queries("disconnected")

    def abort(self, reason: str) -> None:
        """Cuts the connection, whose loss is then reported with this reason."""
        self._closed_because = reason
        self.client.abort()

    # ---- queries

    def expect(self, what: str) -> asyncio.Future[Any]:
        """A future for the answer to a query without an id. An answer completes all futures; each may be cancelled."""
        future: asyncio.Future[Any] = self._loop.create_future()
        waiting = self._expected[what]
        waiting.append(future)
        future.add_done_callback(waiting.remove)
        return future

    def expect_details(self, request: int) -> asyncio.Future[list[Any]]:
        """A future for the contract details that `request` asks for."""
        query = _DetailsQuery([], self._loop.create_future(), self._loop.create_future())
        self._details[request] = query
        query.answer.add_done_callback(lambda _: self._details.pop(request, None))  # it may have been cancelled
        return query.answer

    def sent(self, request: int) -> asyncio.Future[None]:
        """A future that is done when the query `request` of `expect_details` is sent."""
        return self._details[request].sent

    def is_expected(self, what: str) -> bool:
        """Whether a future of `expect` waits for that answer."""
        return bool(self._expected.get(what))

    def _answer(self, what: str, value: object) -> None:
        for future in self._expected.pop(what, []):
            if not future.done():
                future.set_result(value)

    def _fail_queries(self, why: str) -> None:
        futures: list[asyncio.Future[Any]] = [query.answer for query in self._details.values()]
        futures += itertools.chain.from_iterable(self._expected.values())
        self._details.clear()
        self._expected.clear()
        for future in futures:
            if not future.done():
                future.set_exception(GatewayUnavailable(f"the gateway went away: {why}"))
                future.exception()  # marks it as retrieved: nobody may wait for it any more

    # ---- what is sent

    def send(self, text: str) -> None:
        """Sends a message of the client at the pace that the gateway allows."""
        message = Outgoing.of_text(text)
        if message.kind == DEPTH:
            self._depth.add(message.request)
        elif message.kind == CANCEL:
            self._depth.discard(message.request)
        self._schedule.put(message)
        self._send_due()

    async def drain(self) -> None:
        """Returns when no urgent message waits any more."""
        while self._schedule.urgent:
            now = self._loop.time()
            await asyncio.sleep((self._schedule.next_at(now) or now) - now)

    def _send_due(self) -> None:
        now = self._loop.time()
        for message in self._schedule.due(now):
            self._before_sending(message)
            self.client.write(message.text)
        if self._send_timer is not None:
            self._send_timer.cancel()
        at = self._schedule.next_at(now)
        self._send_timer = None if at is None else self._loop.call_at(at, self._send_due)

    def _stop_sending(self) -> None:
        self._schedule.clear()
        self._send_due()

    def _before_sending(self, message: Outgoing) -> None:
        if message.kind == DEPTH and message.again:
            self._sent_twice.add(message.request)
        query = self._details.get(message.request) if message.kind == DETAILS else None
        if query is not None and not query.sent.done():
            query.sent.set_result(None)

    def _is_needed(self, message: Outgoing) -> bool:
        """Whether a message that may be lost has to be sent again."""
        if message.kind == DEPTH:
            return message.request in self._depth and self._lacks_rows(message.request)
        if message.kind == START:
            return not self.client.isReady()
        return message.kind == CANCEL or self.is_expected(_EXPECTED.get(message.kind, ""))

    # ---- messages

    def on_read(self) -> None:
        """Passes on that the socket was read."""
        self._callbacks.on_read()

    def on_read_end(self) -> None:
        """Passes on that all messages of that read have come."""
        self._callbacks.on_read_end()

    def on_message(self, message: bytes) -> None:
        """Processes one whole message: a row, or what ib_insync decodes."""
        if message.startswith(_DEPTH) and self.client.isReady():
            if self._on_depth(message):
                return
            read = read_depth(message)
            if isinstance(read, tuple):
                self._callbacks.on_row(*read)
            else:
                self._callbacks.on_event(read)
            return
        self.client.decode(message)
        events, self._decoded = self._decoded, []
        for event in events:
            if isinstance(event, ConnectionLost):  # reported by the gateway on an open socket (504)
                self.abort(event.text)
            else:
                self._callbacks.on_event(event)

    def on_unreadable(self, fields: list[str]) -> None:
        """Reports a message that could not be decoded, or whose type is unknown."""
        self._decoded.append(MessageUnreadable(tuple(fields[:12])))

    # ---- what ib_insync's client and decoder call

    def error(self, reqId: int, errorCode: int, errorString: str, advancedOrderRejectJson: str) -> None:
        self._callbacks.on_error(reqId, errorCode, errorString)
        if self._ends_opening(errorCode, errorString):
            return
        if errorCode == PACING:
            lowered = self._schedule.violated(self._loop.time())
            self._send_due()
            self._decoded.append(PacingViolation(errorString, self._schedule.rate if lowered else None))
            return
        if errorCode == DUPLICATE_REQUEST and reqId in self._sent_twice:
            return  # the first one was not lost
        self._depth.discard(reqId)
        if self._answers_query(reqId, errorCode, errorString):
            return
        event = event_of(reqId, errorCode, errorString)
        if isinstance(event, FarmStatus) and event.healthy:
            self.depth_exchanges = ()
        self._decoded.append(event)

    def _ends_opening(self, code: int, text: str) -> bool:
        """Whether the error ends the attempt to connect."""
        if code == CLIENT_ID_IN_USE:
            if not self._id_taken.done():
                self._id_taken.set_result(None)
            return True
        if code not in REJECTION_CODES or self.client.isReady():
            return False
        if not self._rejected.done():
            self._rejected.set_result((code, text))
        return True

    def _answers_query(self, request: int, code: int, text: str) -> bool:
        """Whether the error is the answer to a query, and about nothing else."""
        if request in self._details and not is_notice(code):
            self._details_refused(self._details.pop(request), code, text)
            return not is_about_the_session(code)
        if code != READ_ONLY or not self._expected.get("open orders"):
            return False
        self._answer("open orders", True)
        return True

    @staticmethod
    def _details_refused(query: _DetailsQuery, code: int, text: str) -> None:
        if query.answer.done():
            return
        if code == UNKNOWN_CONTRACT:
            query.answer.set_result(query.found)
        elif is_about_the_session(code) or is_transient(code):
            query.answer.set_exception(QuestionUnanswered(f"the gateway answers {code}: {text}"))
        else:
            query.answer.set_exception(GatewayError(f"the gateway answers {code}: {text}"))

    def contractDetails(self, reqId: int, details: Any) -> None:
        if reqId in self._details:
            self._details[reqId].found.append(details)

    def bondContractDetails(self, reqId: int, details: Any) -> None:
        self.contractDetails(reqId, details)

    def contractDetailsEnd(self, reqId: int) -> None:
        if reqId in self._details:
            query = self._details.pop(reqId)
            if not query.answer.done():
                query.answer.set_result(query.found)

    def mktDepthExchanges(self, descriptions: list[Any]) -> None:
        self.depth_exchanges = tuple(descriptions)
        self._answer("depth exchanges", descriptions)

    def currentTime(self, time: int) -> None:
        self._answer("time", time)

    def openOrderEnd(self) -> None:
        self._answer("open orders", False)

    def on_versions(self, connection_time: str) -> None:
        """The gateway has answered the offer of versions; the client id is not sent yet."""
        self.connection_time = connection_time
        self._on_version(self)
        if not self.is_closed:
            self.version_agreed.set_result(None)

    def connectAck(self) -> None:
        """No-op: the client goes on by itself after startApi."""

    def connectionClosed(self) -> None:
        """No-op: setEventsDone, which comes before it, has reported the loss."""

    def setEventsDone(self) -> None:
        """The socket is closed, by either side."""
        self.is_closed = True
        self._stop_sending()
        if not self._socket_closed.done():
            self._socket_closed.set_result(None)
        self._fail_queries("connection lost")
        if not self._silent:
            self._silent = True
            self._callbacks.on_event(ConnectionLost(self._closed_because or "the connection was closed or broke"))


@dataclass(frozen=True, slots=True)
class _DetailsQuery:
    """A query for contract details: its results so far, the future of all of them, and the future of its sending."""

    found: list[Any]
    answer: asyncio.Future[list[Any]]
    sent: asyncio.Future[None]
