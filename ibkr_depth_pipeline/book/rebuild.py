"""Books from stored rows: what `raw:ibkr:depth:rows:SYMBOL`, or an archive of it, holds -> snapshots. Pure.

The rules are those of OrderBook, so that the books equal the stored snapshots, one for each row. A book begins empty,
where `subscription` changes. Rows whose begin is missing (the stream was trimmed, or some were lost) are passed over
until the next book begins or the gateway empties it: a book is never made up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from ibkr_depth_pipeline.book.order_book import OrderBook
from ibkr_depth_pipeline.model import DepthOperation, DepthRow, Levels, Side
from ibkr_depth_pipeline.schema.rows import RowOperation, StoredRow

_SIDES = {"bid": Side.BID, "ask": Side.ASK}
_OPERATIONS = {
    RowOperation.INSERT: DepthOperation.INSERT,
    RowOperation.UPDATE: DepthOperation.UPDATE,
    RowOperation.DELETE: DepthOperation.DELETE,
}


class RebuiltBook(NamedTuple):
    """The book after `row`: its sides as they are stored, best first, without empty rows."""

    row: StoredRow
    bids: Levels
    asks: Levels


def rebuild(
    rows: Iterable[StoredRow], *, requested: int = 15, shown: int = 10, starts: Collection[int] = ()
) -> Iterator[RebuiltBook]:
    """Yields the book after each row of one symbol, in order.

    requested: how many rows a side the gateway was asked for, shown: how many are stored (an interval's rows_requested
    and rows_stored). starts: the seqs at which books are known to begin (first_seq of the intervals), beside those that
    the rows themselves show.
    """
    book = OrderBook(requested, "")
    known, before = False, None
    for row in rows:
        follows = before is not None and row.seq == before.seq + 1
        begins = before is not None and row.subscription != before.subscription
        if (begins and follows) or row.seq == 1 or (row.seq in starts and (begins or before is None)):
            book, known = OrderBook(requested, ""), True
        elif not follows:
            known = False
        if row.operation is RowOperation.RESET:
            book.reset()
            known = True
        elif known:
            place = _SIDES[row.side], row.position
            known = book.apply(DepthRow(_OPERATIONS[row.operation], *place, row.price, row.size, row.mm)) is None
        before = row
        if known:
            yield RebuiltBook(row, book.bids[:shown], book.asks[:shown])
