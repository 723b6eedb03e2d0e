"""The event loop's side of a ring (tape/ring.py): takes what connections read and send, and hands it to the writer.

A read costs its stamp and an entry of a list. Twice a second, or when enough has gathered, the list goes to the
writer's thread, without what names the account (tape/redaction.py): where rows alone came, none is looked at. When a
segment is full or old, the next one begins with a checkpoint: the state of every connection and book at that moment,
which lies between two reads.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import time_ns
from typing import Any

import orjson

from ibkr_depth_pipeline.clock import loop_time
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.tape.messages import Way, framed
from ibkr_depth_pipeline.tape.redaction import SameLengthSanitizer, StreamRedactor, is_row
from ibkr_depth_pipeline.tape.ring import CHECKPOINT, HEAD_BOUND_BYTES, SEGMENTS, RingFiles
from ibkr_depth_pipeline.tape.ring_head import ConnectionHead
from ibkr_depth_pipeline.tape.ring_writer import MOST_QUEUED_BYTES, RingWriter
from ibkr_depth_pipeline.tape.scribe import EVENT, FRAME, frame

FLUSH_SECS = 0.5
"""How old the newest bytes on disk may be."""

CHUNK_BYTES = 1 << 18
RETRY_SECS = 30.0
"""From a failure to write to the next try."""

_GATEWAY, _CLIENT = (way.value.encode() for way in (Way.GATEWAY, Way.CLIENT))

LinesOf = Callable[[], Sequence[Mapping[str, Any]]]
"""The books of the live subscriptions, as a checkpoint has them: `request`, `symbol`, `seq`, `ts`, `trouble`, `bids`,
`asks`."""


class WireTrace:
    """One connection: what gateway/ib_client.py asks of a ConnectionListener."""

    def __init__(self, ring: WireRing, number: int, unfinished: Callable[[], bytes], key: bytes) -> None:
        self.head = ConnectionHead()
        self._redactor = StreamRedactor(key)
        self._ring = ring
        self._number = number
        self._unfinished = unfinished
        self._opened = time_ns()
        self._head_bytes = 0
        self.head_is_whole = True

    def received(self, data: bytes) -> None:
        ring = self._ring
        if ring.chunk_bytes >= ring.hand_over_at:
            ring.hand_over()  # of what came before, every message is known by now
        if ring.is_on:
            ring.chunk += (FRAME.pack(_GATEWAY, time_ns(), self._number, len(data)), data)
            ring.chunk_bytes += len(data)

    def sent(self, data: bytes) -> None:
        shown = self._redactor.sent(data)
        self._ring.put(_CLIENT, self._number, shown)
        if self.head.sent(shown):
            self._add_to_head(_CLIENT, shown)

    def came(self, message: bytes) -> None:
        shown = self._redactor.came(message, keep=self._ring.is_on)
        if self.head.came(message):
            self._add_to_head(_GATEWAY, framed(shown))

    def redact(self, chunk: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """What of the chunk may be kept, and what is to wait: the connection's unfinished message, if it is no row."""
        rest = self._unfinished()
        shown: list[bytes] = chunk
        waiting: list[bytes] = []
        if rest and not is_row(rest):
            shown, waiting = _split(chunk, self._number, len(rest))
            rest = b""
        if self._redactor.is_needed:
            shown = self.redact_all(shown)
        self._redactor.carry = rest
        return shown, waiting

    def redact_all(self, chunk: list[bytes]) -> list[bytes]:
        """The whole chunk as it may be kept; what no message is known of is blanked."""
        places = [at for at, _ in _reads(chunk, self._number)]
        shown = list(chunk)
        for at, data in zip(places, self._redactor.redacted([chunk[at] for at in places]), strict=True):
            shown[at] = data
        return shown

    def begin_again(self) -> list[bytes]:
        """Nothing of what was read so far is kept; returns what is to wait of it."""
        rest = self._unfinished()
        self._redactor.forget(rest if is_row(rest) else b"")
        if not rest or is_row(rest):
            return []
        return [FRAME.pack(_GATEWAY, time_ns(), self._number, len(rest)), rest]

    def closed(self, by: str) -> None:
        self._ring.ended(self._number, by)

    def _add_to_head(self, kind: bytes, data: bytes) -> None:
        framed_data = frame(kind, time_ns(), self._number, data)
        if self._head_bytes + len(framed_data) > HEAD_BOUND_BYTES or not self._ring.is_on:
            self.head_is_whole = False
        if self.head_is_whole:  # never a part behind a hole
            self._head_bytes += len(framed_data)
            self._ring.add_to_head(self._number, framed_data)

    def state(self) -> Mapping[str, Any]:
        """What a checkpoint has of the connection."""
        return {
            "opened": self._opened,
            "head": self._head_bytes,
            "head_is_whole": self.head_is_whole,
            "unfinished": base64.b64encode(self._redactor.carry).decode(),
            "requests": {str(request): text for request, text in self.head.requests.items()},
        }


