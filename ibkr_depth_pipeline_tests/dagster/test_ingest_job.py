"""The ingest job in this process, against a simulated gateway and a real Redis."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import dagster as dg
import pytest
import redis

from ibkr_depth_pipeline.definitions import defs
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline_tests.dagster.conftest import FEED, SYMBOLS, execute, failure_of


def test_run_with_a_duration_records_the_universe_and_summarizes_it(
    gateway: GatewayThread, environment: dict[str, str], shared_redis_url: str
) -> None:
    with dg.DagsterInstance.ephemeral() as instance, redis.Redis.from_url(shared_redis_url) as store:
        result = execute(instance, duration=4.0)
        event = instance.get_latest_materialization_event(FEED)
        stored = {symbol: store.xlen(f"raw:ibkr:depth:stream:{symbol}") for symbol in SYMBOLS}
    assert result.success
    assert event is not None
    assert event.asset_materialization is not None
    metadata = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert all(stored.values())
    assert metadata["session_snapshots"] == sum(stored.values())
    assert metadata["ended_by"] == "itself"
    assert metadata["session_refused_309"] == 0
    assert not gateway.journal.errors(309)


def test_missing_gateway_fails_the_run_with_a_plain_reason(
    environment: dict[str, str], unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBKR_PORT", str(unused_port))
    with dg.DagsterInstance.ephemeral() as instance:
        result = execute(instance, duration=1.0)
    assert not result.success
    assert f"127.0.0.1:{unused_port}" in failure_of(result)


def test_wrong_settings_fail_the_run_before_anything_connects_and_are_all_named(
    environment: dict[str, str], gateway: GatewayThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBKR_DEPTH_ROWS", "none")
    monkeypatch.setenv("IBKR_LOG_LEVEL", "CHATTY")
    with dg.DagsterInstance.ephemeral() as instance:
        result = execute(instance)
    text = failure_of(result)
    assert "IBKR_DEPTH_ROWS='none' is not allowed" in text
    assert "IBKR_LOG_LEVEL='CHATTY' is not allowed" in text
    assert not gateway.journal.entries("opened")


def test_wrong_universe_fails_the_run_and_names_the_entry(
    environment: dict[str, str], universe_file: Path, gateway: GatewayThread
) -> None:
    universe_file.write_text("symbols: [SPY, spx]")
    with dg.DagsterInstance.ephemeral() as instance:
        result = execute(instance)
    assert "'spx' is not a symbol" in failure_of(result)
    assert not gateway.journal.entries("opened")


def test_run_config_wins_over_the_resource_and_the_resource_over_the_environment(
    environment: dict[str, str], gateway: GatewayThread
) -> None:
    resources = {"ibkr": {"config": {"max_concurrent_depth": 1, "client_id": 4242}}}
    job = defs.resolve_job_def("ibkr_depth_ingest_job")
    ops = {"ibkr_depth_feed": {"config": {"duration": 1.0, "max_concurrent_depth": 2}}}
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, run_config={"ops": ops, "resources": resources}).success
    (started,) = gateway.journal.requests("startApi")
    assert int(started.detail["clientId"]) == 4242
    assert most_at_once(gateway) == 2


def most_at_once(gateway: GatewayThread) -> int:
    """Subscriptions that were open together, at most."""
    steps = {"subscribed": 1, "unsubscribed": -1}
    changes = [steps.get(entry.kind, 0) for entry in gateway.journal.entries()]
    return max(accumulate(changes))
