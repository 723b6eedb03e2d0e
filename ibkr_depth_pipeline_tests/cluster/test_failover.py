"""A master dies under load. Each row is stored once and in order; who reads or archives meanwhile misses nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ibkr_depth_pipeline.sink.keys import lease_key, stream_key
from ibkr_depth_pipeline_tests.cluster.filling import SYMBOLS
from ibkr_depth_pipeline_tests.cluster.servers import ClusterOfRedis, Servers
from ibkr_depth_pipeline_tests.cluster.truth import recorded


async def test_a_master_that_is_killed_under_load_costs_no_row(several: Servers, tmp_path: Path) -> None:
    key = stream_key("SPY")
    async with recorded(several, tmp_path, ibkr_redis_min_replicas=1) as trial:
        dead = await asyncio.to_thread(several.master_of, key)
        dead.kill()
        await asyncio.to_thread(several.wait_for_another, dead, key)
        dead.start()  # the replica that the new master needs
        await asyncio.to_thread(several.wait_until_whole)
        await trial.grows()
        await trial.is_true()


async def test_the_other_masters_are_written_and_read_while_one_hangs(cluster: ClusterOfRedis, tmp_path: Path) -> None:
    async with recorded(cluster, tmp_path) as trial:
        owners = {symbol: cluster.master_of(stream_key(symbol)) for symbol in SYMBOLS}
        lease = cluster.master_of(lease_key("default"))
        hangs = next(owner for owner in owners.values() if owner is not lease)
        replicas = [server for server in cluster.servers if server not in owners.values()]
        cluster.pause(hangs, *replicas)  # nobody takes over
        others = [symbol for symbol, owner in owners.items() if owner is not hangs]
        await trial.grows(others, by=1000)
        count = trial.length(others[0])
        await trial.until(lambda: len(trial.numbers_followed(others[0])) >= count)
        cluster.resume()
        await trial.grows()
        await trial.is_true()
