"""What the pipeline wants done, one type per deed; deeds.py carries them out in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ibkr_depth_pipeline.model import Instrument


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Ask the gateway for depth of `instrument` under id `request`."""

    request: int
    instrument: Instrument


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel `request` at the gateway."""

    request: int
    symbol: str


@dataclass(frozen=True, slots=True)
class Recheck:
    """Resolve `symbol` anew."""

    symbol: str


@dataclass(frozen=True, slots=True)
class RecordRefusal:
    """Note in the venue hash that the gateway refuses depth of `instrument`."""

    instrument: Instrument
    reason: str


@dataclass(frozen=True, slots=True)
class RecordVenue:
    """Note in the venue hash that rows come from `instrument`'s venue; refused_venues: better ones that refused."""

    instrument: Instrument
    refused_venues: str


@dataclass(frozen=True, slots=True)
class ReportPersisted:
    """Log what was stored of `symbols` since this was last asked."""

    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetHeartbeatTtl:
    """From now on heartbeats live `secs`; last_rows (unix ms by symbol) are those whose heartbeats stand.

    own: symbol -> its own TTL, of those with another one.
    """

    secs: int
    last_rows: Mapping[str, int]
    own: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Close the connection and connect again, because of `why`."""

    why: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """One log line."""

    level: str
    event: str
    fields: Mapping[str, object] = field(default_factory=dict)


Effect = (
    Subscribe | Cancel | Recheck | RecordRefusal | RecordVenue | ReportPersisted | SetHeartbeatTtl | Reconnect | LogLine
)
