"""A master dies under load. Each row is stored once and in order; who reads or archives meanwhile misses nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ibkr_depth_pipeline.schema.keys import lease_key, stream_key
from ibkr_depth_pipeline.sink.connection import open_redis
from ibkr_depth_pipeline.sink.lease import Lease
from ibkr_depth_pipeline_tests.cluster.filling import SYMBOLS
from ibkr_depth_pipeline_tests.cluster.servers import ClusterOfRedis, Servers, client_of, length_at, waits_at
from ibkr_depth_pipeline_tests.cluster.truth import eventually, numbers, recorded
from ibkr_depth_pipeline_tests.faults.recovery import stopwatch
from ibkr_depth_pipeline_tests.sink.writing import identity

FIRST_THE_CLUSTER = pytest.mark.parametrize(
    "several", ["cluster", pytest.param("watched", marks=pytest.mark.faults)], indirect=True
)


@FIRST_THE_CLUSTER
async def test_master_killed_under_load_costs_no_row(several: Servers, tmp_path: Path) -> None:
    key = stream_key("SPY")
    async with recorded(several, tmp_path, ibkr_redis_min_replicas=1) as trial:
        dead = await asyncio.to_thread(several.master_of, key)
        before = {server: waits_at(server) for server in several.servers}
        with stopwatch("from kill -9 of a master to the first flush that goes to the new one"):
            dead.kill()
            new = await asyncio.to_thread(several.wait_for_another, dead, key)
            await trial.until(lambda: waits_at(new) > before[new])
        dead.start()  # the replica that the new master needs
        await asyncio.to_thread(several.wait_until_whole)
        await trial.grows()
        await trial.is_true()


async def test_master_that_dies_after_its_replica_costs_no_row(cluster: ClusterOfRedis, tmp_path: Path) -> None:
    key = stream_key("SPY")
    async with recorded(cluster, tmp_path, ibkr_redis_min_replicas=1) as trial:
        dead = await asyncio.to_thread(cluster.master_of, key)
        cluster.cut_off(dead)
        await trial.until(lambda: any("0 of 1 replicas" in line.get("error", "") for line in trial.logged))
        dead.kill()
        await asyncio.to_thread(cluster.wait_for_another, dead, key)
        dead.start()
        await asyncio.to_thread(cluster.wait_until_whole)
        await trial.grows()
        await trial.is_true()


@pytest.mark.faults
async def test_other_masters_are_written_and_read_while_one_hangs(cluster: ClusterOfRedis, tmp_path: Path) -> None:
    async with recorded(cluster, tmp_path) as trial:
        owners = {symbol: cluster.master_of(stream_key(symbol)) for symbol in SYMBOLS}
        lease = cluster.master_of(lease_key("default"))
        hangs = next(owner for owner in owners.values() if owner is not lease)
        replicas = [server for server in cluster.servers if server not in owners.values()]
        cluster.pause(hangs, *replicas)  # nobody takes over
        others = [symbol for symbol, owner in owners.items() if owner is not hangs]
        await trial.grows(others, by=1000)
        count = trial.length(others[0])
        await trial.until(lambda: len(numbers(trial.followed, others[0])) >= count)
        cluster.resume()
        await trial.grows()
        await trial.is_true()


@pytest.mark.faults
@pytest.mark.parametrize("key", [stream_key("SPY"), lease_key("default")])
async def test_hanging_master_is_replaced_and_what_it_alone_had_is_sent_again(
    cluster: ClusterOfRedis, tmp_path: Path, key: str
) -> None:
    async with recorded(cluster, tmp_path, ibkr_redis_min_replicas=1) as trial:
        hangs = await asyncio.to_thread(cluster.master_of, key)
        cluster.pause(hangs)
        await asyncio.to_thread(cluster.wait_for_another, hangs, key)
        cluster.resume()
        await asyncio.to_thread(cluster.wait_until_whole)
        await trial.grows()
        await trial.is_true()


@pytest.mark.faults
async def test_masters_killed_one_after_the_other_cost_no_row(cluster: ClusterOfRedis, tmp_path: Path) -> None:
    async with recorded(cluster, tmp_path, ibkr_redis_min_replicas=1) as trial:
        for symbol in SYMBOLS:
            key = stream_key(symbol)
            dead = await asyncio.to_thread(cluster.master_of, key)
            dead.kill()
            await asyncio.to_thread(cluster.wait_for_another, dead, key)
            dead.start()
            await asyncio.to_thread(cluster.wait_until_whole)
            await trial.grows()
        await trial.is_true()


@pytest.mark.faults
async def test_slot_that_moves_to_another_master_under_load_costs_no_row(
    cluster: ClusterOfRedis, tmp_path: Path
) -> None:
    key = stream_key("SPY")
    async with recorded(cluster, tmp_path) as trial:
        source = cluster.master_of(key)
        target = cluster.master_of(
            stream_key(next(s for s in SYMBOLS if cluster.master_of(stream_key(s)) is not source))
        )
        move = cluster.moving(key, source, target)
        await asyncio.to_thread(next, move)  # the slot is being moved, the stream is where it was
        await trial.grows()
        await asyncio.to_thread(next, move)  # the stream is moved, the slot not yet
        await trial.until(lambda: length_at(target, key, "ASKING") > 0)
        before = length_at(target, key, "ASKING")
        await trial.until(lambda: length_at(target, key, "ASKING") > before + 100)
        await asyncio.to_thread(next, move)  # the slot is moved
        await trial.grows()
        assert cluster.master_of(key) is target
        await trial.is_true()


@pytest.mark.faults
async def test_lease_outlives_its_master(several: Servers) -> None:
    sink = open_redis(several.url)
    holder, other = (Lease(sink, "default", identity(name), 5) for name in ("one", "two"))
    await holder.acquire()
    keeping = asyncio.ensure_future(holder.keep())
    standing_by = asyncio.ensure_future(other.acquire(30))
    dead = await asyncio.to_thread(several.master_of, lease_key("default"))
    dead.kill()
    await asyncio.to_thread(several.wait_for_another, dead, lease_key("default"))
    with client_of(several.master_of(lease_key("default"))) as client:
        client.delete(lease_key("default"))  # as if it had not been replicated in time
        await eventually(lambda: client.exists(lease_key("default")))
    await holder.hold()
    assert not standing_by.done()
    keeping.cancel()
    standing_by.cancel()
    await asyncio.gather(keeping, standing_by, return_exceptions=True)
    await sink.aclose()
