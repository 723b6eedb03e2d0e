"""What a sensor remembers, as text: it survives a restart. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from ibkr_depth_pipeline.monitoring.checks import Told
from ibkr_depth_pipeline.monitoring.incidents import Watch
from ibkr_depth_pipeline.monitoring.outbox import Outbox
from ibkr_depth_pipeline.monitoring.run_failures import News
from ibkr_depth_pipeline.monitoring.supervision import Sight


@dataclass(frozen=True, slots=True)
class HeartbeatMemory:
    """Of the heartbeat sensor."""

    watch: Watch = field(default_factory=Watch)
    told: Mapping[str, Told] = field(default_factory=dict)
    outbox: Outbox = field(default_factory=Outbox)


@dataclass(frozen=True, slots=True)
class WatchdogMemory:
    """Of the watchdog. `probe_told` is the session whose failed probe was alerted."""

    sights: tuple[Sight, ...] = ()
    probe_told: str = ""
    outbox: Outbox = field(default_factory=Outbox)


@dataclass(frozen=True, slots=True)
class NewsMemory:
    """Of the sensor for runs; since_ts 0: it has never looked."""

    news: News = field(default_factory=News)
    outbox: Outbox = field(default_factory=Outbox)


Memory = TypeVar("Memory", HeartbeatMemory, WatchdogMemory, NewsMemory)


def recall(kind: type[Memory], text: str | None) -> Memory:
    """What `remember` wrote; an empty memory where there is nothing to read, or another version's."""
    try:
        return kind() if not text else TypeAdapter(kind).validate_json(text)
    except ValidationError:
        return kind()


def remember(memory: HeartbeatMemory | WatchdogMemory | NewsMemory) -> str:
    """As JSON."""
    return TypeAdapter(type(memory)).dump_json(memory).decode()
