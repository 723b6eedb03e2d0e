"""Rows of depth on their way into Redis, if they are kept: a stream beside the snapshots', under the same rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibkr_depth_pipeline.schema.encoding import ReceiveStamp
from ibkr_depth_pipeline.schema.keys import rows_stream
from ibkr_depth_pipeline.schema.rows import RowOperation, RowPacker, origin_fields
from ibkr_depth_pipeline.sink.backlog import SymbolQueue

if TYPE_CHECKING:
    from ibkr_depth_pipeline.sink.backlog import Backlog


class RowQueue(SymbolQueue):
    """What is still to be stored of one symbol's rows; no hash, heartbeat or interval follows from them.

    `row` and `reset` take a row each and never wait; ts and seq are those of the snapshot that it led to.
    """

    holds = "rows"

    def __init__(self, symbol: str, maxlen: int, stamp: ReceiveStamp, backlog: Backlog) -> None:
        self._rows = RowPacker(rows_stream(symbol), maxlen)
        super().__init__(symbol, self._rows, maxlen, backlog)
        self._stamp = stamp
        self._origin: tuple[bytes, int, bytes] = (b"", 0, b"")

    def row(
        self, ts: int, seq: int, subscription: int, operation: RowOperation, place: tuple[bool, int], text: bytes
    ) -> None:
        """Take a row; place: whether it is a bid, and its position; text: its level as JSON."""
        self._take(self._rows.pack_row(ts, seq, self._origin_of(subscription), operation, place, text))

    def reset(self, ts: int, seq: int, subscription: int) -> None:
        """Take note that the gateway emptied the book."""
        self._take(self._rows.pack_reset(ts, seq, self._origin_of(subscription)))

    def _origin_of(self, subscription: int) -> bytes:
        received, of, origin = self._origin
        if received is not self._stamp.field or of != subscription:
            origin = origin_fields(self._stamp.field, subscription)
            self._origin = self._stamp.field, subscription, origin
        return origin

    def _take(self, entry: bytes) -> None:
        if not self.waiting:
            self._backlog.has_work(self)
        self.waiting.append(entry)
        self._backlog.grown(len(entry))

    def is_stored(self, entries: list[bytes]) -> None:
        """These are in the stream."""
        self.on_its_way = False
        self._backlog.released(entries)
