"""What must hold in a session: all the time, and of all that is stored at the end; and which states it reached."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import datetime, time, timezone
from typing import Any

import orjson

from ibkr_depth_pipeline.schema.keys import heartbeat_key, last_key, lease_key, stream_key
from ibkr_depth_pipeline_tests.end_to_end.recording import Snapshot
from ibkr_depth_pipeline_tests.faults.sent_books import books_sent, unsent
from ibkr_depth_pipeline_tests.sessions.virtual_time import UNIX_BEGIN
from ibkr_depth_pipeline_tests.sessions.world import LISTINGS, NAME, ROLLS_AT, World


class Watch:
    """Checks what holds all the time, and at the end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last_row: dict[str, float] = {}
        self._holders: list[str] = []
        world.gateway.journal.listen(self._observe)
        world.redis.on_set = self._on_set

    def _observe(self, entry: Any) -> None:
        if entry.kind == "rows":
            self._last_row[entry.name] = self._world.clock.now

    def mute_secs(self) -> float:
        """For how long the gateway has sent no row."""
        return self._world.clock.now - max(self._last_row.values(), default=0.0)

    def _on_set(self, key: str, value: bytes) -> None:
        if key == lease_key(NAME):
            self._holders.append(orjson.loads(value)["run_id"])

    async def run(self) -> None:
        """Look at the heartbeats each second."""
        while True:
            await asyncio.sleep(1.0)
            for symbol in self._world.symbols:
                self._check_heartbeat(symbol)

    def _check_heartbeat(self, symbol: str) -> None:
        beat = self._world.redis.value(heartbeat_key(symbol))
        entries = self._world.redis.entries(stream_key(symbol))
        if beat is not None and (not entries or int(beat) > entries[-1][0][0]):
            self._problem(f"the heartbeat of {symbol} is of a row that is not stored")

    def _problem(self, text: str) -> None:
        if text not in self._world.seen.problems:
            self._world.seen.problems.append(text)

    def at_end(self) -> None:
        """What must hold of all that is stored, and the states that the session has reached."""
        world = self._world
        for name in world.redis.unknown:
            self._problem(f"the model of Redis does not know {name}")
        sent = books_sent(world.gateway.journal.entries())
        for symbol in world.symbols:
            names = LISTINGS.get(symbol, (symbol,))
            self._check_stream(symbol, [books for name in names for books in sent.get(name, [])])
        self._check_writers()
        self._note_states()
        world.seen.secs = world.clock.now - 1000.0
        stored = [world.redis.entries(stream_key(symbol)) for symbol in world.symbols]
        world.seen.digest = hashlib.sha256(repr((sent, stored)).encode()).hexdigest()

    def _note_states(self) -> None:
        states, events = self._world.seen.states, [line["event"] for line in self._world.logged]
        states.update(events)
        turns = 2  # since the batch has grown; it is on trial for one
        for event in events:
            turns = 0 if event == "batch_grown" else turns + (event == "rotation_started")
            states["batch shrunk on trial"] += event == "batch_shrunk" and turns <= 1
        if "contract_rolled" in events and self._lines_at(ROLLS_AT) >= min(3, self._world.plan.slots):
            states["roll with a full batch"] += 1

    def _lines_at(self, moment: time) -> int:
        """How many subscriptions the gateway served then."""
        at = datetime.fromtimestamp(UNIX_BEGIN, timezone.utc).replace(**_parts(moment)).timestamp()
        entries = [entry for entry in self._world.gateway.journal.entries() if entry.at <= at]
        return sum({"subscribed": 1, "unsubscribed": -1}.get(entry.kind, 0) for entry in entries)

    def _check_stream(self, symbol: str, sent: Sequence[Any]) -> None:
        stream = [_snapshot(fields) for _, fields in self._world.redis.entries(stream_key(symbol))]
        self._world.seen.snapshots += len(stream)
        numbers = [snapshot.seq for snapshot in stream]
        if numbers != sorted(set(numbers)):
            self._problem(f"{symbol}: a number is used twice, or numbers fall")
        if (foreign := unsent(stream, sent)) is not None:
            self._problem(f"{symbol}: snapshot {foreign[1].seq} does not follow from what was sent before")
        newest = self._world.redis.fields(last_key(symbol)).get(b"seq")
        if stream and (newest is None or int(newest) != stream[-1].seq):
            self._problem(f"{symbol}: the hash is not of the newest snapshot")

    def _check_writers(self) -> None:
        """No process writes a stream after another one has, and none that never held the lease."""
        newest: dict[str, str] = {}
        former: dict[str, set[str]] = {}
        for stored in self._world.redis.stored:
            if stored.who not in self._holders:
                self._problem(f"{stored.who} writes {stored.key} and never held the lease")
            before = newest.get(stored.key)
            if before not in (None, stored.who):
                former.setdefault(stored.key, set()).add(str(before))
                self._world.seen.states["another process goes on"] += 1
            if stored.who in former.get(stored.key, set()):
                self._problem(f"{stored.who} writes {stored.key} after {before} did")
            newest[stored.key] = stored.who
        for refused in self._world.redis.refused:
            if newest.get(refused.key) != refused.who:
                self._world.seen.states["late block of a former holder refused"] += 1


def _parts(moment: time) -> dict[str, int]:
    return {"hour": moment.hour, "minute": moment.minute, "second": moment.second, "microsecond": 0}


def _snapshot(fields: Sequence[bytes]) -> Snapshot:
    of = dict(zip(fields[::2], fields[1::2], strict=True))
    bids, asks = orjson.loads(of[b"bids"]), orjson.loads(of[b"asks"])
    return Snapshot(int(of[b"ts"]), int(of[b"seq"]), of[b"venue"].decode(), bids, asks)
