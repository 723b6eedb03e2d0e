"""ib_insync's protocol client with its socket and decoder replaced: the only use of what ib_insync does not document.

docs/architecture.md, "What libraries do not document", has the reasons; test_undocumented.py fails if ib_insync changes
what is used here. The client frames what is sent and decodes what is not market depth; pace and framing are ours.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Protocol, cast

import ibkr_depth_pipeline.gateway.without_numpy  # noqa: F401 - before ib_insync

# isort: split
from ib_insync.client import Client
from ib_insync.connection import Connection
from ib_insync.contract import Contract as Contract
from ib_insync.decoder import Decoder

from ibkr_depth_pipeline.errors import GatewayError, GatewayProtocolError
from ibkr_depth_pipeline.gateway.wire import FrameSplitter

ALLOWED_MESSAGES = {
    5: "reqOpenOrders",  # sent by the operator's check with --orders, to learn whether the gateway is read-only
    9: "reqContractDetails",
    10: "reqMktDepth",
    11: "cancelMktDepth",
    49: "reqCurrentTime",
    71: "startApi",
    82: "reqMktDepthExchanges",
}
"""Message types that this program may send. All others, orders above all, are refused before they are sent."""

READ_BYTES = 1 << 13
"""Most bytes of one read: some 160 rows, a millisecond's work. asyncio's own 256 KiB would delay Redis' next flush, and
all else in the event loop, 32 times as long."""

_FIELD_PARSERS: dict[type, Callable[[str], Any]] = {
    str: str,
    int: lambda text: int(text or 0),
    float: lambda text: float(text or 0),
    bool: lambda text: bool(int(text or 0)),
}


class ClientOwner(Protocol):
    """What the client calls of its session, besides the methods that ib_insync's decoder finds by name."""

    is_closed: bool

    def send(self, text: str) -> None:
        """Takes a message that the client has written; it calls `IbClient.write` when its turn has come."""

    def on_versions(self, connection_time: str) -> None:
        """The gateway has agreed on a version; startApi is sent next, unless this closes the session."""

    def on_read(self) -> None:
        """The socket was read; the messages that this completes follow."""

    def on_read_end(self) -> None:
        """All messages of that read have come."""

    def on_message(self, message: bytes) -> None:
        """Takes one whole message."""

    def on_unreadable(self, fields: list[str]) -> None:
        """Takes a message that could not be decoded."""

    def abort(self, reason: str) -> None:
        """Closes the connection: the stream of bytes makes no sense."""


class ConnectionListener(Protocol):
    """What a connection passes on of its wire. It is called before the bytes are processed, and must not wait."""

    def received(self, data: bytes) -> None:
        """Takes what one read of the socket brought."""

    def sent(self, data: bytes) -> None:
        """Takes what is written to the socket: whole messages, with their lengths."""

    def came(self, message: bytes) -> None:
        """Takes a whole message that is no row, without its length; `received` has had its bytes."""

    def closed(self, by: str) -> None:
        """The connection is gone; by: `client` or `gateway`."""


class WireListener(Protocol):
    """What every connection reports itself to."""

    def opened(self, unfinished: Callable[[], bytes]) -> ConnectionListener:
        """A TCP connection stands; unfinished() are the bytes received of a message that is not complete yet."""


