"""IBKR_REDIS_MIN_REPLICAS: what too few replicas have is not acknowledged, is said again, and stands there once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from ibkr_depth_pipeline.box.embedded_redis import HOST, EmbeddedRedis
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.sink.connection import check_writable, open_redis
from ibkr_depth_pipeline.sink.jobs import FLUSH_ENTRIES
from ibkr_depth_pipeline_tests.cluster.filling import SYMBOLS
from ibkr_depth_pipeline_tests.cluster.servers import ClusterOfRedis, ask
from ibkr_depth_pipeline_tests.cluster.truth import eventually
from ibkr_depth_pipeline_tests.conftest import REPOSITORY
from ibkr_depth_pipeline_tests.sink.writing import DRAIN, SnapshotWriter, numbers, reading, snapshots

DOCUMENT = REPOSITORY / "docs" / "redis-cluster.md"


@asynccontextmanager
async def writing_to_replicas(url: str, replicas: int) -> AsyncIterator[SnapshotWriter]:
    client = open_redis(url)
    writer = SnapshotWriter(client, maxlen=1_000_000, buffer_bytes=1 << 26, min_replicas=replicas)
    task = asyncio.ensure_future(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()


async def test_what_no_replica_has_waits_and_is_there_once_when_one_has_it(redis_server: EmbeddedRedis) -> None:
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


async def test_what_is_refused_is_told_as_it_is_also_where_replicas_are_missing(redis_server: EmbeddedRedis) -> None:
    async with writing_to_replicas(redis_server.url, 1) as writer, reading(redis_server.url) as client:
        await client.config_set("maxmemory", 1)
        with capture_logs() as logged:
            for snapshot in snapshots(count=3):
                writer.append(snapshot)
            await eventually(lambda: [line for line in logged if "maxmemory" in line.get("error", "")])


async def test_none_are_waited_for_unless_asked(redis_server: EmbeddedRedis) -> None:
    async with writing_to_replicas(redis_server.url, 0) as writer, reading(redis_server.url) as client:
        for snapshot in snapshots(count=100):
            writer.append(snapshot)
        assert await writer.drain(DRAIN)
        assert "cmdstat_wait" not in await client.info("commandstats")


async def test_a_master_without_its_replica_holds_up_only_its_own_symbols(cluster: ClusterOfRedis) -> None:
    replicas = [server for server in cluster.servers if ask(server.port, "ROLE")[0] == b"slave"]
    master_port = int(ask(replicas[0].port, "ROLE")[2])
    (master,) = [server for server in cluster.servers if server.port == master_port]
    symbols = [f"S{number}" for number in range(20)]
    lonely = [symbol for symbol in symbols if cluster.master_of(f"raw:ibkr:depth:stream:{symbol}") is master]
    replicas[0].kill()
    async with writing_to_replicas(cluster.url, 1) as writer:
        for symbol in symbols:
            for snapshot in snapshots(symbol, count=50):
                writer.append(snapshot)
        others = dict.fromkeys(sorted(set(symbols) - set(lonely)), 50)
        await eventually(lambda: dict(sorted(writer.figures.stored.items())) == others)
        replicas[0].start()
        assert await writer.drain(DRAIN)
        assert writer.figures.stored == dict.fromkeys(symbols, 50)


async def test_the_check_looks_for_the_replicas(redis_server: EmbeddedRedis, cluster: ClusterOfRedis) -> None:
    with pytest.raises(SinkUnavailable, match="0 of the 1 replicas that IBKR_REDIS_MIN_REPLICAS asks for"):
        await check_writable(redis_server.url, 1)
    await check_writable(cluster.url, 1)
    with pytest.raises(SinkUnavailable, match="1 of the 2 replicas"):
        await check_writable(cluster.url, 2)


async def test_a_user_with_no_more_rights_than_docs_redis_cluster_says_is_enough(cluster: ClusterOfRedis) -> None:
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
