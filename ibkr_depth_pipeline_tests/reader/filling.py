"""Puts snapshots into a real Redis, encoded by the recorder's own code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import redis

from ibkr_depth_pipeline.model import Levels
from ibkr_depth_pipeline.schema.encoding import EntryPacker, LastValue, venue_field
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval, encode_interval
from ibkr_depth_pipeline.schema.keys import last_key, open_turn_hash, stream_key, turns_stream
from ibkr_depth_pipeline_tests.sink.writing import side_text

T0 = 1_700_000_000_000


def side_at(best: float, step: float, number: int) -> Levels:
    """Ten rows from `best` on; the first one's size tells the snapshot's number."""
    return tuple((best + level * step, float(number if level == 0 else level), "ISLAND") for level in range(10))


class Filler:
    """Adds snapshots of a symbol, numbered on from 1, `step_ms` apart from T0 on."""

    def __init__(self, url: str, symbol: str = "SPY", *, step_ms: int = 10, maxlen: int | None = None) -> None:
        self.client: Any = redis.Redis.from_url(url)
        self.symbol = symbol
        self.seq = 0
        self.ts = T0
        self._step_ms = step_ms
        self._maxlen = maxlen
        self._packer = EntryPacker(stream_key(symbol), maxlen or 0)

    def __enter__(self) -> Filler:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.client.close()

    def add(self, count: int = 1) -> None:
        """Store the next `count` snapshots, as the recorder does."""
        pipe = self.client.pipeline(transaction=False)
        for _ in range(count):
            last = LastValue.of_entry(self._next())
            stored = dict(zip(last.fields[::2], last.fields[1::2], strict=True))
            fields = {"ts": last.ts, "bids": stored[b"bids_json"], "asks": stored[b"asks_json"], "seq": last.seq}
            fields["venue"] = stored[b"venue"]
            stream_id = f"{last.ts}-{last.seq}"
            pipe.xadd(stream_key(self.symbol), fields, id=stream_id, maxlen=self._maxlen, approximate=False)
        pipe.hset(last_key(self.symbol), mapping=stored)
        pipe.execute()

    def skip(self, count: int) -> None:
        """Number snapshots that are never stored."""
        for _ in range(count):
            self._next()

    def trim(self, keep: int) -> None:
        self.client.xtrim(stream_key(self.symbol), maxlen=keep, approximate=False)

    def begin(self, subscription: int = 1, complete: int | None = None) -> None:
        """Open a subscription before the next snapshot, as the recorder does; complete: so many snapshots later."""
        self._turn = SubscriptionInterval(
            *(self.symbol, subscription, "ARCA"),
            requested=self.ts,
            first_row=self.ts,
            complete=None if complete is None else self.ts + complete * self._step_ms,
            until=self.ts,
            first_seq=self.seq + 1,
        )
        self._store_open(self._turn)

    def refresh(self, **changes: Any) -> None:
        """Bring the hash of the open subscription up to date, which the recorder does from time to time."""
        known = {"until": self.ts - self._step_ms, "last_seq": self.seq, **changes}
        self._turn = replace(self._turn, **known)
        self._store_open(self._turn)

    def end(self, reason: EndReason = EndReason.TURN_OVER) -> SubscriptionInterval:
        """End the subscription with the last snapshot."""
        last = self.ts - self._step_ms
        rows = self.seq - (self._turn.first_seq or 0) + 1
        ended = replace(self._turn, until=last, last_seq=self.seq, rows=rows, end=reason)
        self.store_ended(ended, last)
        return ended

    def store_ended(self, ended: SubscriptionInterval, moment: int) -> None:
        stream_id = f"{moment}-{ended.subscription}"
        self.client.xadd(turns_stream(self.symbol), encode_interval(ended), id=stream_id)
        self.client.delete(open_turn_hash(self.symbol))

    def _store_open(self, interval: SubscriptionInterval) -> None:
        self.client.delete(open_turn_hash(self.symbol))
        self.client.hset(open_turn_hash(self.symbol), mapping=encode_interval(interval))

    def pause(self, ms: int) -> None:
        """Nothing is recorded for so long."""
        self.ts += ms

    def _next(self) -> bytes:
        self.seq += 1
        bids, asks = side_at(100.0, -0.01, self.seq), side_at(100.01, 0.01, self.seq // 2)
        entry = self._packer.pack(self.ts, self.seq, venue_field("ARCA"), side_text(bids), side_text(asks))
        self.ts += self._step_ms
        return entry
