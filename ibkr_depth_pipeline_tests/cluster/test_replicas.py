"""IBKR_REDIS_MIN_REPLICAS: what too few replicas have is not acknowledged, is said again, and stands there once."""

from __future__ import annotations

import asyncio
import re
import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from hiredis import pack_command
from structlog.testing import capture_logs

from ibkr_depth_pipeline.box.embedded_redis import HOST, EmbeddedRedis
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.redis_link.pipeline import ask as ask_many
from ibkr_depth_pipeline.schema.keys import heartbeat_key, last_key, stream_key
from ibkr_depth_pipeline.sink.connection import WAIT_MS, check_writable, open_redis
from ibkr_depth_pipeline.sink.wire import Part, open_wire
from ibkr_depth_pipeline.sink.writes import FLUSH_ENTRIES
from ibkr_depth_pipeline_tests.cluster.filling import SYMBOLS
from ibkr_depth_pipeline_tests.cluster.servers import ClusterOfRedis, ask, client_of, length_at
from ibkr_depth_pipeline_tests.cluster.truth import eventually, secs_until_stored
from ibkr_depth_pipeline_tests.conftest import REPOSITORY
from ibkr_depth_pipeline_tests.sink.writing import DRAIN, SnapshotWriter, numbers, reading, snapshots

DOCUMENT = REPOSITORY / "docs" / "redis-cluster.md"


SYMBOLS_OF_ALL = [f"S{number}" for number in range(20)]


