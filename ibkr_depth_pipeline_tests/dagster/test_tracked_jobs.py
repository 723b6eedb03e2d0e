"""Dagster's runs in the words of the alerts."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from ibkr_depth_pipeline.definitions import build_definitions
from ibkr_depth_pipeline.orchestration.gateway_assets import load_gateway_assets
from ibkr_depth_pipeline.orchestration.monitoring.tracked_jobs import TrackedJob, newest_runs

INGEST = "ibkr_depth_ingest_job"
ELSEWHERE = "redis://elsewhere:6379/0"
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({}, ""),
    "of an op": ({"ops": {"ibkr_depth_feed": {"config": {"stop_at_close": True}}}}, ""),
    "of another resource": ({"resources": {"ibkr": {"config": {"port": 4001}}}}, ""),
    "a null": ({"resources": {"redis": {"config": {"url": None}}}}, ""),
    "a URL": ({"resources": {"redis": {"config": {"url": ELSEWHERE}}}}, ELSEWHERE),
    "a variable": ({"resources": {"redis": {"config": {"url": {"env": "REDIS_ELSEWHERE"}}}}}, ELSEWHERE),
}


def redis_told(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, unset: str = "") -> str:
    """What is told of a run that was launched with this config; `unset` is gone from the environment since."""
    monkeypatch.setenv("REDIS_ELSEWHERE", ELSEWHERE)
    job = build_definitions(load_gateway_assets()).resolve_job_def(INGEST)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.create_run_for_job(job, run_config=config)
        monkeypatch.delenv(unset, raising=False)
        (run,) = newest_runs(instance, TrackedJob(INGEST))
    assert ELSEWHERE not in repr(run)
    return run.redis_url


@pytest.mark.parametrize(("config", "told"), CONFIGS.values(), ids=CONFIGS)
def test_tracked_run_holds_the_redis_url_of_its_config(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], told: str
) -> None:
    assert redis_told(config, monkeypatch) == told


def test_unset_variable_is_not_taken_for_the_redis_of_the_settings(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = CONFIGS["a variable"]
    assert redis_told(config, monkeypatch, unset="REDIS_ELSEWHERE") == "REDIS_ELSEWHERE"
