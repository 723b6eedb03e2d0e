"""The tap: a proxy between API clients and a gateway that forwards first and has a process of its own record behind.

What a client sends is forwarded message by message, so that an order can be kept back; what a gateway sends, as it was
read. Bytes that the recording process does not take in time are left out of the tape, counted, and never waited for.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson

from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.tape.messages import (
    PREAMBLE,
    MessageSplitter,
    NotTheProtocol,
    Way,
    framed,
    message_of,
    type_of,
    version_of,
)
from ibkr_depth_pipeline.tape.scribe import EVENT, FLUSH, frame

ORDERS = {
    3: "placeOrder",
    4: "cancelOrder",
    19: "replaceFA",
    21: "exerciseOptions",
    58: "reqGlobalCancel",
}
"""Messages that place, change or cancel something (ibapi, message.py)."""

_ID_OF_ORDER = {3: 1, 4: 2, 21: 2}
_LAST_TEXT_ERROR = 193
"""The last server version whose error message has the form that `_refusal` writes."""

_REFUSED = "The tap refuses to forward orders; start it with --allow-orders if it is to"
_ORDER_REJECTED = 201
_OFFER = re.compile(rb"v(\d+)\.\.(\d+)")
_UNWRITTEN_BYTES = 64 << 20
_FLUSH_SECS = 1.0
_FAREWELL_SECS = 10.0


@dataclass(frozen=True, slots=True)
class TapOptions:
    """The two addresses of the tap, and what becomes of the tape. Sizes are bytes.

    newest_version: the newest version of the protocol that a client's offer may have; None: any.
    """

    to_host: str
    to_port: int
    host: str
    port: int
    stem: Path
    part_bytes: int
    parts: int
    allow_orders: bool
    made_by: str
    newest_version: int | None = None


class TapeRecording:
    """The process that writes the tape. `put` never waits."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._pipe = cast(asyncio.StreamWriter, process.stdin)
        self._missed: dict[int, int] = {}
        self._is_flushed = True
        self._log = get_log()

    @classmethod
    async def start(cls, options: TapOptions) -> TapeRecording:
        """Starts it. Raises OSError if that can't be done."""
        module = "ibkr_depth_pipeline.tape.scribe"
        words = (str(options.stem), str(options.part_bytes), str(options.parts), options.made_by)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *words), stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        return cls(process)

    def put(self, kind: bytes, at: int, connection: int, data: bytes) -> None:
        """Records what was read at unix nanosecond `at`, or an event of then."""
        transport = self._pipe.transport
        if transport.is_closing() or transport.get_write_buffer_size() + len(data) > _UNWRITTEN_BYTES:
            self._missed[connection] = self._missed.get(connection, 0) + len(data)
            return
        if self._missed:
            for number, count in self._missed.items():
                self._pipe.write(frame(EVENT, at, number, orjson.dumps({"name": "missed", "bytes": count})))
            self._missed.clear()
        self._pipe.write(frame(kind, at, connection, data))
        self._is_flushed = False

    def event(self, connection: int, name: str, **detail: Any) -> None:
        """Records an event."""
        self.put(EVENT, time.time_ns(), connection, orjson.dumps({"name": name, **detail}))

    async def watch(self) -> None:
        """Has the tape flushed once a second; logs the end of the process. Runs until cancelled."""
        while self._process.returncode is None:
            await asyncio.wait({ended := asyncio.ensure_future(self._process.wait())}, timeout=_FLUSH_SECS)
            ended.cancel()
            if not self._is_flushed:
                self.put(FLUSH, 0, 0, b"")
                self._is_flushed = True
        self._log.error("tape_ended", returncode=self._process.returncode, hint="bytes are forwarded, not recorded")

    async def close(self) -> bool:
        """Waits until all is written. Returns whether it was."""
        self._pipe.close()
        try:
            return await asyncio.wait_for(self._process.wait(), _FAREWELL_SECS) == 0
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()
            return False


class Tap:
    """Listens until `close`. One connection to the gateway for each of a client's."""

    def __init__(self, options: TapOptions, recording: TapeRecording) -> None:
        self.options = options
        self.recording = recording
        self.links: set[_Link] = set()
        self._numbers = itertools.count(1)
        self._server: asyncio.Server | None = None

    async def listen(self) -> int:
        """Returns the port. Raises OSError if it can't be had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Link(self, next(self._numbers)).client, self.options.host, self.options.port
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Closes every connection."""
        if self._server is not None:
            self._server.close()
        for link in tuple(self.links):
            link.close("tap")
        await asyncio.sleep(0)  # the transports report their ends