@asynccontextmanager
async def writing_to_replicas(url: str, replicas: int, *, buffer_bytes: int = 1 << 26) -> AsyncIterator[SnapshotWriter]:
    client = open_redis(url)
    writer = SnapshotWriter(client, maxlen=1_000_000, buffer_bytes=buffer_bytes, min_replicas=replicas)
    task = asyncio.ensure_future(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


async def test_snapshot_without_a_replica_waits_and_is_stored_once_when_one_has_it(redis_server: EmbeddedRedis) -> None:
    with EmbeddedRedis(extra_args=("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")) as replica:
        async with writing_to_replicas(redis_server.url, 1) as writer, reading(redis_server.url) as client:
            with capture_logs() as logged:
                for snapshot in snapshots(count=300):
                    writer.append(snapshot)
                await eventually(lambda: [line for line in logged if "0 of 1 replicas" in line.get("error", "")])
            assert await numbers(client) == list(range(1, FLUSH_ENTRIES + 1))
            assert writer.figures.stored == {}
            assert writer.figures.buffered_entries == 300
            ask(replica.port, "REPLICAOF", HOST, redis_server.port)
            for snapshot in snapshots(count=100, first=301):
                writer.append(snapshot)
            assert await writer.drain(DRAIN)
            assert writer.figures.stored == {"SPY": 400}
            assert await numbers(client) == list(range(1, 401))


async def test_lone_snapshot_held_already_is_not_stored_before_a_replica_has_it(
    redis_server: EmbeddedRedis,
) -> None:
    with EmbeddedRedis(extra_args=("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")) as replica:
        async with writing_to_replicas(redis_server.url, 1) as writer, reading(redis_server.url) as client:
            writer.append(next(snapshots()))
            await eventually(lambda: writer.figures.write_failures > 2)
            assert (await numbers(client), writer.figures.stored) == ([1], {})
            ask(replica.port, "REPLICAOF", HOST, redis_server.port)
            assert await writer.drain(DRAIN)
            assert (await numbers(client), writer.figures.stored) == ([1], {"SPY": 1})


async def test_refusal_keeps_its_own_reason_if_replicas_are_missing(redis_server: EmbeddedRedis) -> None:
    async with writing_to_replicas(redis_server.url, 1) as writer, reading(redis_server.url) as client:
        await client.config_set("maxmemory", 1)
        with capture_logs() as logged:
            for snapshot in snapshots(count=3):
                writer.append(snapshot)
            await eventually(lambda: [line for line in logged if "maxmemory" in line.get("error", "")])


async def test_replicas_are_waited_for_only_if_the_setting_asks_for_it(redis_server: EmbeddedRedis) -> None:
    async with writing_to_replicas(redis_server.url, 0) as writer, reading(redis_server.url) as client:
        for snapshot in snapshots(count=100):
            writer.append(snapshot)
        assert await writer.drain(DRAIN)
        assert "cmdstat_wait" not in await client.info("commandstats")


class Lonely(NamedTuple):
    """A master whose replica is down, and of SYMBOLS_OF_ALL those with their stream, and with no key at all, there."""

    master: EmbeddedRedis
    replica: EmbeddedRedis
    its_own: list[str]
    others: list[str]


def lonely_master(cluster: ClusterOfRedis) -> Lonely:
    """Kill the replica of one of the masters."""
    master = cluster.master_of(stream_key(SYMBOLS_OF_ALL[0]))
    replica = cluster.replica_of(master)
    replica.kill()

    def is_there(symbol: str, *keys: Callable[[str], str]) -> bool:
        return any(cluster.master_of(key(symbol)) is master for key in keys)

    its_own = [symbol for symbol in SYMBOLS_OF_ALL if is_there(symbol, stream_key)]
    others = [symbol for symbol in SYMBOLS_OF_ALL if not is_there(symbol, stream_key, last_key, heartbeat_key)]
    return Lonely(master, replica, its_own, others)


async def test_master_without_its_replica_holds_up_only_its_own_symbols(cluster: ClusterOfRedis) -> None:
    lonely = lonely_master(cluster)
    async with writing_to_replicas(cluster.url, 1) as writer:
        for symbol in SYMBOLS_OF_ALL:
            for snapshot in snapshots(symbol, count=50):
                writer.append(snapshot)
        others = dict.fromkeys(sorted(set(SYMBOLS_OF_ALL) - set(lonely.its_own)), 50)
        await eventually(lambda: dict(sorted(writer.figures.stored.items())) == others)
        lonely.replica.start()
        assert await writer.drain(DRAIN)
        assert writer.figures.stored == dict.fromkeys(SYMBOLS_OF_ALL, 50)


@pytest.mark.parametrize("refuses", [0, 1])
async def test_rows_for_the_other_masters_do_not_wait_for_it(cluster: ClusterOfRedis, refuses: int) -> None:
    lonely = lonely_master(cluster)
    lags = []
    ask(lonely.master.port, "CONFIG", "SET", "min-replicas-to-write", refuses)
    try:
        async with writing_to_replicas(cluster.url, 1) as writer:
            for snapshot in snapshots(lonely.its_own[0], count=10):
                writer.append(snapshot)
            await eventually(lambda: writer.figures.write_failures)
            for snapshot in snapshots(lonely.others[0], count=50):
                lags.append(await secs_until_stored(writer, snapshot))
                await asyncio.sleep(0.05)
    finally:
        ask(lonely.master.port, "CONFIG", "SET", "min-replicas-to-write", 0)
    assert statistics.median(lags) < WAIT_MS / 2000, lags  # each would wait for half of it, or more


async def test_master_without_its_replica_gets_one_flush_and_no_more(cluster: ClusterOfRedis) -> None:
    lonely = lonely_master(cluster)
    symbol = lonely.its_own[0]
    async with writing_to_replicas(cluster.url, 1, buffer_bytes=1 << 20) as writer:
        for first in range(1, 40_001, 1_000):  # more than the buffer holds: the oldest go, and others come first
            for snapshot in snapshots(symbol, count=1_000, first=first):
                writer.append(snapshot)
            await asyncio.sleep(0.1)
        assert writer.figures.dropped[symbol] > FLUSH_ENTRIES
        assert length_at(lonely.master, stream_key(symbol)) == FLUSH_ENTRIES
        lonely.replica.start()
        assert await writer.drain(DRAIN)
        assert writer.figures.newest_seq == {symbol: 40_000}


async def test_master_without_its_replica_is_read_as_before(cluster: ClusterOfRedis) -> None:
    lonely = lonely_master(cluster)
    symbol = lonely.its_own[0]
    client = open_redis(cluster.url)
    wire = open_wire(client, 1)
    part = Part(stream_key(symbol), [pack_command(("XADD", stream_key(symbol), "1-1", "seq", "1"))], 1)
    [first] = await wire.exchange([part])
    [second] = await wire.exchange([part])
    assert [str(answer) for answer in (first, second)] == [
        "not replicated: 0 of 1 replicas have it",
        f"not sent: {HOST}:{lonely.master.port} lacks replicas",
    ]
    assert await ask_many(client, [("XLEN", stream_key(symbol))]) == [1]
    await wire.close()
    await client.aclose()


async def test_slot_moved_away_from_a_master_without_its_replica_is_found(cluster: ClusterOfRedis) -> None:
    lonely = lonely_master(cluster)
    symbol, key = lonely.its_own[0], stream_key(lonely.its_own[0])
    target = cluster.master_of(stream_key(lonely.others[0]))
    async with writing_to_replicas(cluster.url, 1) as writer:
        for snapshot in snapshots(symbol, count=10):
            writer.append(snapshot)
        await eventually(lambda: writer.figures.write_failures)
        for _ in cluster.moving(key, lonely.master, target):
            pass
        await eventually(lambda: writer.figures.stored == {symbol: 10})
        lonely.replica.start()


async def _outlived(cluster: ClusterOfRedis, writer: SnapshotWriter, until: Callable[[], object]) -> list[int]:
    """The master takes ten snapshots, five more without its replica until `until` holds, and is killed; the replica
    takes its place and gets five more. Returns the numbers that stand in the end."""
    key = stream_key("SPY")
    dead = cluster.master_of(key)
    for snapshot in snapshots(count=10):
        writer.append(snapshot)
    assert await writer.drain(DRAIN)
    await eventually(lambda: length_at(cluster.replica_of(dead), key, "READONLY") == 10)
    cluster.cut_off(dead)
    for snapshot in snapshots(count=5, first=11):
        writer.append(snapshot)
    await eventually(until)
    assert length_at(dead, key) == 15
    dead.kill()
    await asyncio.to_thread(cluster.wait_for_another, dead, key)
    dead.start()
    for snapshot in snapshots(count=5, first=16):
        writer.append(snapshot)
    assert await writer.drain(DRAIN)
    with client_of(cluster.master_of(key)) as client:
        return [int(fields[b"seq"]) for _, fields in client.xrange(key)]


async def test_snapshots_that_only_a_dead_master_had_are_sent_again(cluster: ClusterOfRedis) -> None:
    async with writing_to_replicas(cluster.url, 1) as writer:
        stood = await _outlived(cluster, writer, lambda: writer.figures.write_failures)
        assert stood == list(range(1, 21))


async def test_snapshots_that_only_a_dead_master_had_are_lost_without_replicas_to_wait_for(
    cluster: ClusterOfRedis,
) -> None:
    async with writing_to_replicas(cluster.url, 0) as writer:
        stood = await _outlived(cluster, writer, lambda: writer.figures.stored == {"SPY": 15})
        assert stood == [*range(1, 11), *range(16, 21)]


async def test_check_counts_the_replicas(redis_server: EmbeddedRedis, cluster: ClusterOfRedis) -> None:
    with pytest.raises(SinkUnavailable, match="0 of the 1 replicas that IBKR_REDIS_MIN_REPLICAS asks for"):
        await check_writable(redis_server.url, 1)
    await check_writable(cluster.url, 1)
    with pytest.raises(SinkUnavailable, match="1 of the 2 replicas"):
        await check_writable(cluster.url, 2)


async def test_user_with_the_rights_of_docs_redis_cluster_suffices(cluster: ClusterOfRedis) -> None:
    rules = re.search(r"ACL SETUSER recorder (.*?)\n\n", DOCUMENT.read_text(), re.DOTALL)
    assert rules is not None
    words = rules[1].replace("\\\n", " ").replace(">PASSWORD", ">hunter2").split()
    for server in cluster.servers:
        ask(server.port, "ACL", "SETUSER", "recorder", *words)
    url = cluster.url.replace("://", "://recorder:hunter2@")
    await check_writable(url)
    async with writing_to_replicas(url, 1) as writer:
        for symbol in SYMBOLS:
            for snapshot in snapshots(symbol, count=50):
                writer.append(snapshot)
        assert await writer.drain(DRAIN)
    for server in cluster.servers:
        ask(server.port, "ACL", "DELUSER", "recorder")