class WireRing:
    """All connections of a run: what gateway/ib_client.py asks of a WireListener.

    `begin` it, then call `tick` every `period` seconds. lines() and requests() are the live books and their ids. While
    the disk fails or does not keep up nothing is kept, which is logged; then it starts again.
    """

    def __init__(
        self, files: RingFiles, bound: int, secs: float, lines: LinesOf, requests: Callable[[], set[int]]
    ) -> None:
        self.files = files
        self.writer = RingWriter()
        self.is_on = False
        self.chunk: list[bytes] = []  # of each frame its head and its data
        self.chunk_bytes = 0
        self._key = secrets.token_bytes(32)
        self.newest: WireTrace | None = None
        self.period = min(FLUSH_SECS, secs / SEGMENTS)
        self._segment_secs = secs / SEGMENTS
        self._segment_bound = bound // SEGMENTS
        self._chunk_bound = self.hand_over_at = min(CHUNK_BYTES, self._segment_bound // 2)
        self._segment_bytes = 0
        self._segment_began = 0.0
        self._turn_is_due = False
        self._lines = lines
        self._requests = requests
        self._numbers = 0
        self._traces: dict[int, WireTrace] = {}
        self._failed_at: float | None = None
        self._log = get_log()

    # ---- what connections call

    def opened(self, unfinished: Callable[[], bytes]) -> WireTrace:
        self._numbers += 1
        trace = self._traces[self._numbers] = self.newest = WireTrace(self, self._numbers, unfinished, self._key)
        self._event(self._numbers, {"name": "opened"})
        return trace

    def put(self, kind: bytes, connection: int, data: bytes) -> None:
        """Take bytes, or an event."""
        if self.is_on:
            self.chunk += (FRAME.pack(kind, time_ns(), connection, len(data)), data)
            self.chunk_bytes += len(data)

    def ended(self, connection: int, by: str) -> None:
        """The connection is closed."""
        self.chunk = self._traces.pop(connection).redact_all(self.chunk)
        self._event(connection, {"name": "closed", "by": by})
        self.hand_over()
        self.writer.put(partial(self.files.end, connection), always=True)

    def add_to_head(self, connection: int, frames: bytes) -> None:
        """Append to the head of a connection."""
        self.writer.put(partial(self.files.append_head, connection, frames), len(frames))

    def _event(self, connection: int, detail: Mapping[str, Any]) -> None:
        self.put(EVENT, connection, orjson.dumps(detail))

    # ---- segments

    def begin(self) -> None:
        """Start the thread and the ring."""
        self.writer.start()
        self._begin_segments(self.files.begin)
        self.is_on = True

    def tick(self) -> None:
        """Hand over what has come; begin a new segment if it is time; after a failure start again if it is time."""
        now = loop_time()
        if self.writer.failure is not None and self.is_on:
            self._fail(now, str(self.writer.failure))
        elif self._failed_at is not None:
            self._recover(now)
        self.hand_over()
        if self._segment_bytes and now - self._segment_began >= self._segment_secs:
            self._turn()

    def hand_over(self) -> None:
        """Give the writer what has come. Between two reads, or at the begin of one."""
        if not self.chunk:
            return
        data = self._packed()
        if self.writer.queued + len(data) > MOST_QUEUED_BYTES:
            self._fail(loop_time(), "the disk is too slow")
            return
        if data:
            self.writer.put(partial(self.files.append, data), len(data))
        self._segment_bytes += len(data)
        if self._segment_bytes >= self._segment_bound and not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)  # this may be at the begin of a read

    def _packed(self) -> bytes:
        """The frames of the chunk, which then has what is to wait."""
        chunk, waiting = self.chunk, []
        for trace in self._traces.values():
            chunk, waits = trace.redact(chunk)
            waiting += waits
        self._hold(waiting)
        return b"".join(chunk)

    def _hold(self, waiting: list[bytes]) -> None:
        self.chunk, self.chunk_bytes = waiting, sum(map(len, waiting))
        self.hand_over_at = self.chunk_bytes + self._chunk_bound

    def _turn(self) -> None:
        self.hand_over()
        self._turn_is_due = False
        if self.is_on:
            self._begin_segments(self.files.turn)

    def _begin_segments(self, begin: Callable[[bytes, float], None], *, always: bool = False) -> None:
        self._segment_bytes, self._segment_began = 0, loop_time()
        self.writer.put(partial(begin, self._checkpoint(), self._segment_began), always=always)

    def _checkpoint(self) -> bytes:
        requests = self._requests()
        for trace in self._traces.values():
            trace.head.keep(requests)
        connections = {str(number): trace.state() for number, trace in self._traces.items()}
        return frame(CHECKPOINT, time_ns(), 0, orjson.dumps({"connections": connections, "lines": self._lines()}))

    # ---- failures

    def _fail(self, now: float, why: str) -> None:
        if self._failed_at is None:
            self._log.warning(
                "flight_recorder_failed",
                error=why,
                folder=str(self.files.folder.parent),
                hint="recording goes on; the wire is not kept until that folder takes it (IBKR_FLIGHT_RECORDER_DIR)",
            )
        self._failed_at, self.is_on = now, False
        self._hold([])
        for trace in self._traces.values():
            trace.head_is_whole = False

    def _recover(self, now: float) -> None:
        if self.is_on:
            if self.writer.queued == 0 and now - self._segment_began >= self.period:
                self._failed_at = None
                self._log.info("flight_recorder_resumed")
        elif self._failed_at is not None and now - self._failed_at >= RETRY_SECS and self.writer.queued == 0:
            self.writer.failure = None
            self._hold([piece for trace in self._traces.values() for piece in trace.begin_again()])
            self._begin_segments(self.files.restart, always=True)
            self.is_on = True

    def cleaned(self, text: str) -> str:
        """A text of the gateway's as it may stand in the ring."""
        return SameLengthSanitizer(self._key).cleaned(text)

    async def close(self) -> None:
        """End the ring, and wait for that; nothing of it stays. Nothing to do if it did not begin."""
        if not self._segment_began:
            return
        self.is_on = False
        self.writer.put(self.files.remove, always=True)
        await self.writer.close()


def _reads(chunk: list[bytes], connection: int) -> Iterator[tuple[int, int]]:
    """Where the data of each read of the connection stands in a chunk, and when it was read (unix ns)."""
    for at in range(0, len(chunk), 2):
        kind, when, number, _ = FRAME.unpack(chunk[at])
        if kind == _GATEWAY and number == connection:
            yield at + 1, when


def _split(chunk: list[bytes], connection: int, waits: int) -> tuple[list[bytes], list[bytes]]:
    """The chunk without the last so many bytes that the connection has read, and these."""
    shown: list[bytes] = list(chunk)
    waiting: list[bytes] = []
    for at, when in reversed(list(_reads(chunk, connection))):
        data = chunk[at]
        cut = max(0, len(data) - waits)
        waits -= len(data) - cut
        waiting[:0] = FRAME.pack(_GATEWAY, when, connection, len(data) - cut), data[cut:]
        shown[at - 1 : at + 1] = [FRAME.pack(_GATEWAY, when, connection, cut), data[:cut]] if cut else []
        if not waits:
            break
    return shown, waiting
