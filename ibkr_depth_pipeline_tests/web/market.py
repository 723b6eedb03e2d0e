"""A recording in a real Redis as the page reads it: books, heartbeats and figures, written by the recorder's code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import redis

from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.schema.alerts import Alert, AlertKind, encode_alert
from ibkr_depth_pipeline.schema.health import INGEST_HEARTBEAT_TTL_SECS
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval, encode_interval
from ibkr_depth_pipeline.schema.keys import (
    alerts_stream,
    heartbeat_key,
    ingest_heartbeat_key,
    ingest_key,
    last_key,
    open_turn_hash,
    stream_key,
    turns_stream,
    venue_key,
)
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures

NAME = "default"
INJECTED = "<IMG SRC=X ONERROR=PWNED()>"
"""A name that no sound universe has: a page that takes it for markup runs it."""

SYMBOLS = ("SPY", "QQQ", "BRK B", INJECTED)
VENUE = "<B>ARCA"

Rows = list[list[Any]]


def side(best: float, step: float) -> Rows:
    """Ten rows from the best price on, each with another size."""
    return [[round(best + step * level, 4), 100.0 * (level + 1) + 7, "NSDQ"] for level in range(10)]


class RecordedMarket:
    """What a recorder of SYMBOLS has left in the Redis of a URL or a client; SPY and QQQ hold a slot."""

    def __init__(self, server: str | Any) -> None:
        self.redis: Any = redis.Redis.from_url(server) if isinstance(server, str) else server
        now = unix_ms()
        self._seqs = dict.fromkeys(SYMBOLS, 0)
        self.figures = FeedFigures(
            RunIdentity("run-1", "host-1", 7, now - 60_000),
            now,
            connected=True,
            batch_size=2,
            turns=4_321,
            refused_309=5,
            up_ms=60_000,
            symbols={
                symbol: SymbolFigures(
                    subscribed=at < 2,
                    live_ms=30_000,
                    venue=VENUE,
                    row_age_ms=100,
                    next_turn_secs=0.0 if at < 2 else 12.0,
                )
                for at, symbol in enumerate(SYMBOLS)
            },
        )
        for at, symbol in enumerate(SYMBOLS):
            self.row(symbol, 100.0 * (at + 1))
            self.redis.set(heartbeat_key(symbol), now, ex=600)
            self.redis.hset(venue_key(symbol), mapping={"exchange": VENUE, "depth_supported": "1", "reason": ""})
        self.publish()

    def row(self, symbol: str, bid: float, *, ts: int | None = None, bids: Rows | None = None) -> int:
        """One more snapshot, best bid `bid`, best ask two cents above; its seq."""
        self._seqs[symbol] = self._seqs.get(symbol, 0) + 1
        seq = self._seqs[symbol]
        ts = unix_ms() if ts is None else ts
        both = [orjson.dumps(rows) for rows in (bids or side(bid, -0.01), side(bid + 0.02, 0.01))]
        entry = {"ts": ts, "bids": both[0], "asks": both[1], "seq": seq, "venue": VENUE}
        last = {"ts": ts, "bids_json": both[0], "asks_json": both[1], "seq": seq, "venue": VENUE}
        self.redis.xadd(stream_key(symbol), entry, id=f"{ts}-{seq}")
        self.redis.hset(last_key(symbol), mapping=last)
        return seq

    def turn(self, symbol: str, first_row: int, until: int, *, goes_on: bool = False, number: int = 1) -> None:
        """A subscription on record that was requested half a second before its first row."""
        end = None if goes_on else EndReason.TURN_OVER
        turn = SubscriptionInterval(
            symbol, number, VENUE, requested=first_row - 500, first_row=first_row, until=until, rows=1, end=end
        )
        if goes_on:
            self.redis.hset(open_turn_hash(symbol), mapping=encode_interval(turn))
            return
        self.redis.delete(open_turn_hash(symbol))
        self.redis.xadd(turns_stream(symbol), encode_interval(turn), id=f"{until}-{number}")

    def alert(self, kind: AlertKind, what: str, *, ts: int, cause: str = "gateway", text: str = "") -> None:
        """An alert about the ingest, as the sensors put it on record."""
        alert = Alert(ts, kind, cause, f"IBKR depth {NAME}: {what}", text)
        self.redis.xadd(alerts_stream(NAME), encode_alert(alert))

    def publish(self, **changes: Any) -> None:
        """Store the ingest's figures, and its heartbeat."""
        self.figures = replace(self.figures, written_ts=unix_ms(), **changes)
        self.redis.set(ingest_key(NAME), self.figures.to_json())
        self.redis.set(ingest_heartbeat_key(NAME), "run-1", ex=INGEST_HEARTBEAT_TTL_SECS)

    def close(self) -> None:
        """Close the connection."""
        self.redis.close()
