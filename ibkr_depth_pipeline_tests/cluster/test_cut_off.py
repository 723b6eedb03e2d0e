"""A master is cut off from its Sentinels and its replica, but not from us: whoever writes finds the new one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ResponseError

from ibkr_depth_pipeline.box.embedded_redis import HOST, EmbeddedRedis
from ibkr_depth_pipeline.redis_link.failures import is_deposed
from ibkr_depth_pipeline.schema.keys import lease_key, stream_key
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline_tests.cluster.servers import WatchedRedis, ask, length_at
from ibkr_depth_pipeline_tests.cluster.truth import eventually
from ibkr_depth_pipeline_tests.sink.writing import DRAIN, SnapshotWriter, identity, numbers, snapshots


@pytest.mark.parametrize("refuses", [False, True], ids=["it is not replicated", "it refuses without its replica"])
async def test_writer_and_lease_move_to_the_new_master(watched: WatchedRedis, refuses: bool) -> None:
    cut_off = watched.master
    client = open_redis(watched.url)
    lease = Lease(client, "default", identity("one"), 2)
    await lease.acquire()
    replicas = int(not refuses)
    writer = SnapshotWriter(client, maxlen=1_000, buffer_bytes=1 << 26, lease=lease, min_replicas=replicas)
    tasks = [asyncio.ensure_future(lease.keep()), asyncio.ensure_future(writer.run())]
    for snapshot in snapshots(count=10):
        writer.append(snapshot)
    assert await writer.drain(DRAIN)
    ask(cut_off.port, "CONFIG", "SET", "min-replicas-to-write", int(refuses))
    watched.cut_off(cut_off)
    new = await asyncio.to_thread(watched.wait_for_another, cut_off)
    ask(new.port, "DEL", lease_key("default"))  # so that it is there only if it is renewed there
    for snapshot in snapshots(count=10, first=11):
        writer.append(snapshot)
    await eventually(lambda: length_at(new, stream_key("SPY")) == 20)
    await eventually(lambda: ask(new.port, "EXISTS", lease_key("default")))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await numbers(client) == list(range(1, 21))
    await client.aclose()
    watched.heal()
    ask(cut_off.port, "CONFIG", "SET", "min-replicas-to-write", 0)


async def test_connection_in_use_when_the_new_master_was_found_follows_it(watched: WatchedRedis) -> None:
    client = open_redis(watched.url)
    pool = client.connection_pool
    in_use = await pool.get_connection()
    cut_off = watched.master
    watched.cut_off(cut_off)
    new = await asyncio.to_thread(watched.wait_for_another, cut_off)
    assert await _port(client) == new.port
    await pool.release(in_use)
    assert await asyncio.gather(_port(client), _port(client)) == [new.port] * 2
    await client.aclose()


@pytest.mark.parametrize(
    ("words", "deposed"),
    [
        (("REPLICAOF", HOST, "1"), True),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), True),
        (("CONFIG", "SET", "maxmemory", "1"), False),
    ],
    ids=["a replica", "no replicas", "full"],
)
def test_deposed_master_is_recognized_by_its_answer_to_a_command_and_to_a_script(
    redis_server: EmbeddedRedis, words: tuple[str, ...], deposed: bool
) -> None:
    ask(redis_server.port, *words)
    for command in (("SET", "key", "1"), ("EVAL", "return redis.call('SET', KEYS[1], '1')", "1", "key")):
        with pytest.raises(ResponseError) as refused:
            ask(redis_server.port, *command)
        assert is_deposed(refused.value) is deposed


async def _port(client: Any) -> int:
    return int((await client.info("server"))["tcp_port"])
