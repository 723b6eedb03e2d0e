"""Redis away in every way that is known to happen, with real servers: each snapshot once, in order, when it is back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio as redis
from redis.exceptions import BusyLoadingError, ConnectionError
from structlog.testing import capture_logs

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis
from ibkr_depth_pipeline.schema.keys import heartbeat_key, last_key, stream_key
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, universe_of
from ibkr_depth_pipeline_tests.faults.redis_proxy import Fault, RedisProxy, port_of
from ibkr_depth_pipeline_tests.sink.writing import (
    DRAIN,
    BookSnapshot,
    SnapshotWriter,
    eventually,
    numbers,
    reading,
    snapshots,
    writing,
)

LONG_DRAIN = 120.0


def up_to(last: int) -> list[int]:
    return list(range(1, last + 1))


def append(writer: SnapshotWriter, upcoming: Iterator[BookSnapshot]) -> None:
    for snapshot in upcoming:
        writer.append(snapshot)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that this process knows."""

    async def holds() -> bool:
        return bool(condition())

    await eventually(holds)


@asynccontextmanager
async def paused(server: EmbeddedRedis) -> AsyncIterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


async def test_redis_paused_for_a_moment_gets_each_snapshot_once(redis_server: EmbeddedRedis) -> None:
    async with writing(redis_server.url) as writer:
        append(writer, snapshots(count=100))
        assert await writer.drain(DRAIN)
        async with paused(redis_server):
            append(writer, snapshots(count=2000, first=101))
            assert not await writer.drain(0.2)
        assert await writer.drain(DRAIN)
        async with reading(redis_server.url) as client:
            assert await numbers(client) == up_to(2100)


@pytest.mark.faults
async def test_redis_paused_for_30_s_gets_each_snapshot_once(redis_server: EmbeddedRedis) -> None:
    async with writing(redis_server.url) as writer:
        append(writer, snapshots(count=100))
        assert await writer.drain(DRAIN)
        async with paused(redis_server):
            for first in range(101, 3101, 100):
                append(writer, snapshots(count=100, first=first))
                await asyncio.sleep(1)  # the fault itself
        assert await writer.drain(LONG_DRAIN)
        assert writer.figures.write_failures > 2, "it gave up waiting in between"
        async with reading(redis_server.url) as client:
            assert await numbers(client) == up_to(3100)


async def test_replica_refuses_and_gets_everything_once_it_is_a_master_again(redis_server: EmbeddedRedis) -> None:
    async with writing(redis_server.url) as writer, reading(redis_server.url) as client:
        append(writer, snapshots(count=100))
        assert await writer.drain(DRAIN)
        await client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with capture_logs() as lines:
            append(writer, snapshots(count=1000, first=101))
            await until(lambda: writer.figures.write_failures > 2)
        assert all("read only replica" in line["error"] for line in lines)
        assert await numbers(client) == up_to(100)
        await client.execute_command("REPLICAOF", "NO", "ONE")
        assert await writer.drain(DRAIN)
        assert await numbers(client) == up_to(1100)


async def test_redis_that_is_still_loading_gets_everything_once_it_has_loaded(tmp_path: Path) -> None:
    slow = ("--key-load-delay", "150")  # microseconds a command
    with EmbeddedRedis(persist=True, directory=tmp_path, extra_args=slow) as server:
        async with reading(server.url) as client:
            pipe = client.pipeline(transaction=False)
            for number in range(10_000):
                pipe.rpush("ballast", number)
            await pipe.execute()
        async with writing(server.url) as writer:
            append(writer, snapshots(count=100))
            assert await writer.drain(DRAIN)
            server.kill()
            back = asyncio.ensure_future(asyncio.to_thread(server.start))
            append(writer, snapshots(count=1000, first=101))
            async with reading(server.url) as client:
                await eventually(lambda: _is_loading(client))
                failures = writer.figures.write_failures

                async def failed_again() -> bool:
                    return writer.figures.write_failures > failures or not await _is_loading(client)

                await eventually(failed_again)
            await back
            assert await writer.drain(DRAIN)
            async with reading(server.url) as client:
                assert await numbers(client) == up_to(1100)


async def _is_loading(client: redis.Redis) -> bool:
    try:
        await client.ping()
    except BusyLoadingError:
        return True
    except ConnectionError:
        pass
    return False


