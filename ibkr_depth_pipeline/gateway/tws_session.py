"""One connection to TWS or IB Gateway: ib_insync's protocol client, and the wrapper that it calls.

The bytes are cut into messages by framing.py. Depth messages are read by depth_messages.py; everything else, the
handshake included, is handed to ib_insync one whole message at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from ib_insync.client import Client
from ib_insync.connection import Connection
from ib_insync.decoder import Decoder

from ibkr_depth_pipeline.errors import GatewayError, GatewayProtocolError, GatewayUnavailable, QuestionUnanswered
from ibkr_depth_pipeline.gateway.depth_messages import ROW, ROW_OF_MARKET_MAKER, read_depth
from ibkr_depth_pipeline.gateway.endpoint import REJECTION_CODES, Endpoint
from ibkr_depth_pipeline.gateway.error_codes import (
    CLIENT_ID_IN_USE,
    DUPLICATE_REQUEST,
    PACING,
    READ_ONLY,
    UNKNOWN_CONTRACT,
    event_of,
    is_about_the_session,
    is_notice,
    says_nothing_of_a_contract,
)
from ibkr_depth_pipeline.gateway.events import (
    ConnectionLost,
    FarmStatus,
    GatewayEvent,
    MessageUnreadable,
    PacingViolation,
)
from ibkr_depth_pipeline.gateway.outbox import (
    CANCEL,
    DEPTH,
    DEPTH_EXCHANGES,
    DETAILS,
    OPEN_ORDERS,
    START,
    TIME,
    Outbox,
    Outgoing,
)
from ibkr_depth_pipeline.gateway.pacing import DEFAULT_RATE, TokenBucket
from ibkr_depth_pipeline.gateway.wire import FrameSplitter
from ibkr_depth_pipeline.model import DepthRow

ALLOWED_MESSAGES = {
    5: "reqOpenOrders",  # asked by the operator's check with --orders, to learn whether the gateway is read-only
    9: "reqContractDetails",
    10: "reqMktDepth",
    11: "cancelMktDepth",
    49: "reqCurrentTime",
    71: "startApi",
    82: "reqMktDepthExchanges",
}
"""Message types that this program may send. Anything else, an order above all, is refused before it is sent."""

OnEvent = Callable[[GatewayEvent], None]
OnRow = Callable[[int, DepthRow], None]
OnDepth = Callable[[bytes], bool]
"""May take a depth message as it came. False: it did not, and the row is to be read and handed on."""


def decline(_message: bytes) -> bool:
    """An OnDepth that takes none."""
    return False


LacksRows = Callable[[int], bool]
"""Whether no row of that depth request has come so far."""


def lacks_rows(_request: int) -> bool:
    """A LacksRows of somebody who does not keep count: it may be so."""
    return True


_EXPECTED = {OPEN_ORDERS: "open orders", TIME: "time", DEPTH_EXCHANGES: "depth exchanges"}
"""Type of a question without an id -> what `expect` calls its answer."""


READ_BYTES = 1 << 13
"""Most that is read at once: some 160 rows, a millisecond's work. asyncio's own 256 KiB would keep Redis waiting for
its next flush, and everybody else, 32 times as long."""

_DEPTH = (ROW, ROW_OF_MARKET_MAKER)
_READERS: dict[type, Callable[[str], Any]] = {
    str: str,
    int: lambda text: int(text or 0),
    float: lambda text: float(text or 0),
    bool: lambda text: bool(int(text or 0)),
}


class TwsSession:
    """`open` it once, `close` it at the end; never used again after it closed.

    on_event, on_depth and on_row are called in the order in which the messages came. What they raise is not caught
    here. `is_closed` says that nothing that still comes is of interest. `version_agreed` is done when the gateway has
    answered the offer of versions, before startApi is sent with the client id; on_version(self) is called then, and
    may close the session. `connection_time` is what the gateway says with it, in its own words and time zone.
    """

    def __init__(
        self,
        on_event: OnEvent,
        on_row: OnRow,
        on_depth: OnDepth = decline,
        *,
        bucket: TokenBucket | None = None,
        lacks_rows: LacksRows = lacks_rows,
        on_version: Callable[[TwsSession], None] = lambda _: None,
    ) -> None:
        self._on_event = on_event
        self._on_version = on_version
        self._on_row = on_row
        self._on_depth = on_depth
        self._lacks_rows = lacks_rows
        self._details: dict[int, _DetailsQuestion] = {}
        self._expected: defaultdict[str, list[asyncio.Future[Any]]] = defaultdict(list)
        self._heard: list[GatewayEvent] = []  # while ib_insync decodes a message
        self._loop = asyncio.get_running_loop()
        self._opening: asyncio.Task[bool] | None = None
        self._id_taken = self._loop.create_future()
        self._rejected: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self.version_agreed: asyncio.Future[None] = self._loop.create_future()
        self.connection_time = ""
        self._socket_closed = self._loop.create_future()
        self._silent = True  # until the connection stands, and after we closed it
        self.is_closed = False
        self._why_closed = ""
        self._depth: set[int] = set()  # depth requests neither cancelled nor answered by an error
        self._sent_twice: set[int] = set()
        self.depth_exchanges: tuple[Any, ...] = ()
        """The venues with market depth, once the gateway has named any on this connection; () before, and again after
        a farm has come back."""
        self.client: Any = _ReadOnlyClient(self)
        self.outbox = Outbox(bucket or TokenBucket(DEFAULT_RATE), self.client.write, self._sending, self._is_needed)

    async def open(self, host: str, port: int, client_id: int, timeout: float) -> bool:
        """Connect. False: the client id is in use. Raises GatewayUnavailable; closes itself unless it returns True."""
        endpoint = Endpoint(host, port)
        opening = self.dial(endpoint, client_id)
        await asyncio.wait({opening}, timeout=timeout)
        if opening.done():
            return opening.result()
        await self.give_up()
        raise endpoint.not_answered(timeout)

    def dial(self, endpoint: Endpoint, client_id: int) -> asyncio.Task[bool]:
        """Begin to connect. The task ends as `open` does, whenever that is; `version_agreed` is done on the way."""
        self._opening = asyncio.ensure_future(self._open(endpoint, client_id))
        return self._opening

    @property
    def is_open(self) -> bool:
        """Whether it is connected under its client id."""
        return not self._silent and not self.is_closed

    async def give_up(self) -> None:
        """Stop connecting, and close."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self.close()

    async def _open(self, endpoint: Endpoint, client_id: int) -> bool:
        connecting = asyncio.ensure_future(self.client.connectAsync(endpoint.host, endpoint.port, client_id, 0))
        happenings = {connecting, self._id_taken, self._rejected, self._socket_closed}
        try:
            await asyncio.wait(happenings, return_when=asyncio.FIRST_COMPLETED)
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
            raise endpoint.closed(self._why_closed)
        failure = connecting.exception()
        if isinstance(failure, OSError):
            raise endpoint.no_connection(failure)
        if failure is not None:
            raise endpoint.closed(str(failure) or repr(failure))

    def close(self) -> None:
        """Close the connection, silently. May be called at any time."""
        self._silent = self.is_closed = True
        self.outbox.close()
        self.client.disconnect()
        self._fail_questions("disconnected")

    def pause_reading(self) -> None:
        """Read no more for now; the kernel keeps what comes."""
        if self.client.conn.transport is not None:
            self.client.conn.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.client.conn.transport is not None:
            self.client.conn.transport.resume_reading()

    # ---- questions

    def expect(self, what: str) -> asyncio.Future[Any]:
        """A future for the one answer to a question without an id.

        An answer is for everybody who waits for one, but each may give up alone.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        waiting = self._expected[what]
        waiting.append(future)
        future.add_done_callback(waiting.remove)
        return future

    def expect_details(self, request: int) -> asyncio.Future[list[Any]]:
        """A future for the contracts that `request` asks for."""
        question = _DetailsQuestion([], self._loop.create_future(), self._loop.create_future())
        self._details[request] = question
        question.answer.add_done_callback(lambda _: self._details.pop(request, None))  # whoever asked may have given up
        return question.answer

    def sent(self, request: int) -> asyncio.Future[None]:
        """A future that is done once the expected question `request` is on its way."""
        return self._details[request].sent

    def now(self) -> float:
        """The event loop's time."""
        return self._loop.time()

    def is_expected(self, what: str) -> bool:
        """Whether somebody waits for that answer."""
        return bool(self._expected.get(what))

    def _answer(self, what: str, value: object) -> None:
        for future in self._expected.pop(what, []):
            if not future.done():
                future.set_result(value)

    def _fail_questions(self, why: str) -> None:
        futures: list[asyncio.Future[Any]] = [question.answer for question in self._details.values()]
        futures += itertools.chain.from_iterable(self._expected.values())
        self._details.clear()
        self._expected.clear()
        for future in futures:
            if not future.done():
                future.set_exception(GatewayUnavailable(f"the gateway went away: {why}"))
                future.exception()  # whoever asked may be gone

    # ---- what is sent

    def send(self, text: str) -> None:
        """A message of the client's, which goes out at the pace that the gateway allows."""
        message = Outgoing.of_text(text)
        if message.kind == DEPTH:
            self._depth.add(message.request)
        elif message.kind == CANCEL:
            self._depth.discard(message.request)
        self.outbox.put(message)

    def _sending(self, message: Outgoing, again: bool) -> None:
        if message.kind == DEPTH and again:
            self._sent_twice.add(message.request)
        question = self._details.get(message.request) if message.kind == DETAILS else None
        if question is not None and not question.sent.done():
            question.sent.set_result(None)

    def _is_needed(self, message: Outgoing) -> bool:
        """Whether a message that may be lost is to be sent again."""
        if message.kind == DEPTH:
            return message.request in self._depth and self._lacks_rows(message.request)
        if message.kind == START:
            return not self.client.isReady()
        return message.kind == CANCEL or self.is_expected(_EXPECTED.get(message.kind, ""))

    # ---- messages

    def take(self, message: bytes) -> None:
        """Deal with one whole message."""
        if message.startswith(_DEPTH) and self.client.isReady():
            if self._on_depth(message):
                return
            read = read_depth(message)
            if isinstance(read, tuple):
                self._on_row(*read)
            else:
                self._on_event(read)
            return
        self.client.decode(message)
        heard, self._heard = self._heard, []
        for event in heard:
            if isinstance(event, ConnectionLost):  # the gateway says so while the socket is open (504)
                self.broken(event.text)
            else:
                self._on_event(event)

    def unreadable(self, fields: list[str]) -> None:
        """A message that could not be decoded, or that no one knows."""
        self._heard.append(MessageUnreadable(tuple(fields[:12])))

    def broken(self, why: str) -> None:
        """The stream of bytes makes no sense any more: the connection is given up."""
        self._why_closed = why
        self.client.abort()

    # ---- what ib_insync's client and decoder call

    def error(self, reqId: int, errorCode: int, errorString: str, advancedOrderRejectJson: str) -> None:
        if errorCode == CLIENT_ID_IN_USE:
            if not self._id_taken.done():
                self._id_taken.set_result(None)
            return
        if errorCode == PACING:
            lowered = self.outbox.violated()
            self._heard.append(PacingViolation(errorString, self.outbox.rate if lowered else None))
            return
        if errorCode in REJECTION_CODES and not self.client.isReady():
            if not self._rejected.done():
                self._rejected.set_result((errorCode, errorString))
            return
        if errorCode == DUPLICATE_REQUEST and reqId in self._sent_twice:
            return  # the first one was not lost
        if reqId in self._details and not is_notice(errorCode):
            self._details_refused(self._details.pop(reqId), errorCode, errorString)
            if not is_about_the_session(errorCode):
                return
        self._depth.discard(reqId)
        if errorCode == READ_ONLY and self._expected.get("open orders"):
            self._answer("open orders", True)
            return
        event = event_of(reqId, errorCode, errorString)
        if isinstance(event, FarmStatus) and event.healthy:
            self.depth_exchanges = ()
        self._heard.append(event)

    @staticmethod
    def _details_refused(question: _DetailsQuestion, code: int, text: str) -> None:
        if question.answer.done():
            return
        if code == UNKNOWN_CONTRACT:
            question.answer.set_result(question.found)
        elif is_about_the_session(code) or says_nothing_of_a_contract(code):
            question.answer.set_exception(QuestionUnanswered(f"the gateway answers {code}: {text}"))
        else:
            question.answer.set_exception(GatewayError(f"the gateway answers {code}: {text}"))

    def contractDetails(self, reqId: int, details: Any) -> None:
        if reqId in self._details:
            self._details[reqId].found.append(details)

    def contractDetailsEnd(self, reqId: int) -> None:
        if reqId in self._details:
            question = self._details.pop(reqId)
            if not question.answer.done():
                question.answer.set_result(question.found)

    def mktDepthExchanges(self, descriptions: list[Any]) -> None:
        self.depth_exchanges = tuple(descriptions)
        self._answer("depth exchanges", descriptions)

    def currentTime(self, time: int) -> None:
        self._answer("time", time)

    def openOrderEnd(self) -> None:
        self._answer("open orders", False)

    def greeted(self, connection_time: str) -> None:
        """The gateway has answered the offer of versions; the client id is not sent yet."""
        self.connection_time = connection_time
        self._on_version(self)
        if not self.is_closed:
            self.version_agreed.set_result(None)

    def connectAck(self) -> None:
        """startApi is sent; the client goes on by itself."""

    def connectionClosed(self) -> None:
        """Follows setEventsDone, which has said all."""

    def setEventsDone(self) -> None:
        """The socket is gone, whoever closed it."""
        self.is_closed = True
        self.outbox.close()
        if not self._socket_closed.done():
            self._socket_closed.set_result(None)
        self._fail_questions("connection lost")
        if not self._silent:
            self._silent = True
            self._on_event(ConnectionLost(self._why_closed or "the connection was closed or broke"))


