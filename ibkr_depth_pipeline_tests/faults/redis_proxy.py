"""A way to a real Redis that delays, cuts and loses what goes over it, where a test says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from urllib.parse import urlsplit

HOST = "127.0.0.1"
_SNAPSHOT = b"\r\nXADD\r\n"
_BEGIN, _END = b"\r\nMULTI\r\n", b"\r\nEXEC\r\n"


def port_of(url: str) -> int:
    """The port in `url`."""
    return int(urlsplit(url).port or 6379)


class Fault(Enum):
    """What happens to the next block of snapshots, MULTI to EXEC or a lone XADD, and to its connection."""

    PASS = "carried out and answered"
    LOSE_REQUEST = "never arrives"
    CUT_REQUEST = "arrives in part"
    LOSE_REPLY = "is carried out, its answer is lost"
    ARRIVE_LATE = "arrives when the test says, long after its sender gave up"


_ENDINGS = (Fault.LOSE_REQUEST, Fault.CUT_REQUEST, Fault.ARRIVE_LATE)


@dataclass
class _Link:
    """Both ends of one connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    loses_replies: bool = False
    outlives_client: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)


class RedisProxy:
    """Passes everything on to the Redis at `port`, but for the `faults`, one for each coming block; then none.

    `delay` is in seconds and holds for each exchange. While it is `mute` everything is carried out, but each answer is
    lost, with its connection; `lost` counts them. While `heard` is not set answers wait; `held` counts those.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: set[asyncio.StreamWriter] = set()
        self._late: list[tuple[_Link, bytes]] = []
        self.faults: deque[Fault] = deque()
        self.met: list[Fault] = []
        self.delay = 0.0
        self.mute = False
        self.lost = 0
        self.heard = asyncio.Event()
        self.heard.set()
        self.held = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://{HOST}:{self._server.sockets[0].getsockname()[1]}/0"

    async def __aenter__(self) -> RedisProxy:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return self

    async def __aexit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._links:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._links), return_exceptions=True)

    @property
    def late(self) -> int:
        """How many blocks are late."""
        return len(self._late)

    async def deliver_late(self) -> int:
        """Let every block that is late arrive, and wait until Redis is done with it. Returns how many there were."""
        late, self._late = self._late, []
        for link, block in late:
            with contextlib.suppress(OSError):  # its connection was killed meanwhile
                link.server.write(block)
                link.server.write_eof()
            await link.over.wait()
        return len(late)

    # ---- the connections

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            answers, server = await asyncio.open_connection(HOST, self._upstream)
        except OSError:
            client.close()
            return
        link = _Link(client, server)
        self._links |= {client, server}
        for work in (self._requests(reader, link), self._replies(answers, link)):
            task = asyncio.ensure_future(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _requests(self, reader: asyncio.StreamReader, link: _Link) -> None:
        block = b""
        try:
            while data := await reader.read(1 << 16):
                await asyncio.sleep(self.delay)
                if self.faults and (block or _BEGIN in data or _SNAPSHOT in data):
                    block += data
                    if _END in block or _BEGIN not in block:  # what follows it in the same flush shares its fate
                        fault = self.faults.popleft()
                        await self._suffer(fault, block, link)
                        if fault in _ENDINGS:  # a connection never loses bytes and brings later ones
                            return
                        block = b""
                else:
                    link.server.write(data)
                    await link.server.drain()
        except OSError:
            pass
        finally:
            if not link.outlives_client:
                link.server.close()

    async def _suffer(self, fault: Fault, block: bytes, link: _Link) -> None:
        self.met.append(fault)
        if fault is Fault.ARRIVE_LATE:
            link.outlives_client = True
            self._late.append((link, block))
            link.client.close()
            return
        if fault is Fault.LOSE_REQUEST:
            link.client.close()
            return
        link.loses_replies = fault is Fault.LOSE_REPLY
        link.server.write(block[: len(block) * 2 // 3] if fault is Fault.CUT_REQUEST else block)
        await link.server.drain()
        if fault is Fault.CUT_REQUEST:
            link.client.close()

    async def _replies(self, answers: asyncio.StreamReader, link: _Link) -> None:
        try:
            while data := await answers.read(1 << 16):
                if link.loses_replies or self.mute:
                    self.lost += 1
                    break
                if not self.heard.is_set():
                    self.held += 1
                    await self.heard.wait()
                if not link.outlives_client:
                    link.client.write(data)
                    await link.client.drain()
        except OSError:
            pass
        finally:
            link.over.set()
            link.client.close()