class _Side(asyncio.Protocol):
    """One socket of a link. What comes goes to `received`; reading pauses while the other side's buffer is full."""

    def __init__(self, received: Callable[[bytes], None], made: Callable[[], None], ended: Callable[[], None]) -> None:
        self._received = received
        self._made = made
        self._ended = ended
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._made()

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._ended()

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class _Link:
    """A client's connection and its own one to the gateway."""

    def __init__(self, tap: Tap, number: int) -> None:
        self._tap = tap
        self._number = number
        self._recording = tap.recording
        self._splitter = MessageSplitter(Way.CLIENT)
        self._greeting: MessageSplitter | None = MessageSplitter(Way.GATEWAY)
        self._version = 0
        self._sent_messages = 0
        self._before_gateway: list[bytes] = []
        self._is_closed = False
        self._opening: asyncio.Task[None] | None = None
        self._log = get_log().bind(connection=number)
        self.client = _Side(self._from_client, self._opened, lambda: self.close("client"))
        self._gateway = _Side(self._from_gateway, lambda: None, lambda: self.close("gateway"))
        self.client.other, self._gateway.other = self._gateway, self.client

    def _opened(self) -> None:
        self._tap.links.add(self)
        self._recording.event(self._number, "opened")
        self._log.info("tap_connection_opened")
        self._opening = asyncio.ensure_future(self._open_gateway())

    async def _open_gateway(self) -> None:
        options = self._tap.options
        try:
            await asyncio.get_running_loop().create_connection(lambda: self._gateway, options.to_host, options.to_port)
        except OSError as problem:
            self._log.error("tap_gateway_unreachable", host=options.to_host, port=options.to_port, error=str(problem))
            self.close("gateway")
            return
        if self._is_closed:
            self._gateway.close()
            return
        waiting, self._before_gateway = self._before_gateway, []
        for data in waiting:
            self._gateway.write(data)

    def _from_client(self, data: bytes) -> None:
        at = time.time_ns()
        try:
            forwarded = b"".join(map(self._forwarded, self._splitter.split(data)))
        except NotTheProtocol as problem:
            self._log.error("tap_client_refused", error=str(problem))
            self.close("tap")
            return
        if self._gateway.transport is not None:
            self._gateway.write(forwarded)
        elif forwarded:
            self._before_gateway.append(forwarded)
        self._recording.put(Way.CLIENT.value.encode(), at, self._number, data)

    def _forwarded(self, message: bytes) -> bytes:
        self._sent_messages += 1
        if message != PREAMBLE and self._sent_messages == 2:
            return framed(self._offer(message))
        return framed(message) if message == PREAMBLE or self._may_pass(message) else b""

    def _offer(self, message: bytes) -> bytes:
        """The client's offer of versions (`v100..226`), up to the newest one that the options allow."""
        newest, offer = self._tap.options.newest_version, _OFFER.match(message)
        if newest is None or offer is None or int(offer[2]) <= newest:
            return message
        if int(offer[1]) > newest:
            self._log.warning("tap_offer_is_newer", offer=offer[0].decode(), newest_version=newest)
            return message
        return message[: offer.start(2)] + str(newest).encode() + message[offer.end(2) :]

    def _may_pass(self, message: bytes) -> bool:
        if self._tap.options.allow_orders:
            return True
        kind = type_of(message, self._version)
        if kind not in ORDERS:
            return True
        self._log.warning("tap_order_refused", message=ORDERS[kind], hint=_REFUSED)
        self._recording.event(self._number, "refused", type=kind)
        self._answer_refused(kind, message)
        return False

    def _answer_refused(self, kind: int, message: bytes) -> None:
        """The client gets the error that a gateway sends for an order that it rejects."""
        at = _ID_OF_ORDER.get(kind)
        fields = message.decode(errors="replace").split("\0")
        if at is not None and at < len(fields) and 0 < self._version <= _LAST_TEXT_ERROR:
            self.client.write(framed(message_of(["4", "2", fields[at], str(_ORDER_REJECTED), _REFUSED, ""])))

    def _from_gateway(self, data: bytes) -> None:
        at = time.time_ns()
        self.client.write(data)
        if self._greeting is not None:
            self._read_version(self._greeting, data)
        self._recording.put(Way.GATEWAY.value.encode(), at, self._number, data)

    def _read_version(self, splitter: MessageSplitter, data: bytes) -> None:
        try:
            greeting = next(splitter.split(data), None)
        except NotTheProtocol:
            greeting = b""
        if greeting is not None:
            self._version, self._greeting = version_of(greeting), None

    def close(self, by: str) -> None:
        """Ends both sides; what was received is still sent."""
        if self._is_closed:
            return
        self._is_closed = True
        self.client.close()
        self._gateway.close()
        self._tap.links.discard(self)
        self._recording.event(self._number, "closed", by=by)
        self._log.info("tap_connection_closed", by=by)