@dataclass(frozen=True, slots=True)
class _DetailsQuestion:
    """A question for contract details: what has come of the answer, the whole of it, and when the question is sent."""

    found: list[Any]
    answer: asyncio.Future[list[Any]]
    sent: asyncio.Future[None]


class _ReadOnlyClient(Client):
    """ib_insync's client, which can't send what ALLOWED_MESSAGES does not name, and leaves framing and pacing to us."""

    MaxRequests = 0
    """0 turns ib_insync's own throttle off, as it documents: that one sends 45 messages at once and then waits for a
    second, where IBKR may count any second."""

    def __init__(self, session: TwsSession) -> None:
        Client.__init__(self, session)
        self.decoder = _CountingDecoder(session)
        self.conn = _FramedConnection(session)
        self.conn.disconnected += self._onSocketDisconnected
        self._session = session
        self._connection_time = ""

    def send(self, *fields: Any, makeEmpty: bool = True) -> None:
        if fields[0] not in ALLOWED_MESSAGES:
            raise GatewayError(f"message type {fields[0]} is not one that this program may send")
        Client.send(self, *fields, makeEmpty=makeEmpty)

    def sendMsg(self, msg: str) -> None:
        """Called by ib_insync for each message but the handshake."""
        self._session.send(msg)

    def write(self, msg: str) -> None:
        """Put a message on the socket."""
        Client.sendMsg(self, msg)

    def startApi(self) -> None:
        """Send the client id, unless the session is closed over the versions."""
        self._session.greeted(self._connection_time)
        if not self._session.is_closed:
            Client.startApi(self)

    def decode(self, message: bytes) -> None:
        """Hand one whole message to ib_insync: the handshake's, or one for the decoder."""
        if not message:
            self._session.unreadable([])
            return
        if not self.serverVersion():
            self._read_versions(message)
        try:
            Client._onSocketHasData(self, struct.pack(">I", len(message)) + message)
        except Exception:  # before the client is ready it reads some messages itself
            raise GatewayProtocolError(f"not the greeting of a gateway: {message[:40]!r}") from None

    def _read_versions(self, message: bytes) -> None:
        version, _, rest = message.partition(b"\0")
        self._connection_time = rest.rstrip(b"\0").decode(errors="replace")
        if version.isdigit() and int(version) < self.MinClientVersion:
            oldest = f"{self.MinClientVersion}, the oldest that this client reads"
            self._session.broken(f"its protocol version {int(version)} is older than {oldest}: install a current one")

    def abort(self) -> None:
        """Cut the connection; whoever listens hears that it is gone."""
        if self.conn.transport is not None:
            self.conn.transport.abort()


