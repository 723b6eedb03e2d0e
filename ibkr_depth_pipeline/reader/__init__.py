"""Read what is recorded: the newest books, live streams, ranges as frames. docs/reader.md shows how.

Nothing here knows of Dagster, of the gateway or of the settings; redis-py and the libraries for frames are imported
when they are first needed.
"""

from ibkr_depth_pipeline.errors import NothingRecorded, SchemaMismatch, SinkUnavailable, UnknownSymbol
from ibkr_depth_pipeline.reader.model import IntervalEnded, IntervalItem, IntervalStarted, Item
from ibkr_depth_pipeline.reader.moments import NOW, After, AfterId, At, Now
from ibkr_depth_pipeline.reader.readers import AsyncDepthReader, AsyncFollowing, DepthReader, SyncFollowing
from ibkr_depth_pipeline.reader.turns import NewTurns
from ibkr_depth_pipeline.schema.decoding import DepthSnapshot, Heartbeat, Level, PriceLevel, PriceLevels, VenueInfo
from ibkr_depth_pipeline.schema.gaps import Gap, GapCause
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import SCHEMA_VERSION

__all__ = [
    "NOW",
    "SCHEMA_VERSION",
    "After",
    "AfterId",
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
]
