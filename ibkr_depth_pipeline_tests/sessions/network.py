"""A network in memory: connections between named processes and services, in order, delayed, held back, cut.

A process is a name in the context of its tasks. What it sent before it died, or before its side of a connection was
cut, may still arrive, much later: as with TCP, whose bytes wait in buffers on the way.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable
from typing import Any

PROCESS: contextvars.ContextVar[str] = contextvars.ContextVar("process", default="")
"""Whose task this is."""

LATENCIES = (0.0001, 0.001, 0.005)
"""Seconds; each direction of a connection has one of them."""

CONNECT_SECS = 0.001

IN_ORDER_SECS = 1e-7
"""Between two arrivals at one side: the loop does not keep the order of timers that are due at the same time."""

_End = tuple[str, bytes]
DATA, EOF, RESET = "data", "eof", "reset"


class _Socket:
    """In place of the socket whose options are set."""

    def setsockopt(self, *option: object) -> None:
        """No option has an effect."""


class Endpoint(asyncio.Transport):
    """One side of a connection."""

    def __init__(self, network: Network, owner: str, latency: float) -> None:
        super().__init__({"socket": _Socket(), "peername": ("127.0.0.1", 0), "sockname": ("127.0.0.1", 0)})
        self.owner = owner
        self.peer: Endpoint = self
        self.held: list[_End] | None = None  # what this side sends while the way is closed
        self.hold_from: bytes | None = None  # the way closes with the first item that has this in it
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._latency = latency
        self._arrives = 0.0
        self._protocol: Any = None
        self._unread: deque[_End] = deque()
        self._reading = True
        self._closing = False
        self.is_lost = False

    # ---- what a protocol calls

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._read)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever buffered on this side."""

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._send((EOF, b""))

    def write(self, data: Any) -> None:
        if not self._closing and data:
            self._send((DATA, bytes(data)))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._send((EOF, b""))
            self._loop.call_soon(self.lose, None)

    def abort(self) -> None:
        if not self.is_lost:
            self._closing = True
            self._send((RESET, b""))
            self._loop.call_soon(self.lose, None)

    # ---- the way

    def _send(self, item: _End) -> None:
        if self._network.is_dead(self.owner):
            return
        if self.hold_from is not None and self.hold_from in item[1]:
            self.hold()
        if self.held is not None:
            self.held.append(item)
        else:
            self._carry(item)

    def _carry(self, item: _End) -> None:
        self._arrives = max(self._arrives + IN_ORDER_SECS, self._loop.time() + self._latency)
        self._loop.call_at(self._arrives, self.peer.arrive, item)

    def hold(self) -> None:
        """What is sent from now on waits."""
        self.held = self.held if self.held is not None else []

    def release(self) -> None:
        """What waits goes on its way."""
        items, self.held, self.hold_from = self.held or [], None, None
        for item in items:
            self._carry(item)

    def arrive(self, item: _End) -> None:
        """The other side's item is here."""
        self._unread.append(item)
        self._read()

    def _read(self) -> None:
        while self._unread and self._reading and not self.is_lost and not self._network.is_dead(self.owner):
            kind, data = self._unread.popleft()
            if kind == DATA:
                self._take(data)
            elif kind == RESET:
                self.lose(ConnectionResetError("reset by the other side"))
            elif not self._protocol.eof_received():
                self.close()

    def _take(self, data: bytes) -> None:
        if not isinstance(self._protocol, asyncio.BufferedProtocol):
            self._protocol.data_received(data)
            return
        while data and not self.is_lost:
            buffer = self._protocol.get_buffer(len(data))
            taken = min(len(buffer), len(data))
            memoryview(buffer)[:taken] = data[:taken]
            self._protocol.buffer_updated(taken)
            data = data[taken:]

    def lose(self, error: Exception | None) -> None:
        """The connection is over for this side."""
        if not self.is_lost:
            self.is_lost = self._closing = True
            self._protocol.connection_lost(error)


class Listener:
    """In place of asyncio.Server."""

    def __init__(self, network: Network, port: int, factory: Callable[[], Any]) -> None:
        self.sockets = [self]
        self._network, self._port = network, port
        network.services[port] = factory

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    def close(self) -> None:
        self._network.services.pop(self._port, None)


class Network:
    """All connections. Services are known by their port, processes by their name."""

    def __init__(self, seed: int) -> None:
        self.services: dict[int, Callable[[], Any]] = {}
        self._chance = random.Random(f"{seed} network")
        self._connections: list[tuple[str, int, Endpoint, Endpoint]] = []
        self._dead: set[str] = set()
        self._closed: set[tuple[str, int]] = set()
        self._opened = asyncio.Event()

    def is_dead(self, owner: str) -> bool:
        """Whether the process was killed."""
        return owner in self._dead

    async def connect(self, factory: Callable[[], Any], port: int) -> tuple[Endpoint, Any]:
        """In place of loop.create_connection."""
        owner = PROCESS.get()
        while self.is_dead(owner) or (owner, port) in self._closed:
            self._opened.clear()
            await self._opened.wait()
        await asyncio.sleep(CONNECT_SECS)
        if port not in self.services:
            raise ConnectionRefusedError(f"nothing listens on {port}")
        ours = Endpoint(self, owner, self._chance.choice(LATENCIES))
        theirs = Endpoint(self, f"port {port}", self._chance.choice(LATENCIES))
        ours.peer, theirs.peer = theirs, ours
        protocol, service = factory(), self.services[port]()
        self._connections = [known for known in self._connections if not (known[2].is_lost and known[3].is_lost)]
        self._connections.append((owner, port, ours, theirs))
        theirs.set_protocol(service)
        ours.set_protocol(protocol)
        service.connection_made(theirs)
        protocol.connection_made(ours)
        return ours, protocol

    def _of(self, owner: str, port: int | None = None) -> list[tuple[Endpoint, Endpoint]]:
        found = [(known[2], known[3]) for known in self._connections if known[0] == owner and port in (None, known[1])]
        return [(ours, theirs) for ours, theirs in found if not (ours.is_lost and theirs.is_lost)]

    # ---- faults

    def part(self, owner: str, port: int) -> None:
        """Nothing comes through between the two, either way, until `join`; connections stand."""
        self._closed.add((owner, port))
        for ours, theirs in self._of(owner, port):
            ours.hold()
            theirs.hold()

    def join(self, owner: str, port: int) -> None:
        """Ends `part`: what waited comes through."""
        self._closed.discard((owner, port))
        self._opened.set()
        for ours, theirs in self._of(owner, port):
            ours.release()
            theirs.release()

    def cut(self, owner: str, port: int, late: float) -> None:
        """The process loses its connections; what it has sent arrives `late` seconds later, then their end."""
        for ours, theirs in self._of(owner, port):
            theirs.hold()
            ours.hold()
            ours._send((RESET, b""))
            ours.lose(ConnectionResetError("cut"))
            asyncio.get_running_loop().call_later(late, ours.release)

    def hold_sending(self, owner: str, port: int, word: bytes) -> None:
        """What the process sends waits on its way, from the next item with that word on, until `cut` or `kill`."""
        for ours, _ in self._of(owner, port):
            ours.hold_from = word

    def kill(self, owner: str, late: float) -> None:
        """The process is dead. What it has sent arrives `late` seconds later, then the end of its connections."""
        for ours, _ in self._of(owner):
            ours.hold()
            ours._send((RESET, b""))
            asyncio.get_running_loop().call_later(late, ours.release)
        self._dead.add(owner)
