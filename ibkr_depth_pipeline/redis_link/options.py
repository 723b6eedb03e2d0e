"""What both kinds of clients, for asyncio and without, are told of a connection, in redis-py's words. Pure."""

from __future__ import annotations

from typing import Any

from ibkr_depth_pipeline.redis_link.url import RedisTarget

SENTINEL_TIMEOUT_SECS = 1.0
"""How long one Sentinel may take before the next one is asked."""


def connection_options(connect_timeout: float, answer_timeout: float) -> dict[str, Any]:
    """Of every connection: bounded in time (seconds), no command of redis-py's own between ours, replies as RESP2."""
    return {
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": answer_timeout,
        "health_check_interval": 0,
        "protocol": 2,
    }


def sentinel_options(target: RedisTarget) -> dict[str, Any]:
    """Of a connection to a Sentinel, beyond those: who asks, and for how long."""
    return {
        "socket_connect_timeout": SENTINEL_TIMEOUT_SECS,
        "socket_timeout": SENTINEL_TIMEOUT_SECS,
        "username": target.sentinel_username,
        "password": target.sentinel_password,
    }