async def test_password_changed_and_changed_back_loses_no_snapshot() -> None:
    with EmbeddedRedis(extra_args=("--requirepass", "first")) as server:
        async with writing(server.url) as writer, reading(server.url) as client:
            append(writer, snapshots(count=100))
            assert await writer.drain(DRAIN)
            await client.config_set("requirepass", "second")
            await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with capture_logs() as lines:
                append(writer, snapshots(count=1000, first=101))
                await until(lambda: writer.figures.write_failures > 3)
            assert any("password" in str(line.get("error")).lower() for line in lines)
            assert not any("first" in str(line) or "second" in str(line) for line in lines), "no secret in the log"
            await client.config_set("requirepass", "first")
            assert await writer.drain(DRAIN)
            assert await numbers(client) == up_to(1100)


async def test_acl_that_refuses_multi_stores_nothing_twice(redis_server: EmbeddedRedis) -> None:
    async with reading(redis_server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "w", "on", ">pw", "~*", "+@all", "-multi")
        url = redis_server.url.replace("redis://", "redis://w:pw@")
        async with writing(url) as writer:
            append(writer, snapshots(count=50))
            await until(lambda: writer.figures.write_failures > 2)
            await admin.execute_command("ACL", "SETUSER", "w", "+multi")
            append(writer, snapshots(count=50, first=51))
            assert await writer.drain(DRAIN)
            assert await numbers(admin) == up_to(100)


async def test_slow_redis_gets_everything_in_the_end(redis_server: EmbeddedRedis) -> None:
    async with RedisProxy(redis_server.port) as proxy:
        async with writing(proxy.url) as writer, reading(redis_server.url) as client:
            proxy.delay = 0.5
            append(writer, snapshots(count=1500))
            append(writer, snapshots("QQQ", count=1500))
            await until(lambda: writer.figures.stored.get("QQQ", 0) >= 512)
            proxy.delay = 0.0
            assert await writer.drain(DRAIN)
            assert await numbers(client) == await numbers(client, "QQQ") == up_to(1500)
            assert writer.figures.write_failures == 0, "slow is not away"


@pytest.mark.faults
async def test_run_on_a_slow_redis_keeps_its_lease_and_stores_everything(redis_server: EmbeddedRedis) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway, RedisProxy(redis_server.port) as proxy:
        with capture_logs() as lines:
            async with recording(gateway, proxy.url, universe_of("SPY", "QQQ")) as run:
                await run.grows("SPY", 50)
                proxy.delay = 0.5
                await run.grows("SPY", 1500)
                proxy.delay = 0.0
                summary = await run.stop()
                stream = await run.stream("SPY")
    assert [snapshot.seq for snapshot in stream] == up_to(len(stream))
    assert len(stream) == summary.rows["SPY"]
    assert not [line for line in lines if line["event"] == "redis_write_failed"]


@pytest.mark.parametrize("fault", [Fault.CUT_REQUEST, Fault.LOSE_REPLY, Fault.LOSE_REQUEST])
async def test_connection_cut_around_a_block_of_two_symbols_stores_each_snapshot_once(
    shared_redis_url: str, fault: Fault
) -> None:
    async with RedisProxy(port_of(shared_redis_url)) as proxy:
        async with writing(proxy.url) as writer, reading(shared_redis_url) as client:
            proxy.faults.append(fault)
            append(writer, snapshots(count=400))
            append(writer, snapshots("QQQ", count=400))
            assert await writer.drain(DRAIN)
            assert await numbers(client) == await numbers(client, "QQQ") == up_to(400)
            assert proxy.met == [fault]


async def test_late_hash_or_heartbeat_never_overwrites_a_newer_one(shared_redis_url: str) -> None:
    async with writing(shared_redis_url) as writer, reading(shared_redis_url) as client:
        await client.hset(last_key("SPY"), mapping={"seq": 500, "ts": 1_800_000_000_000})
        await client.set(heartbeat_key("SPY"), 1_800_000_000_000)
        append(writer, snapshots(count=10))
        assert await writer.drain(DRAIN)
        assert await client.hget(last_key("SPY"), "seq") == b"500"
        assert await client.get(heartbeat_key("SPY")) == b"1800000000000"


async def test_full_buffer_drops_the_oldest_of_every_symbol_counted_and_logged(redis_server: EmbeddedRedis) -> None:
    with capture_logs() as lines:
        async with writing(redis_server.url, buffer_bytes=200_000) as writer:
            redis_server.kill()
            for spy, qqq in zip(snapshots(count=1000), snapshots("QQQ", count=1000), strict=True):
                writer.append(spy)
                writer.append(qqq)
            assert writer.figures.buffered_bytes <= 200_000
            lost = dict(writer.figures.dropped)
            await asyncio.to_thread(redis_server.start)
            assert await writer.drain(DRAIN)
            async with reading(redis_server.url) as client:
                for symbol in ("SPY", "QQQ"):
                    assert await numbers(client, symbol) == list(range(lost[symbol] + 1, 1001))
    told = [line for line in lines if line["event"] == "buffer_full"]
    assert {line["symbol"] for line in told} == {"SPY", "QQQ"}
    assert len(told) < 30, "logged with a rate limit"


