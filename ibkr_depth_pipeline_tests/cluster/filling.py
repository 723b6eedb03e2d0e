"""Puts snapshots into several Redis servers by the schema in docs/redis-schema.md, with a client of redis-py's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from ibkr_depth_pipeline.schema.keys import last_key, stream_key

BEGIN = 1_767_614_400_000  # 2026-01-05 12:00 UTC
SYMBOLS = ("SPY", "QQQ", "AAPL", "MSFT", "TSLA", "NVDA")


def fill(client: Any, count: int, first: int = 1, symbols: Sequence[str] = SYMBOLS) -> None:
    """Store `count` snapshots of each symbol, numbered from `first`, a millisecond apart."""
    pipe = client.pipeline(transaction=False)
    for symbol in symbols:
        for seq in range(first, first + count):
            ts, bids, asks = BEGIN + seq, _side(100.0, seq), _side(200.0, seq)
            fields = {"ts": ts, "bids": bids, "asks": asks, "seq": seq, "venue": "ARCA"}
            pipe.xadd(stream_key(symbol), fields, id=f"{ts}-{seq}")
        last = {"ts": ts, "seq": seq, "venue": "ARCA", "bid0": 100.0, "ask0": 200.0}
        pipe.hset(last_key(symbol), mapping={**last, "bids_json": bids, "asks_json": asks})
    pipe.execute()


def _side(price: float, seq: int) -> bytes:
    return orjson.dumps([[price + level, float(seq), "ARCA"] for level in range(10)])
