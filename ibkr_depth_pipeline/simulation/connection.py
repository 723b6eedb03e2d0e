"""One client of the simulated gateway: its socket (what is sent, when, in what pieces) and the session on it."""

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ibkr_depth_pipeline.simulation.distortions import UNREADABLE_ROWS, SpoiledRow
from ibkr_depth_pipeline.simulation.journal import Entry, Journal
from ibkr_depth_pipeline.simulation.replies import Send, Subscription
from ibkr_depth_pipeline.simulation.rows import WireRow
from ibkr_depth_pipeline.simulation.session import Session

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ConnectionEvents(Protocol):
    """Callbacks of a connection."""

    def opened(self, connection: "Connection") -> None: ...

    def received(self, connection: "Connection", data: bytes) -> None: ...

    def lost(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """An ordered outbox in front of a socket. What is sent leaves after the latency, and not while stalled."""

    def __init__(self, events: ConnectionEvents, number: int, latency: float, largest_backlog: int) -> None:
        self.number = number
        self.latency = latency
        self.dribbling = False
        """While set, every byte is written by itself."""
        self._events = events
        self._largest_backlog = largest_backlog
        self._outbox: deque[tuple[float, bytes]] = deque()
        self._queued = 0
        self._stalled = False
        self._closing = False
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._transport: asyncio.Transport | None = None
        self._uncongested = asyncio.Event()
        self._uncongested.set()

    # --- asyncio's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=self._largest_backlog // 2, low=self._largest_backlog // 8)
        self._events.opened(self)

    def data_received(self, data: bytes) -> None:
        self._events.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._drop_outbox()
        self._events.lost(self)

    def pause_writing(self) -> None:
        self._note_congestion()

    def resume_writing(self) -> None:
        self._note_congestion()

    # --- the gateway's side --------------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether it is stalled or has too much unsent."""
        return self._stalled or self._backlog() > self._largest_backlog // 2

    async def drained(self) -> None:
        """Returns when it is no longer congested, or gone."""
        self._note_congestion()
        await self._uncongested.wait()

    def send(self, data: bytes) -> None:
        """Queues the bytes. On a connection that is gone or closing they are dropped."""
        if self._transport is None or self._closing:
            return
        if self.latency == 0 and not self._outbox and not self._stalled and not self.dribbling:
            self._transport.write(data)
            return
        self._outbox.append((asyncio.get_running_loop().time() + self.latency, data))
        self._queued += len(data)
        self._pump()

    def stall(self) -> None:
        """Nothing more leaves until `resume`; the socket stays open and what is sent queues up."""
        self._stalled = True
        self._note_congestion()

    def resume(self) -> None:
        self._stalled = False
        self._pump()

    def close(self) -> None:
        """Closes cleanly once everything queued has left."""
        self._closing = True
        if not self._outbox and self._transport is not None:
            self._transport.close()

    def reset_after_sending(self) -> None:
        """Cuts the connection with a TCP reset once everything queued has left."""
        if self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.close()

    def close_now(self) -> None:
        """Closes cleanly (a FIN); what is queued behind a latency or a stall is lost."""
        self._drop_outbox()
        self.close()

    def reset(self) -> None:
        """Cuts the connection with a TCP reset; what is unsent is lost."""
        if self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()

    def _pump(self) -> None:
        """Writes what is due; comes back for the rest."""
        if self._timer is not None or self._stalled or self._transport is None:
            return
        loop = asyncio.get_running_loop()
        while self._outbox and self._outbox[0][0] <= loop.time():
            due, data = self._outbox.popleft()
            if self.dribbling and len(data) > 1:
                self._outbox.appendleft((due, data[1:]))
                data = data[:1]
            self._queued -= len(data)
            self._transport.write(data)
            if self.dribbling:
                break
        self._note_congestion()
        if self._outbox:
            self._come_back(loop, self._outbox[0][0])
        elif self._closing:
            self._transport.close()

    def _come_back(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        def again() -> None:
            self._timer = None
            self._pump()

        wait: Callable[..., asyncio.Handle] = loop.call_soon if due <= loop.time() else lambda f: loop.call_at(due, f)
        self._timer = wait(again)

    def _drop_outbox(self) -> None:
        self._outbox.clear()
        self._queued = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._note_congestion()

    def _backlog(self) -> int:
        return self._queued + (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    def _note_congestion(self) -> None:
        if self.congested and self._transport is not None:
            self._uncongested.clear()
        else:
            self._uncongested.set()


# ---- the client on it


class Client:
    """One connection with its session: a feed's outlet."""

    def __init__(self, connection: Connection, session: Session, journal: Journal) -> None:
        self.connection = connection
        self.session = session
        self.number = connection.number
        self._journal = journal

    @property
    def congested(self) -> bool:
        return self.connection.congested

    async def drained(self) -> None:
        await self.connection.drained()

    def send_rows(self, subscription: Subscription, rows: list[WireRow]) -> None:
        at = time.time()  # before anybody can have received them
        self.connection.send(self.session.rows(subscription, rows))
        self._journal.add_rows(at, self.number, subscription.listing.name, subscription.request_id, rows)

    def send_spoiled_row(self, subscription: Subscription, spoiled: SpoiledRow) -> None:
        """A row of the book with fields that cannot be read; the journal has it as `raw_row`."""
        fields = {**spoiled.row.texts(), **UNREADABLE_ROWS[spoiled.how]}
        named = subscription.venue.names_market_makers or "market_maker" in UNREADABLE_ROWS[spoiled.how]
        self.connection.send(self.session.raw_row(subscription, fields, named))
        detail = {"request_id": subscription.request_id, "kind_of_row": spoiled.how, **fields}
        self._journal.add(Entry(time.time(), self.number, "raw_row", subscription.listing.name, detail))

    def send(self, command: Send) -> None:
        """Sends a message and journals it: errors as `error`, everything else as `reply`."""
        self.connection.send(command.data)
        kind = "error" if command.name == "error" else "reply"
        name = str(command.detail["code"]) if kind == "error" else command.name
        self._journal.add(Entry(time.time(), self.number, kind, name, command.detail))
