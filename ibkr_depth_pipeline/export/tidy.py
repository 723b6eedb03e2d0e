"""Books as a flat Arrow table: a row a snapshot, a column a value, named as in Databento's MBP-10. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ibkr_depth_pipeline.export.books import Books
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.price_levels import LevelArrays, level_columns

_LEVELS = LevelArrays(*(np.zeros((0, SNAPSHOT_LEVELS), kind) for kind in (float, float, np.int32)))
SCHEMA = pa.schema(
    [
        pa.field("ts", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("subscription", pa.int64()),
        pa.field("settled", pa.bool_(), nullable=False),
        pa.field("observed", pa.bool_(), nullable=False),
        *(pa.field(name, column.type) for name, column in level_columns({"bid": _LEVELS, "ask": _LEVELS})),
    ]
)
"""The three columns of a level that the book does not have are null. Where it was not recorded, so is subscription."""

RECEIVED = pa.field("ts_recv", pa.timestamp("ns", "UTC"), nullable=False)
"""The last column, if the time of receipt was recorded in nanoseconds."""


def tidy_table(books: Books, *, with_received: bool = False) -> Any:
    """The books in their order as a table of SCHEMA, with RECEIVED if asked for."""
    head = [
        pa.array(books.ts).cast(SCHEMA.field("ts").type),
        pa.array(books.seq),
        pa.array(books.subscription, mask=books.subscription == 0),
        pa.array(books.settled),
        pa.array(books.interval >= 0),
    ]
    levels = dict(level_columns({"bid": books.bids.levels, "ask": books.asks.levels}))
    table = pa.Table.from_arrays([*head, *levels.values()], schema=SCHEMA)
    if with_received:
        table = table.append_column(RECEIVED, pa.array(books.received).cast(RECEIVED.type))
    return table
