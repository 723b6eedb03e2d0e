"""Which wire leads to a Redis."""

from __future__ import annotations

import redis.asyncio as redis

from ibkr_depth_pipeline.redis_link.awaited import Client
from ibkr_depth_pipeline.redis_link.cluster import ClusterClient
from ibkr_depth_pipeline.sink.cluster_wire import ClusterWire
from ibkr_depth_pipeline.sink.replicas import AnyWire, ReplicatedWire
from ibkr_depth_pipeline.sink.wire import Wire


def open_wire(client: Client, min_replicas: int = 0) -> AnyWire:
    """The wire to where `client` leads, with replicas to wait for; connects at the first exchange."""
    if isinstance(client, ClusterClient):
        return ClusterWire(client, min_replicas)
    assert isinstance(client, redis.Redis)
    return ReplicatedWire(Wire(client), min_replicas)
