"""One subscription's book: rows in, two immutable sides out. Pure, and the reference for anything faster.

The rules are those of IBKR's own sample client: an insert shifts the rows at and below its position down, an update
replaces, a delete shifts up; a row pushed past the requested number of rows is dropped without a delete for it.
"""

from __future__ import annotations

from math import isfinite

from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Levels, RowFault, Side


class OrderBook:
    """The book of one depth request.

    rows is the number of rows a side that the gateway was asked for; venue stands in each row that names none.
    `bids` and `asks` are best first, at most `rows` long. Each change makes a new tuple and leaves the other side's
    alone, so a reader may keep a side, and may take the same object to mean the same content.
    """

    __slots__ = ("_rows", "_venue", "asks", "bids")

    def __init__(self, rows: int, venue: str) -> None:
        self._rows = rows
        self._venue = venue
        self.bids: Levels = ()
        self.asks: Levels = ()

    def apply(self, row: DepthRow) -> RowFault | None:
        """Apply one row. Returns None when it was, and otherwise the reason why the book is as it was before."""
        operation, side, position, price, size, venue = row
        levels = self.bids if side is Side.BID else self.asks
        fault = self._fault(row, len(levels))
        if fault is not None:
            return fault
        if operation is DepthOperation.DELETE:
            changed = levels[:position] + levels[position + 1 :]
        else:
            below = levels[position:] if operation is DepthOperation.INSERT else levels[position + 1 :]
            changed = (*levels[:position], (price, size, venue or self._venue), *below)[: self._rows]
        if side is Side.BID:
            self.bids = changed
        else:
            self.asks = changed
        return None

    def reset(self) -> None:
        """Empty both sides (error 317)."""
        self.bids = ()
        self.asks = ()

    @property
    def is_empty(self) -> bool:
        """Whether neither side holds a row."""
        return not self.bids and not self.asks

    def _fault(self, row: DepthRow, held: int) -> RowFault | None:
        operation, _, position, price, size, _ = row
        if position < 0:
            return RowFault.NEGATIVE_POSITION
        if not (isfinite(price) and isfinite(size)):
            return RowFault.NOT_FINITE
        if position >= self._rows:
            return RowFault.PAST_REQUESTED
        # An insert or update at the first empty row appends; a delete needs a row to take.
        if position > held or (position == held and operation is DepthOperation.DELETE):
            return RowFault.PAST_END
        return None
