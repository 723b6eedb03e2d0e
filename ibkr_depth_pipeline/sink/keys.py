"""The keys that other programs read. docs/redis-schema.md is their contract. Pure."""

from __future__ import annotations

PREFIX = "raw:ibkr:depth"

SCHEMA_VERSION = 1
"""The version of docs/redis-schema.md that is written and read."""


def stream_key(symbol: str) -> str:
    """Stream of every snapshot."""
    return f"{PREFIX}:stream:{symbol}"


def last_key(symbol: str) -> str:
    """Hash of the newest snapshot."""
    return f"{PREFIX}:last:{symbol}"


def heartbeat_key(symbol: str) -> str:
    """Unix ms of the last live row; expires."""
    return f"{PREFIX}:hb:{symbol}"


def venue_key(symbol: str) -> str:
    """Hash of what the gateway said of the symbol's venue."""
    return f"{PREFIX}:venue:{symbol}"


def ingest_key(name: str) -> str:
    """JSON of an ingest's own figures; `name` is IBKR_GATEWAY_NAME."""
    return f"{PREFIX}:ingest:{name}"


def ingest_heartbeat_key(name: str) -> str:
    """The id of the run that is alive; expires."""
    return f"{PREFIX}:ingest:{name}:hb"


def lease_key(name: str) -> str:
    """Who may write under this name; expires."""
    return f"{PREFIX}:lease:{name}"
