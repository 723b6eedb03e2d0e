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
from typing import Any, cast

from ib_insync.client import Client
from ib_insync.connection import Connection
from ib_insync.decoder import Decoder

from ibkr_depth_pipeline.errors import GatewayError, GatewayProtocolError, GatewayUnavailable
from ibkr_depth_pipeline.gateway.depth_messages import ROW, ROW_OF_MARKET_MAKER, read_depth
from ibkr_depth_pipeline.gateway.error_codes import CLIENT_ID_IN_USE, READ_ONLY, event_of
from ibkr_depth_pipeline.gateway.events import ConnectionLost, GatewayEvent, MessageUnreadable
from ibkr_depth_pipeline.gateway.framing import FrameSplitter
from ibkr_depth_pipeline.model import DepthRow

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

OnEvent = Callable[[GatewayEvent], None]
OnRow = Callable[[int, DepthRow], None]
OnDepth = Callable[[bytes], bool]
"""May take a depth message as it came. False: it did not, and the row is to be read and handed on."""


def hand_on(_message: bytes) -> bool:
    """An OnDepth that takes none."""
    return False


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
    here. `is_closed` says that nothing that still comes is of interest.
    """

    def __init__(self, on_event: OnEvent, on_row: OnRow, on_depth: OnDepth = hand_on) -> None:
        self._on_event = on_event
        self._on_row = on_row
        self._on_depth = on_depth
        self._details: dict[int, tuple[list[Any], asyncio.Future[list[Any]]]] = {}
        self._expected: defaultdict[str, list[asyncio.Future[Any]]] = defaultdict(list)
        self._heard: list[GatewayEvent] = []  # while ib_insync decodes a message
        self._loop = asyncio.get_running_loop()
        self._id_taken = self._loop.create_future()
        self._socket_closed = self._loop.create_future()
        self._silent = True  # until the connection stands, and after we closed it
        self.is_closed = False
        self._why_closed = ""
        self.client: Any = _ReadOnlyClient(self)

    async def open(self, host: str, port: int, client_id: int, timeout: float) -> bool:
        """Connect. False: the client id is in use. Raises GatewayUnavailable; closes itself unless it returns True."""
        opening = asyncio.ensure_future(self.client.connectAsync(host, port, client_id, 0))
        happenings = {opening, self._id_taken, self._socket_closed}
        try:
            await asyncio.wait(happenings, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._id_taken.done():
                return False
            why = self._why_not_open(opening, timeout)
            if why:
                raise GatewayUnavailable(f"{host}:{port}: {why}")
            self._silent = False
            return True
        finally:
            if self._silent:
                opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)
                self.close()

    def _why_not_open(self, opening: asyncio.Future[None], timeout: float) -> str:
        if self._socket_closed.done():
            return self._why_closed or "the gateway closed the connection before it was ready"
        if not opening.done():
            return f"no answer within {timeout:g} s"
        failure = opening.exception()
        return "" if failure is None else str(failure) or repr(failure)

    def close(self) -> None:
        """Close the connection, silently. May be called at any time."""
        self._silent = self.is_closed = True
        self.client.disconnect()
        self._fail_questions("disconnected")

    def rest(self) -> None:
        """Read no more for now; the kernel keeps what comes."""
        if self.client.conn.transport is not None:
            self.client.conn.transport.pause_reading()

    def go_on(self) -> None:
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
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._details[request] = ([], future)
        future.add_done_callback(lambda _: self._details.pop(request, None))  # whoever asked may have given up
        return future

    def _answer(self, what: str, value: object) -> None:
        for future in self._expected.pop(what, []):
            if not future.done():
                future.set_result(value)

    def _fail_questions(self, why: str) -> None:
        futures = [future for _, future in self._details.values()]
        futures += itertools.chain.from_iterable(self._expected.values())
        self._details.clear()
        self._expected.clear()
        for future in futures:
            if not future.done():
                future.set_exception(GatewayUnavailable(f"the gateway went away: {why}"))
                future.exception()  # whoever asked may be gone

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
        if reqId in self._details:
            found, future = self._details.pop(reqId)
            if not future.done() and errorCode == 200:
                future.set_result(found)
            elif not future.done():
                future.set_exception(GatewayError(f"the gateway answers {errorCode}: {errorString}"))
            return
        if errorCode == READ_ONLY and self._expected.get("open orders"):
            self._answer("open orders", True)
            return
        self._heard.append(event_of(reqId, errorCode, errorString))

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
        self.is_closed = True
        if not self._socket_closed.done():
            self._socket_closed.set_result(None)
        self._fail_questions("connection lost")
        if not self._silent:
            self._silent = True
            self._on_event(ConnectionLost(self._why_closed or "the connection was closed or broke"))


class _ReadOnlyClient(Client):
    """ib_insync's client, which can't send what ALLOWED_MESSAGES does not name, and leaves the framing to us."""

    def __init__(self, session: TwsSession) -> None:
        Client.__init__(self, session)
        self.decoder = _CountingDecoder(session)
        self.conn = _FramedConnection(session)
        self.conn.disconnected += self._onSocketDisconnected
        self._session = session

    def send(self, *fields: Any, makeEmpty: bool = True) -> None:
        if fields[0] not in ALLOWED_MESSAGES:
            raise GatewayError(f"message type {fields[0]} is not one that this program may send")
        Client.send(self, *fields, makeEmpty=makeEmpty)

    def decode(self, message: bytes) -> None:
        """Hand one whole message to ib_insync: the handshake's, or one for the decoder."""
        if not message:
            self._session.unreadable([])
            return
        try:
            Client._onSocketHasData(self, struct.pack(">I", len(message)) + message)
        except Exception:  # before the client is ready it reads some messages itself
            raise GatewayProtocolError(f"not the greeting of a gateway: {message[:40]!r}") from None

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
