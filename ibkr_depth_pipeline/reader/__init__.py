"""Read what is recorded: the newest books, live streams, ranges as frames. docs/reader.md shows how.

Nothing here knows of Dagster, of the gateway or of the settings; redis-py and the libraries for frames are imported
when they are first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ibkr_depth_pipeline.errors import (
    ArchiveUnavailable,
    NothingRecorded,
    SchemaMismatch,
    SinkUnavailable,
    UnknownSymbol,
)
from ibkr_depth_pipeline.reader.model import (
    NOW,
    After,
    AfterId,
    At,
    IntervalEnded,
    IntervalItem,
    IntervalStarted,
    Item,
    Now,
)
from ibkr_depth_pipeline.reader.readers import AsyncDepthReader, AsyncFollowing, DepthReader, SyncFollowing
from ibkr_depth_pipeline.reader.turns import NewTurns
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot, Heartbeat, Level, PriceLevel, PriceLevels, VenueInfo
from ibkr_depth_pipeline.schema.gaps import Gap, GapCause
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import SCHEMA_VERSION

if TYPE_CHECKING:
    from ibkr_depth_pipeline.reader.archived import ArchiveReader

__all__ = [
    "NOW",
    "SCHEMA_VERSION",
    "After",
    "AfterId",
    "ArchiveReader",
    "ArchiveUnavailable",
    "AsyncDepthReader",
    "AsyncFollowing",
    "At",
    "DepthReader",
    "DepthSnapshot",
    "EndReason",
    "Gap",
    "GapCause",
    "Heartbeat",
    "IntervalEnded",
    "IntervalItem",
    "IntervalStarted",
    "Item",
    "Level",
    "NewTurns",
    "NothingRecorded",
    "Now",
    "PriceLevel",
    "PriceLevels",
    "SchemaMismatch",
    "SinkUnavailable",
    "SubscriptionInterval",
    "SyncFollowing",
    "UnknownSymbol",
    "VenueInfo",
    "open_reader",
]


def open_reader(url: str) -> DepthReader | ArchiveReader:
    """The reader of the Redis or of the archive at `url`: a Redis URL, or the folder or the address of an archive."""
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme in ("redis", "rediss", "unix"):
        return DepthReader(url)
    from ibkr_depth_pipeline.reader.archived import ArchiveReader

    return ArchiveReader(url)


def __getattr__(name: str) -> Any:
    if name != "ArchiveReader":  # it needs pyarrow, which is an extra
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ibkr_depth_pipeline.reader.archived import ArchiveReader

    return ArchiveReader
