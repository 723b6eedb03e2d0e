"""Fixtures: a moto server on loopback, which the real s3fs and botocore take for S3."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from ibkr_depth_pipeline.box.embedded_redis import HOST, free_port
from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline_tests.archive.conftest import Desk
from ibkr_depth_pipeline_tests.box.running_box import listens
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 that forgets everything at its end."""
    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", HOST, "-p", str(port)]
    log = tmp_path_factory.mktemp("s3") / "moto.log"
    process = GuardedProcess(command, log_path=log)
    try:
        assert wait_until(lambda: listens(process, port), PATIENCE_SECS), process.log_tail()
        yield f"http://{HOST}:{port}"
    finally:
        process.end(grace_secs=1.0)


@pytest.fixture
def bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket of this test's own."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3_server, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{time.time_ns()}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}/depth"


@pytest.fixture
def cloud(desk: Desk, bucket: str) -> Desk:
    """An archive in that bucket."""
    return replace(desk, settings=desk.settings.model_copy(update={"archive_url": bucket, "ibkr_lease_ttl_secs": 2.0}))
