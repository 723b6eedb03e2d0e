"""Bytes of the TWS socket -> whole messages: a 4-byte big-endian length, then that many bytes. Pure.

ib_insync's own splitting copies the rest of its buffer for every message, buffers whatever length a broken frame
announces, and trips over an empty frame. This one copies each byte at most twice and knows a largest message.
"""

from __future__ import annotations

from collections.abc import Iterator

from ibkr_depth_pipeline.errors import GatewayProtocolError

PREFIX_BYTES = 4

LARGEST_MESSAGE_BYTES = 0xFFFFFF
"""The largest message that IBKR's own client takes (ibapi, common.py: MAX_MSG_LEN)."""


class FrameSplitter:
    """One connection's splitter. Holds at most one unfinished message."""

    def __init__(self, largest: int = LARGEST_MESSAGE_BYTES) -> None:
        self._largest = largest
        self._pending = bytearray()
        self._needed = PREFIX_BYTES  # so many pending bytes make it worth looking again

    @property
    def pending(self) -> int:
        """Bytes of the unfinished message that have come."""
        return len(self._pending)

    def split(self, data: bytes) -> Iterator[bytes]:
        """The messages that `data` completes, without their prefixes, in order. Take all of them before the next call.

        Raises GatewayProtocolError, after the messages before it, for one that is longer than allowed: the stream
        is beyond repair then, and the splitter must not be used again.
        """
        if self._pending:
            self._pending += data
            if len(self._pending) < self._needed:
                return
            data = bytes(self._pending)
            self._pending.clear()
        start, end = 0, len(data)
        self._needed = PREFIX_BYTES
        while end - start >= PREFIX_BYTES:
            body = start + PREFIX_BYTES
            stop = body + int.from_bytes(data[start:body], "big")
            if stop - body > self._largest:
                raise GatewayProtocolError(f"a message of {stop - body} bytes; at most {self._largest} are taken")
            if stop > end:
                self._needed = stop - start
                break
            yield data[body:stop]
            start = stop
        self._pending += data[start:]