class _FramedConnection(Connection, asyncio.BufferedProtocol):
    """ib_insync's socket, whose bytes go to the session as whole messages.

    ib_insync would send them through an event, which logs what its listeners raise and goes on: a fault of this
    program would lose rows in silence.
    """

    def __init__(self, session: TwsSession) -> None:
        Connection.__init__(self)
        self._session = session
        self._splitter = FrameSplitter()
        self._buffer = memoryview(bytearray(READ_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        session = self._session
        try:
            for message in self._splitter.split(data):
                session.take(message)
                if session.is_closed:
                    return
        except GatewayProtocolError as nonsense:
            session.broken(str(nonsense))


class _CountingDecoder(Decoder):
    """ib_insync's decoder, which hands on what it can't read instead of logging it."""

    def __init__(self, session: TwsSession) -> None:
        super().__init__(cast(Any, session), 0)
        self._session = session

    def wrap(self, methodName: str, types: list[type], skip: int = 2) -> Callable[[list[str]], None]:
        """As ib_insync's, which logs a traceback for each message that it can't read, and says nothing to anyone."""
        readers = [_READERS[kind] for kind in types]

        def handler(fields: list[str]) -> None:
            method = getattr(self.wrapper, methodName, None)
            if method is not None:
                method(*(read(text) for read, text in zip(readers, fields[skip:], strict=False)))

        return handler

    def interpret(self, fields: list[str]) -> None:
        try:
            self.handlers[int(fields[0])](fields)
        except Exception:  # ib_insync raises whatever comes, StopIteration too; of ours, only futures are set in here
            self._session.unreadable(fields)
