"""The ingest job in this process, against a simulated gateway and a real Redis."""

from __future__ import annotations

from typing import Any

import dagster as dg
import redis

from ibkr_depth_pipeline.definitions import defs
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline_tests.dagster.conftest import SYMBOLS

FEED = dg.AssetKey(["raw", "ibkr", "depth", "feed"])


def execute(instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    job = defs.resolve_job_def("ibkr_depth_ingest_job")
    run_config = {"ops": {"ibkr_depth_feed": {"config": config}}}
    return job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False)


def test_a_duration_records_the_universe_and_sums_it_up(
    gateway: GatewayThread, environment: dict[str, str], shared_redis_url: str
) -> None:
    with dg.DagsterInstance.ephemeral() as instance, redis.Redis.from_url(shared_redis_url) as store:
        result = execute(instance, duration=4.0)
        event = instance.get_latest_materialization_event(FEED)
        stored = {symbol: store.xlen(f"raw:ibkr:depth:stream:{symbol}") for symbol in SYMBOLS}
    assert result.success
    assert event is not None and event.asset_materialization is not None
    metadata = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert all(stored.values())
    assert metadata["snapshots"] == sum(stored.values())
    assert metadata["ended_by"] == "itself"
    assert metadata["refused_309"] == 0
    assert not gateway.journal.errors(309)