class IbClient(Client):
    """ib_insync's client, restricted to ALLOWED_MESSAGES; framing and pacing are its owner's.

    wire: what is to get a copy of all that is sent and received, if anything is.
    """

    MaxRequests = 0
    """0 turns ib_insync's own throttle off, as it documents: it sends 45 messages at once and then waits for a second,
    whereas IBKR may count any second."""

    def __init__(self, owner: ClientOwner, wire: WireListener | None = None) -> None:
        Client.__init__(self, owner)
        self.decoder = _LenientDecoder(owner)
        self.conn: _FramedConnection = _FramedConnection(owner, wire)
        self.conn.disconnected += self._onSocketDisconnected
        self._owner = owner
        self._connection_time = ""

    def send(self, *fields: Any, makeEmpty: bool = True) -> None:
        """Overrides ib_insync's. Raises GatewayError for a message type that is not allowed."""
        if fields[0] not in ALLOWED_MESSAGES:
            raise GatewayError(f"message type {fields[0]} is not one that this program may send")
        Client.send(self, *fields, makeEmpty=makeEmpty)

    def sendMsg(self, msg: str) -> None:
        """Overrides ib_insync's, which calls it for each message but the handshake."""
        self._owner.send(msg)

    def write(self, msg: str) -> None:
        """Writes a message to the socket."""
        Client.sendMsg(self, msg)

    def startApi(self) -> None:
        """Sends the client id, unless the session is closed once the versions are agreed."""
        self._owner.on_versions(self._connection_time)
        if not self._owner.is_closed:
            Client.startApi(self)

    def decode(self, message: bytes) -> None:
        """Passes one whole message to ib_insync: the handshake's, or one for the decoder."""
        if self.conn.listener is not None:
            self.conn.listener.came(message)
        if not message:
            self._owner.on_unreadable([])
            return
        if not self.serverVersion():
            self._read_versions(message)
        try:
            Client._onSocketHasData(self, struct.pack(">I", len(message)) + message)
        except Exception:  # before it is ready, the client reads some messages itself
            raise GatewayProtocolError(f"not the greeting of a gateway: {message[:40]!r}") from None

    def _read_versions(self, message: bytes) -> None:
        version, _, rest = message.partition(b"\0")
        self._connection_time = rest.rstrip(b"\0").decode(errors="replace")
        if version.isdigit() and int(version) < self.MinClientVersion:
            oldest = f"{self.MinClientVersion}, the oldest that this client reads"
            self._owner.abort(f"its protocol version {int(version)} is older than {oldest}: install a current one")

    def abort(self) -> None:
        """Cuts the connection; its loss is reported as any other."""
        self.conn.abort()

    def pause_reading(self) -> None:
        """Leaves what comes with the kernel."""
        if self.conn.transport is not None:
            self.conn.transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads on after `pause_reading`."""
        if self.conn.transport is not None:
            self.conn.transport.resume_reading()


class _FramedConnection(Connection, asyncio.BufferedProtocol):
    """ib_insync's socket, whose bytes go to the owner as whole messages.

    ib_insync passes them through an event, which logs what its listeners raise and goes on: a fault of this program
    would lose rows without an error.
    """

    def __init__(self, owner: ClientOwner, wire: WireListener | None) -> None:
        Connection.__init__(self)
        self._owner = owner
        self._splitter = FrameSplitter()
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._wire = wire
        self._closes = False
        self.listener: ConnectionListener | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._wire is not None:
            self.listener = self._wire.opened(self._splitter.unfinished)

    def sendMsg(self, msg: bytes) -> None:
        if self.listener is not None and self.transport is not None:
            self.listener.sent(msg)
        Connection.sendMsg(self, msg)

    def disconnect(self) -> None:
        self._closes = True
        Connection.disconnect(self)

    def abort(self) -> None:
        """Cuts the connection."""
        self._closes = True
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.listener is not None:
            self.listener.closed("client" if self._closes else "gateway")
        Connection.connection_lost(self, exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        owner = self._owner
        if self.listener is not None:
            self.listener.received(data)
        owner.on_read()
        try:
            message = self._splitter.whole(data)
            if message is not None:
                owner.on_message(message)
                return
            for message in self._splitter.split(data):
                owner.on_message(message)
                if owner.is_closed:
                    return
        except GatewayProtocolError as error:
            owner.abort(str(error))
        finally:
            owner.on_read_end()


class _LenientDecoder(Decoder):
    """ib_insync's decoder, which reports what it can't read to the owner instead of logging a traceback for each."""

    def __init__(self, owner: ClientOwner) -> None:
        super().__init__(cast(Any, owner), 0)
        self._owner = owner

    def wrap(self, methodName: str, types: list[type], skip: int = 2) -> Callable[[list[str]], None]:
        """As ib_insync's, without its handling of errors."""
        parsers = [_FIELD_PARSERS[kind] for kind in types]

        def handler(fields: list[str]) -> None:
            method = getattr(self.wrapper, methodName, None)
            if method is not None:
                method(*(parse(text) for parse, text in zip(parsers, fields[skip:], strict=False)))

        return handler

    def interpret(self, fields: list[str]) -> None:
        try:
            self.handlers[int(fields[0])](fields)
        except Exception:  # ib_insync raises anything, StopIteration too; of ours, only futures are set in here
            self._owner.on_unreadable(fields)
