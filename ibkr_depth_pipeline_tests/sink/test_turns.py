"""Intervals on their way into a real Redis: each once, in order with its snapshots, whatever happens to the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis.asyncio as redis

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.schema.intervals import EndReason, SubscriptionInterval, decode_interval, interval_of_entry
from ibkr_depth_pipeline.schema.keys import StreamId, open_turn_hash, stream_key, turns_stream
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.turn_fence import close_lost_turns, closed
from ibkr_depth_pipeline.sink.turns import AFTER_SEQ, MOST_STEPS, SymbolTurns
from ibkr_depth_pipeline_tests.faults.redis_proxy import Fault, RedisProxy, port_of
from ibkr_depth_pipeline_tests.sink.writing import (
    DRAIN,
    SnapshotWriter,
    eventually,
    numbers,
    reading,
    snapshots,
    writing,
)

TS = 1_700_000_000_000


class Turns:
    """Turns of SPY, one after the other, each with rows of its own, handed to a writer."""

    def __init__(self, writer: SnapshotWriter, number: int = 0, seq: int = 0) -> None:
        self.writer = writer
        self.number = number
        self.seq = seq
        self.begun: SubscriptionInterval | None = None
        self.after = seq

    def begin(self) -> None:
        self.number += 1
        self.after = self.seq
        self.begun = SubscriptionInterval("SPY", self.number, "ARCA", requested=TS + self.seq)
        self.writer.turns("SPY").begin(self.begun, self.seq)

    def rows(self, count: int) -> None:
        for snapshot in snapshots(count=count, first=self.seq + 1, ts=TS):
            self.writer.append(snapshot)
        self.seq += count

    def seen(self) -> SubscriptionInterval:
        assert self.begun is not None
        if self.seq == self.after:
            return self.begun
        first, last = TS + (self.after + 1) // 3, TS + self.seq // 3
        moments = {"first_row": first, "complete": first, "until": last}
        return replace(self.begun, **moments, first_seq=self.after + 1, last_seq=self.seq, rows=self.seq - self.after)

    def update(self) -> None:
        self.writer.turns("SPY").update(self.seen())

    def end(self, reason: EndReason = EndReason.TURN_OVER) -> SubscriptionInterval:
        ended = replace(self.seen(), end=reason)
        self.writer.turns("SPY").end(ended, self.seq)
        return ended

    def whole(self, rows: int) -> SubscriptionInterval:
        self.begin()
        self.rows(rows)
        return self.end()


async def stored_turns(client: redis.Redis) -> list[SubscriptionInterval]:
    return [interval_of_entry("SPY", entry) for entry in await client.xrange(turns_stream("SPY"))]


async def open_turn(client: redis.Redis) -> tuple[SubscriptionInterval, int] | None:
    fields = await client.hgetall(open_turn_hash("SPY"))
    return (decode_interval("SPY", fields), int(fields[AFTER_SEQ.encode()])) if fields else None


async def assert_nothing_is_orphaned(client: redis.Redis) -> None:
    """Each stored snapshot is in a stored interval, or in the one that a successor would close."""
    pipeline = client.pipeline(transaction=True)  # one moment
    pipeline.xrange(stream_key("SPY"))
    pipeline.xrange(turns_stream("SPY"))
    pipeline.hgetall(open_turn_hash("SPY"))
    entries, turns, fields = await pipeline.execute()
    stored = {int(entry[1][b"seq"]) for entry in entries}
    ended = [interval_of_entry("SPY", entry) for entry in turns]
    known = {seq for each in ended if each.first_seq for seq in range(each.first_seq, (each.last_seq or 0) + 1)}
    rest = stored - known
    if rest:
        assert fields, f"{sorted(rest)[:3]} belong to no interval"
        assert int(fields[b"subscription"]) > max((each.subscription for each in ended), default=0)
        assert min(rest) > int(fields[AFTER_SEQ.encode()])


async def test_turns_are_stored_in_order_and_the_hash_is_gone_at_the_end(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        turns = Turns(writer)
        expected = [turns.whole(rows) for rows in (20, 0, 1, 300)]
        assert await writer.drain(DRAIN)
        assert await stored_turns(client) == expected
        assert await open_turn(client) is None
        assert await numbers(client) == list(range(1, 322))
        ids = [stream_id for stream_id, _ in await client.xrange(turns_stream("SPY"))]
        assert ids == [f"{max(each.requested, each.until or 0)}-{each.subscription}".encode() for each in expected]


async def test_open_interval_is_in_the_hash_with_what_is_known_of_it(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        turns = Turns(writer)
        turns.begin()
        assert await writer.drain(DRAIN)
        assert await open_turn(client) == (turns.begun, 0)
        turns.rows(7)
        turns.update()
        assert await writer.drain(DRAIN)
        found = await open_turn(client)
        assert found is not None
        assert found[0] == turns.seen()
        assert found[0].open


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(4, 80))])
async def test_no_snapshot_is_orphaned_and_no_interval_is_lost_whatever_happens_to_the_way(
    shared_redis_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    async with RedisProxy(port_of(shared_redis_url)) as proxy, reading(shared_redis_url) as client:
        async with writing(proxy.url) as writer:
            turns, expected = Turns(writer), []
            for _ in range(6):
                proxy.faults.extend(chance.choices(list(Fault), k=chance.randint(0, 2)))
                turns.begin()
                for _ in range(chance.randint(0, 3)):
                    turns.rows(chance.randint(1, 300))
                    if chance.random() < 0.5:
                        turns.update()
                    if chance.random() < 0.5:
                        await asyncio.sleep(chance.choice((0, 0.001, 0.02)))
                    await assert_nothing_is_orphaned(client)
                expected.append(turns.end())
            while not await writer.drain(0.02):
                await assert_nothing_is_orphaned(client)
            await proxy.deliver_late()
            assert await stored_turns(client) == expected
            assert await numbers(client) == list(range(1, turns.seq + 1))
            await assert_nothing_is_orphaned(client)
            left = await open_turn(client)
            assert left is None or left[0].subscription <= turns.number, "a late write leaves no later one"


async def test_killed_redis_that_comes_back_empty_gets_what_waited(redis_server: EmbeddedRedis) -> None:
    async with writing(redis_server.url) as writer, reading(redis_server.url) as client:
        turns = Turns(writer)
        turns.whole(10)
        assert await writer.drain(DRAIN)
        turns.begin()
        await asyncio.to_thread(redis_server.kill)
        turns.rows(10)
        second, third = turns.end(), turns.whole(5)
        await asyncio.to_thread(redis_server.restart, wipe=True)
        assert await writer.drain(DRAIN)
        assert await stored_turns(client) == [second, third]
        assert await numbers(client) == list(range(11, 26))


async def test_full_buffer_costs_snapshots_and_no_interval(redis_server: EmbeddedRedis) -> None:
    async with writing(redis_server.url, buffer_bytes=50_000) as writer, reading(redis_server.url) as client:
        turns = Turns(writer)
        expected = [turns.whole(20)]
        assert await writer.drain(DRAIN)
        await asyncio.to_thread(redis_server.pause)
        expected += [turns.whole(100) for _ in range(5)]
        await asyncio.to_thread(redis_server.resume)
        assert await writer.drain(DRAIN)
        assert await stored_turns(client) == expected
        found = await numbers(client)
        assert found == sorted(set(found))
        assert len(found) + writer.figures.dropped["SPY"] == turns.seq
        await assert_nothing_is_orphaned(client)


@pytest.mark.parametrize("key", [turns_stream("SPY"), open_turn_hash("SPY")])
async def test_key_of_another_type_holds_up_no_snapshot(shared_redis_url: str, key: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        await client.set(key, "somebody else's")
        turns = Turns(writer)
        turns.whole(10)
        turns.begin()
        turns.rows(10)

        async def are_stored() -> bool:
            return len(await numbers(client)) == 20

        await eventually(are_stored)
        assert writer.figures.write_failures > 0
        turns.end()
        await client.delete(key)
        assert await writer.drain(DRAIN)
        assert [each.subscription for each in await stored_turns(client)] == [1, 2]


async def test_foreign_entry_ahead_in_the_stream_costs_its_intervals_and_nothing_else(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        await client.xadd(turns_stream("SPY"), {"colour": "blue"}, f"{TS * 2}-0")
        turns = Turns(writer)
        turns.whole(10)
        assert await writer.drain(DRAIN)
        assert await numbers(client) == list(range(1, 11))
        assert await client.xlen(turns_stream("SPY")) == 1


# ---- successors


async def test_what_a_predecessor_still_sends_is_refused_after_a_takeover(shared_redis_url: str) -> None:
    async with RedisProxy(port_of(shared_redis_url)) as proxy, reading(shared_redis_url) as client:
        async with writing(proxy.url) as first:
            turns = Turns(first)
            turns.begin()
            turns.rows(10)
            turns.update()
            assert await first.drain(DRAIN)
            proxy.faults.append(Fault.ARRIVE_LATE)
            turns.end()

            async def is_late() -> bool:
                return proxy.late > 0

            await eventually(is_late)
            proxy.delay = 3600
            successor = SnapshotWriter(client, maxlen=100, buffer_bytes=1)
            now_ms = TS + 60_000
            await successor.take_over(["SPY"], now_ms)
            assert await successor.take_over_turns(["SPY"], now_ms) == {"SPY": 1}
            await proxy.deliver_late()
        [lost] = await stored_turns(client)
        assert (lost.end, lost.last_seq, lost.rows) == (EndReason.PROCESS_LOST, 10, 10)
        assert lost.until == TS + 10 // 3
        assert await open_turn(client) is None


async def test_takeover_twice_closes_an_interval_once(shared_redis_url: str) -> None:
    client = open_redis(shared_redis_url)
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as plain:
        turns = Turns(writer)
        turns.begin()
        turns.rows(3)
        assert await writer.drain(DRAIN)
        fields = await plain.hgetall(open_turn_hash("SPY"))
        for now_ms in (TS + 1000, TS + 2000):
            await writer.take_over(["SPY"], now_ms)
            assert await close_lost_turns(client, ["SPY", "QQQ"], now_ms) == {"SPY": 1, "QQQ": 0}
            await plain.hset(open_turn_hash("SPY"), mapping=fields)  # as if the first died before it removed the hash
        assert len(await stored_turns(plain)) == 1
    await client.aclose()


async def test_numbers_go_on_after_the_stream_of_turns_was_deleted(shared_redis_url: str) -> None:
    client = open_redis(shared_redis_url)
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as plain:
        turns = Turns(writer, number=4)
        turns.begin()
        assert await writer.drain(DRAIN)
        await plain.delete(turns_stream("SPY"))
        assert await close_lost_turns(client, ["SPY"], TS + 1000) == {"SPY": 5}
    await client.aclose()


def closings() -> Iterator[tuple[SubscriptionInterval, int, StreamId, SubscriptionInterval]]:
    """Open interval, newest snapshot before it, newest stored snapshot -> how it is closed."""
    asked = SubscriptionInterval("SPY", 3, "ARCA", requested=100)
    live = replace(asked, first_row=150, complete=180, until=400, first_seq=11, last_seq=20, rows=9)
    over = {"end": EndReason.PROCESS_LOST}
    yield asked, 10, StreamId(90, 10), replace(asked, **over)
    yield live, 10, StreamId(350, 18), replace(live, until=350, last_seq=18, rows=7, **over)
    yield live, 10, StreamId(900, 30), replace(live, until=900, last_seq=30, rows=19, **over)
    yield live, 10, StreamId(170, 12), replace(live, until=170, last_seq=12, rows=1, complete=None, **over)
    yield live, 10, StreamId(90, 10), replace(asked, **over)
    unknown = replace(asked, first_row=300, until=300, first_seq=11, last_seq=15, rows=5, **over)
    yield asked, 10, StreamId(300, 15), unknown


@pytest.mark.parametrize(("interval", "after_seq", "stored", "expected"), list(closings()))
def test_lost_interval_is_closed_at_the_last_stored_row(
    interval: SubscriptionInterval, after_seq: int, stored: StreamId, expected: SubscriptionInterval
) -> None:
    assert closed(interval, after_seq, stored) == expected


def test_steps_that_wait_are_bounded() -> None:
    turns = SymbolTurns("SPY", 100, lambda: None)
    for number in range(1, MOST_STEPS):
        interval = SubscriptionInterval("SPY", number, "ARCA", requested=number)
        turns.begin(interval, 0)
        turns.end(replace(interval, end=EndReason.TURN_OVER), 0)
    first = turns.take(None, 0.0)
    assert first is not None
    taken = 0
    while (command := turns.take(None, 0.0)) is not None:
        command.settle([b"OK", b"QUEUED", [1]])
        taken += 1
    assert taken == MOST_STEPS + 1  # and the removal of the hash