async def test_full_buffer_keeps_the_newest_while_blocks_are_in_flight(redis_server: EmbeddedRedis) -> None:
    async with writing(redis_server.url, buffer_bytes=1 << 16) as writer, reading(redis_server.url) as client:
        upcoming = snapshots(count=1200)
        for snapshot in itertools.islice(upcoming, 1):
            writer.append(snapshot)
        assert await writer.drain(DRAIN)
        async with paused(redis_server):
            for snapshot in itertools.islice(upcoming, 199):
                writer.append(snapshot)
            await until(lambda: writer.queue("SPY").on_its_way)
            for snapshot in upcoming:
                writer.append(snapshot)
            on_their_way = writer.figures.dropped["SPY"]
        assert await writer.drain(DRAIN)
        stored = await numbers(client)
    assert stored[-1] == 1200
    assert len(stored) == 1200 - writer.figures.dropped["SPY"]
    assert on_their_way == writer.figures.dropped["SPY"]


async def test_snapshots_dropped_while_a_block_is_in_flight_leave_a_gap_and_no_disorder(
    redis_server: EmbeddedRedis,
) -> None:
    async with RedisProxy(redis_server.port) as proxy:
        async with writing(proxy.url, buffer_bytes=100_000) as writer, reading(redis_server.url) as client:
            proxy.faults.append(Fault.ARRIVE_LATE)
            append(writer, snapshots(count=100))
            await until(lambda: proxy.late)
            append(writer, snapshots(count=1000, first=101))
            await proxy.deliver_late()
            assert await writer.drain(DRAIN)
            stored = await numbers(client)
    assert stored == sorted(set(stored))
    assert stored[-1] == 1100
    assert 1100 - len(stored) <= writer.figures.dropped["SPY"]


async def test_burst_of_50_000_snapshots_is_stored_while_other_tasks_get_their_turn(shared_redis_url: str) -> None:
    async with writing(shared_redis_url, buffer_bytes=1 << 30) as writer, reading(shared_redis_url) as client:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.ensure_future(others())
        append(writer, snapshots(count=50_000))
        assert await writer.drain(LONG_DRAIN)
        other.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await other
        assert await client.xlen(stream_key("SPY")) == 50_000
    assert turns > 50_000 / 512


async def test_write_cut_short_by_the_end_of_the_run_is_stored(redis_server: EmbeddedRedis) -> None:
    async with RedisProxy(redis_server.port) as proxy:
        async with writing(proxy.url) as writer:
            proxy.faults.append(Fault.ARRIVE_LATE)
            append(writer, snapshots(count=20))
            await until(lambda: proxy.late)
            assert not await writer.drain(0.0)
            assert writer.figures.buffered_entries == 20


async def test_gateway_is_read_on_while_redis_is_paused(redis_server: EmbeddedRedis) -> None:
    symbols = ("SPY", "QQQ", "IWM", "AAPL")
    fast = {"ibkr_rotation_secs": 0.3, "ibkr_first_row_secs": 2}
    async with SimulatedGateway(GatewayOptions(rows_per_second=500)) as gateway:
        async with recording(gateway, redis_server.url, universe_of(*symbols), **fast) as run:
            await run.grows("SPY", 50)
            async with paused(redis_server):
                before = len(gateway.journal.requests("reqMktDepth"))
                await gateway.wait_for(lambda: len(gateway.journal.requests("reqMktDepth")) > before + 8)
            summary = await run.stop()
            streams = {symbol: await run.stream(symbol) for symbol in symbols}
    assert summary.connections == 1
    assert summary.drained
    assert {symbol: len(stream) for symbol, stream in streams.items()} == summary.rows == summary.snapshots
    for stream in streams.values():
        assert [snapshot.seq for snapshot in stream] == up_to(len(stream))


async def test_run_that_ends_while_redis_is_away_logs_what_is_lost(redis_server: EmbeddedRedis) -> None:
    async with SimulatedGateway() as gateway:
        with capture_logs() as lines:
            async with recording(gateway, redis_server.url, universe_of("SPY")) as run:
                await run.grows("SPY", 50)
                async with paused(redis_server):
                    before = len(gateway.journal.rows())
                    await gateway.wait_for(lambda: len(gateway.journal.rows()) > before + 100)
                    summary = await run.stop()
    assert not summary.drained
    assert next(line["lost"] for line in lines if line["event"] == "stopped") > 0
