"""What Dagster loads, without running it; and the two commands that load it from the workspace file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from ibkr_depth_pipeline.definitions import defs
from ibkr_depth_pipeline_tests.conftest import REPOSITORY
from ibkr_depth_pipeline_tests.dagster.conftest import FEED


def test_definitions_load() -> None:
    dg.Definitions.validate_loadable(defs)


@pytest.mark.parametrize("job", ["ibkr_depth_ingest_job", "__ASSET_JOB"])
def test_feed_runs_in_the_worker_and_the_pool_however_it_is_started(job: str) -> None:
    resolved = defs.resolve_job_def(job)
    assert resolved.executor_def.name == "in_process"
    op = resolved.graph.node_named("ibkr_depth_feed").definition
    assert isinstance(op, dg.OpDefinition)
    assert op.pool == "ibkr_depth"
    assert op.retry_policy is None


def test_launchpad_documents_every_field_of_the_run_config() -> None:
    job = defs.resolve_job_def("ibkr_depth_ingest_job")
    schema = job.run_config_schema.config_type.fields  # type: ignore[attr-defined]
    feed = schema["ops"].config_type.fields["ibkr_depth_feed"].config_type.fields["config"].config_type.fields
    gateway = schema["resources"].config_type.fields["ibkr"].config_type.fields["config"].config_type.fields
    redis = schema["resources"].config_type.fields["redis"].config_type.fields["config"].config_type.fields
    assert {"symbols", "duration", "rotation_secs", "max_concurrent_depth"} <= set(feed)
    assert {"host", "port", "client_id", "client_id_max_offset", "depth_rows", "max_concurrent_depth"} <= set(gateway)
    for field in (*feed.values(), *gateway.values(), *redis.values()):
        assert field.description
        assert not field.is_required


def dagster(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in the repository's top folder as a person would."""
    return subprocess.run(
        [sys.executable, "-m", "dagster", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "DAGSTER_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_dagster_definitions_validate_holds(tmp_path: Path) -> None:
    result = dagster("definitions", "validate", home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Validation successful for code location ibkr_depth_pipeline" in result.stdout + result.stderr


def test_dagster_job_execute_records(tmp_path: Path, environment: dict[str, str]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps({"ops": {"ibkr_depth_feed": {"config": {"duration": 1.0, "symbols": ["SPY"]}}}}))
    job = ["-m", "ibkr_depth_pipeline.definitions", "-j", "ibkr_depth_ingest_job"]  # it reads no workspace.yaml
    result = dagster("job", "execute", *job, "-c", str(config), home=tmp_path, **environment)
    assert result.returncode == 0, result.stderr
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]
        assert instance.get_latest_materialization_event(FEED) is not None
