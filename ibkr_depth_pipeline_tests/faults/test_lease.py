"""Two ingests on one Redis, killed ones, paused ones: one writes at a time, and the numbers have no hole or repeat."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
import redis
import redis.asyncio
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.errors import LeaseHeld, LeaseLost, SinkUnavailable
from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.schema.keys import StreamId, last_key, lease_key, stream_key
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.sink.connection import CONNECT_TIMEOUT_SECS, open_redis
from ibkr_depth_pipeline.sink.lease import (
    GRACE_SECS,
    LONGEST_ANSWER_SECS,
    LONGEST_INTERVAL_SECS,
    LOOK_SECS,
    VANISHED_GRACE_SECS,
    HolderWatch,
    Lease,
)
from ibkr_depth_pipeline.sink.stream_fence import newest_ids
from ibkr_depth_pipeline_tests.end_to_end.recording import universe_of
from ibkr_depth_pipeline_tests.faults.ingest_process import (
    SYMBOLS,
    environment_of,
    grows,
    ingest_process,
)
from ibkr_depth_pipeline_tests.faults.redis_proxy import Fault, RedisProxy, port_of
from ibkr_depth_pipeline_tests.sink.writing import (
    DRAIN,
    SnapshotWriter,
    eventually,
    identity,
    numbers,
    reading,
    snapshots,
    writing,
)


def stored(url: str, symbol: str) -> list[int]:
    with redis.Redis.from_url(url) as client:
        return [int(fields[b"seq"]) for _, fields in client.xrange(stream_key(symbol))]


def assert_whole(url: str) -> None:
    """Every stream counts from 1 without a hole or a repeat, and no hash is ahead of its stream."""
    with redis.Redis.from_url(url) as client:
        for symbol in SYMBOLS:
            numbers_stored = stored(url, symbol)
            assert numbers_stored == list(range(1, len(numbers_stored) + 1)), symbol
            assert int(client.hget(last_key(symbol), "seq") or 0) <= len(numbers_stored)


async def holder_of_spy(client: redis.asyncio.Redis) -> tuple[SnapshotWriter, Lease]:
    """An ingest that holds the lease and has taken the stream of SPY over."""
    lease = Lease(client, "default", identity("one"), 2)
    await lease.acquire()
    writer = SnapshotWriter(client, maxlen=100, buffer_bytes=1 << 20, lease=lease)
    await writer.take_over(["SPY"], 1_600_000_000_000)
    return writer, lease


async def another_comes_and_goes(client: redis.asyncio.Redis, now_ms: int) -> None:
    """Once the lease is free: another ingest takes it, takes the stream of SPY over, and is done."""
    other = Lease(client, "default", identity("two"), 2)
    await other.acquire()
    await SnapshotWriter(client, maxlen=100, buffer_bytes=1).take_over(["SPY"], now_ms)
    await other.release()


async def taken_unheard(proxy: RedisProxy, client: redis.asyncio.Redis) -> bool:
    """Whether a claim of the lease was carried out whose answer was lost."""
    return proxy.lost > 0 and await client.exists(lease_key("default")) > 0


# ---- the lease by itself


async def test_free_lease_is_taken_and_given_back(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        lease = Lease(client, "default", identity("one"), 2)
        await lease.acquire()
        assert lease.fresh
        assert 0 < await client.pttl(lease_key("default")) <= 2000
        await lease.release()
        assert await client.exists(lease_key("default")) == 0


async def test_second_claimant_learns_who_holds_the_lease(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        first = Lease(client, "default", identity("one"), 2)
        await first.acquire()
        keeping = asyncio.ensure_future(first.keep())
        with pytest.raises(LeaseHeld, match="run one on host-of-one, pid 1, since 2023-11-14 22:13:20 UTC"):
            await Lease(client, "default", identity("two"), 2).acquire()
        keeping.cancel()


async def test_leases_of_different_names_are_independent(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        await Lease(client, "one", identity("one"), 2).acquire()
        await Lease(client, "two", identity("two"), 2).acquire()
        held = [await client.get(lease_key(name)) for name in ("one", "two")]
        assert all(held)
        assert held[0] != held[1]


async def test_lease_of_a_dead_holder_is_taken_over_and_that_holder_may_not_write(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        first, second = (Lease(client, "default", identity(name), 2) for name in ("one", "two"))
        await first.acquire()
        await second.acquire()  # the first does not renew: it waits until that one's time is over
        assert not first.fresh
        with pytest.raises(LeaseLost, match="host-of-two"):
            await first.hold()
        with pytest.raises(LeaseLost):
            await first.hold()
        await first.release()
        assert second.fresh, "the loser gives back nothing"


def test_late_answer_of_redis_does_not_prolong_the_lease() -> None:
    watch = HolderWatch(b"one")
    watch.saw(b"one", 5000, 0.0, 0.0)
    watch.saw(b"one", 4750, 0.25, 1.25)
    watch.saw(b"one", 3500, 0.5, 1.5)
    watch.saw(b"one", 3250, 1.75, 1.75)
    assert not watch.holder_lives


def test_renewed_lease_shows_a_living_holder_even_if_every_answer_is_late() -> None:
    watch = HolderWatch(b"one")
    looks = 0
    while not watch.holder_lives:
        watch.saw(b"one", 5000, float(looks), looks + 1.0)  # renewed all the time, right before each look
        looks += 1
    assert 1 < looks < 5


def test_lease_counts_as_free_once_it_was_absent_for_long_enough_however_late_the_answers() -> None:
    watch = HolderWatch(b"one")
    watch.saw(b"one", 250, -0.25, -0.25)
    watch.saw(None, -2, 0.0, 0.5)
    watch.saw(None, -2, 0.75, 0.5 + GRACE_SECS)  # it may have been looked at early
    assert not watch.is_free
    watch.saw(None, -2, 0.5 + GRACE_SECS, 10.0)
    assert watch.is_free
    watch.saw_nothing()
    assert not watch.is_free
    watch.saw(None, -2, 10.0, 10.0)
    assert not watch.is_free
    watch.saw(b"one", 5000, 20.0, 20.0)
    watch.saw(None, -2, 20.0, 20.0)
    assert not watch.is_free


@pytest.mark.parametrize("ttl_ms", [2_000, 5_000, 60_000, 300_000])
def test_lease_that_vanished_before_its_time_is_left_to_its_holder_for_longer(ttl_ms: int) -> None:
    watch = HolderWatch(b"one")
    watch.saw(b"one", ttl_ms, 0.0, 0.0)
    watch.saw(None, -2, 0.25, 0.25)
    watch.saw(None, -2, 0.2 + VANISHED_GRACE_SECS, 0.2 + VANISHED_GRACE_SECS)
    assert not watch.is_free
    watch.saw(None, -2, 0.25 + VANISHED_GRACE_SECS, 0.25 + VANISHED_GRACE_SECS)
    assert watch.is_free


def test_grace_exceeds_the_longest_interval_at_which_a_living_holder_renews() -> None:
    slowest = LONGEST_INTERVAL_SECS + LONGEST_ANSWER_SECS + LOOK_SECS + CONNECT_TIMEOUT_SECS
    assert slowest < VANISHED_GRACE_SECS
    assert LONGEST_INTERVAL_SECS + LOOK_SECS < GRACE_SECS


@pytest.mark.parametrize("ttl_secs", [2, 7, 60, 300])
async def test_standby_leaves_a_vanished_lease_to_a_living_holder(shared_redis_url: str, ttl_secs: int) -> None:
    async with reading(shared_redis_url) as client:
        first, second = (Lease(client, "default", identity(name), ttl_secs) for name in ("one", "two"))
        await first.acquire()
        keeping = asyncio.ensure_future(first.keep())
        with capture_logs() as lines:
            waiting = asyncio.ensure_future(second.acquire(600))

            async def stands_by() -> bool:
                return any(line["event"] == "lease_held" for line in lines)

            await eventually(stands_by)
        for vanish in (client.flushall, lambda: client.delete(lease_key("default"))):
            await vanish()

            async def taken_again() -> bool:
                return await client.exists(lease_key("default")) > 0

            await eventually(taken_again)
            assert orjson.loads(await client.get(lease_key("default")))["run_id"] == "one"
        assert not waiting.done()
        for task in (waiting, keeping):
            task.cancel()
        await asyncio.gather(waiting, keeping, return_exceptions=True)


async def test_claimant_whose_answer_was_lost_has_the_lease(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        first, second = (Lease(client, "default", identity(name), 60) for name in ("one", "two"))
        await first.acquire()
        with capture_logs() as lines:
            waiting = asyncio.ensure_future(second.acquire())

            async def stands_by() -> bool:
                return any(line["event"] == "lease_held" for line in lines)

            await eventually(stands_by)
        await client.set(lease_key("default"), orjson.dumps(identity("two")), px=60_000)  # as its claim does
        await waiting
        assert second.fresh


async def test_holder_keeps_the_lease_when_redis_comes_back_empty(redis_server: EmbeddedRedis) -> None:
    async with reading(redis_server.url) as client:
        lease = Lease(client, "default", identity("one"), 2)
        await lease.acquire()
        keeping = asyncio.ensure_future(lease.keep())
        second = Lease(client, "default", identity("two"), 2)
        with capture_logs() as lines:
            waiting = asyncio.ensure_future(second.acquire(60))

            async def stands_by() -> bool:
                return any(line["event"] == "lease_held" for line in lines)

            await eventually(stands_by)
        await asyncio.to_thread(redis_server.restart)

        async def regained() -> bool:
            return lease.regained and lease.fresh

        await eventually(regained)
        assert not waiting.done()
        for task in (waiting, keeping):
            task.cancel()
        await asyncio.gather(waiting, keeping, return_exceptions=True)


async def test_lease_may_have_had_another_holder_if_the_answer_to_the_claim_is_lost(shared_redis_url: str) -> None:
    async with RedisProxy(port_of(shared_redis_url)) as proxy, reading(shared_redis_url) as client:
        way = open_redis(proxy.url)
        lease = Lease(way, "default", identity("one"), 60)
        await lease.acquire()
        await client.delete(lease_key("default"))  # as a Redis that was restarted may have
        proxy.mute = True
        keeping = asyncio.ensure_future(lease.keep())
        await eventually(lambda: taken_unheard(proxy, client))
        proxy.mute = False

        async def regained() -> bool:
            return lease.regained

        await eventually(regained)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await way.aclose()


async def test_lease_is_not_granted_without_redis() -> None:
    client = open_redis("redis://127.0.0.1:1/0")
    with pytest.raises(SinkUnavailable):
        await Lease(client, "default", identity("one"), 2).acquire(60)
    await client.aclose()


# ---- the lease and the writer


async def test_block_in_flight_is_refused_after_a_takeover(shared_redis_url: str) -> None:
    async with RedisProxy(port_of(shared_redis_url)) as proxy:
        async with writing(proxy.url) as first, reading(shared_redis_url) as client:
            for snapshot in snapshots(count=10):
                first.append(snapshot)
            assert await first.drain(DRAIN)
            proxy.faults.append(Fault.ARRIVE_LATE)
            for snapshot in snapshots(count=10, first=11):
                first.append(snapshot)

            async def on_its_way() -> bool:
                return bool(proxy.late)

            await eventually(on_its_way)
            proxy.delay = 3600  # the first one is heard no more
            positions = await SnapshotWriter(client, maxlen=100, buffer_bytes=1).take_over(
                ["SPY", "QQQ"], 1_800_000_000_000
            )
            assert {symbol: each.seq for symbol, each in positions.items()} == {"SPY": 10, "QQQ": 0}
            await proxy.deliver_late()
            assert await numbers(client) == list(range(1, 11))
            assert (await client.xinfo_stream(stream_key("SPY")))["last-generated-id"] == b"1800000000000-10"
            assert await client.xlen(stream_key("QQQ")) == 0


async def test_holder_that_was_cut_off_while_another_came_and_went_stops(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        writer, _ = await holder_of_spy(client)
        await another_comes_and_goes(client, 1_600_000_000_500)
        for snapshot in snapshots(count=10):
            writer.append(snapshot)
        with pytest.raises(LeaseLost, match="SPY"):
            await writer.run()
        assert await numbers(client) == []


async def test_holder_that_never_learns_that_it_took_the_lease_again_stops(shared_redis_url: str) -> None:
    async with RedisProxy(port_of(shared_redis_url)) as proxy, reading(shared_redis_url) as client:
        way = open_redis(proxy.url)
        writer, _ = await holder_of_spy(way)
        await another_comes_and_goes(client, 1_600_000_000_500)
        proxy.mute = True
        for snapshot in snapshots(count=10):
            writer.append(snapshot)
        running = asyncio.ensure_future(writer.run())
        await eventually(lambda: taken_unheard(proxy, client))
        proxy.mute = False
        with pytest.raises(LeaseLost, match="SPY"):
            await running
        assert await numbers(client) == []
        await way.aclose()


async def test_holder_whose_lease_expired_while_an_old_claim_was_in_flight_stops(
    shared_redis_url: str,
) -> None:
    async with reading(shared_redis_url) as client:
        writer, _ = await holder_of_spy(client)
        await another_comes_and_goes(client, 1_600_000_000_500)
        await client.set(lease_key("default"), orjson.dumps(identity("one")), px=60_000)  # as it does when it arrives
        for snapshot in snapshots(count=10):
            writer.append(snapshot)
        with pytest.raises(LeaseLost, match="SPY"):
            await writer.run()
        assert await numbers(client) == []


async def test_holder_cut_off_again_while_it_checks_for_others_checks_once_more(shared_redis_url: str) -> None:
    async with RedisProxy(port_of(shared_redis_url)) as proxy, reading(shared_redis_url) as client:
        way = open_redis(proxy.url)
        writer, lease = await holder_of_spy(way)

        async def stale() -> bool:
            return not lease.fresh

        async def looks() -> bool:
            return proxy.held > 0

        await eventually(stale)
        await lease.hold()
        assert lease.regained
        proxy.heard.clear()
        for snapshot in snapshots(count=10):
            writer.append(snapshot)
        running = asyncio.ensure_future(writer.run())
        await eventually(looks)
        await client.delete(lease_key("default"))
        await another_comes_and_goes(client, 1_600_000_000_500)
        await eventually(stale)
        proxy.heard.set()
        with pytest.raises(LeaseLost, match="SPY"):
            await running
        assert await numbers(client) == []
        await way.aclose()


async def test_ingest_paused_between_lease_and_streams_leaves_its_successor_alone(
    shared_redis_url: str,
) -> None:
    raised: list[dict[str, StreamId]] = []

    async def its_successor() -> None:
        async with reading(shared_redis_url) as client:
            await Lease(client, "default", identity("two"), 60).acquire()
            writer = SnapshotWriter(client, maxlen=100, buffer_bytes=1)
            raised.append(await writer.take_over(["SPY"], time.time_ns() // 1_000_000))

    def sleeps(_logger: object, _method: str, line: EventDict) -> EventDict:
        if line["event"] == "lease_acquired" and line["ttl_secs"] == 2:
            with ThreadPoolExecutor() as meanwhile:
                meanwhile.submit(asyncio.run, its_successor()).result()
        raise structlog.DropEvent

    structlog.configure(processors=[sleeps])
    session = IngestSession(
        load_settings(redis_url=shared_redis_url, ibkr_port=1, ibkr_lease_ttl_secs=2), universe_of("SPY")
    )
    with pytest.raises(LeaseLost, match="host-of-two"):
        await session.run()
    async with reading(shared_redis_url) as client:
        assert await newest_ids(client, ["SPY"]) == raised[0]


async def test_lease_held_all_the_time_is_confirmed(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        lease = Lease(client, "default", identity("one"), 2)
        await lease.acquire()
        assert await lease.confirm()

        async def stale() -> bool:
            return not lease.fresh

        await eventually(stale)
        assert not await lease.confirm()
        assert await lease.confirm()


async def test_holder_whose_lease_expired_and_was_taken_by_nobody_goes_on(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        writer, lease = await holder_of_spy(client)
        await client.delete(lease_key("default"))

        async def stale() -> bool:
            return not lease.fresh

        await eventually(stale)
        for snapshot in snapshots(count=10):
            writer.append(snapshot)
        running = asyncio.ensure_future(writer.run())
        assert await writer.drain(DRAIN)
        running.cancel()
        assert await numbers(client) == list(range(1, 11))
        assert await client.exists(lease_key("default"))


async def test_stream_of_another_type_at_the_start_costs_only_its_own_symbol(shared_redis_url: str) -> None:
    async with reading(shared_redis_url) as client:
        await client.set(stream_key("BAD"), "not a stream")
        await client.set(last_key("ODD"), "not a hash")
        writer = SnapshotWriter(client, maxlen=100, buffer_bytes=1)
        positions = await writer.take_over(["BAD", "ODD", "SPY"], 1_700_000_000_000)
        assert {symbol: each.seq for symbol, each in positions.items()} == {"BAD": 0, "ODD": 0, "SPY": 0}


# ---- the console script


@pytest.fixture
def gateway() -> GatewayThread:
    return GatewayThread(GatewayOptions(rows_per_second=1000, keep_rows=False))


def test_second_ingest_exits_and_names_the_first(gateway: GatewayThread, redis_url: str, tmp_path: Path) -> None:
    with gateway:
        env = environment_of(tmp_path, gateway.port, redis_url, *SYMBOLS)
        with ingest_process(tmp_path, "first", env) as first:
            grows(redis_url, "SPY", 50)
            with ingest_process(tmp_path, "second", env) as second:
                assert second.ended() == 1
                text = second.log_path.read_text()
                assert "error: another ingest writes here already" in text
                assert f"pid {first.pid}" in text
                assert not second.lines("connected"), "it never went to the gateway"
            grows(redis_url, "SPY", 50)
            first.process.send(signal.SIGTERM)
            assert first.ended() == 0
    assert_whole(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        assert not client.exists(lease_key("default")), "given back at a clean end"


def test_standby_takes_over_from_a_killed_ingest(gateway: GatewayThread, redis_url: str, tmp_path: Path) -> None:
    with gateway:
        env = environment_of(tmp_path, gateway.port, redis_url, *SYMBOLS, ibkr_lease_wait_secs=600)
        with ingest_process(tmp_path, "first", env) as first:
            grows(redis_url, "SPY", 50)
            with ingest_process(tmp_path, "second", env) as second:
                second.said("lease_held")
                first.kill()
                second.said("connected")
                grows(redis_url, "SPY", 50)
                second.process.send(signal.SIGINT)
                assert second.ended() == 0
    assert_whole(redis_url)


def test_paused_ingest_that_resumes_after_a_takeover_writes_nothing_and_logs_it(
    gateway: GatewayThread, redis_url: str, tmp_path: Path
) -> None:
    with gateway:
        env = environment_of(tmp_path, gateway.port, redis_url, *SYMBOLS, ibkr_lease_wait_secs=600)
        with ingest_process(tmp_path, "first", env) as first:
            grows(redis_url, "SPY", 50)
            with ingest_process(tmp_path, "second", env) as second:
                second.said("lease_held")
                first.process.send(signal.SIGSTOP)
                second.said("subscribed")
                grows(redis_url, "SPY", 50)
                first.process.send(signal.SIGCONT)
                assert first.ended() == 1
                assert "another ingest has taken over" in first.log_path.read_text()
                grows(redis_url, "SPY", 50)
                second.process.send(signal.SIGTERM)
                assert second.ended() == 0
    assert_whole(redis_url)


def kill_again_and_again(gateway: GatewayThread, redis_url: str, folder: Path, times: int) -> None:
    dice = random.Random(times)
    with gateway:
        env = environment_of(folder, gateway.port, redis_url, *SYMBOLS, ibkr_rotation_secs=0.5)
        for number in range(times):
            with ingest_process(folder, f"run{number}", env) as run:
                grows(redis_url, dice.choice(SYMBOLS), dice.randint(1, 1500))
                run.kill()
            assert_whole(redis_url)


def test_restarted_ingest_continues_the_numbering_after_a_kill(
    gateway: GatewayThread, redis_url: str, tmp_path: Path
) -> None:
    kill_again_and_again(gateway, redis_url, tmp_path, 2)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_ingest_killed_at_thirty_random_moments_leaves_no_gap_and_no_repeat(
    gateway: GatewayThread, redis_url: str, tmp_path: Path
) -> None:
    kill_again_and_again(gateway, redis_url, tmp_path, 30)
