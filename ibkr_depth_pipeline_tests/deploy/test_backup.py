"""The recipes of docs/deployment.md: a backup that is restored on an empty host, and a hand-over to a new version."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis, free_port
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline_tests.conftest import REPOSITORY
from ibkr_depth_pipeline_tests.faults.ingest_process import environment_of, grows, ingest_process


def entries(url: str) -> list[tuple[int, int]]:
    """(unix ms, seq) of every snapshot of SPY, in order."""
    with redis.Redis.from_url(url) as store:
        return [(int(fields[b"ts"]), int(fields[b"seq"])) for _, fields in store.xrange(stream_key("SPY"))]


def record(folder: Path, name: str, port: int, url: str) -> None:
    with ingest_process(folder, name, environment_of(folder, port, url, "SPY")) as run:
        grows(url, "SPY", 50)
        run.process.send(signal.SIGTERM)
        assert run.ended() == 0


def test_snapshot_loaded_into_an_empty_redis_is_recorded_on_with_its_numbering(tmp_path: Path) -> None:
    if shutil.which("redis-cli") is None:
        pytest.skip("no redis-cli here (apt-get install redis-tools)")
    backup, load = tmp_path / "depth.rdb", REPOSITORY / "deploy" / "load_rdb.sh"
    environment = {"PATH": os.environ["PATH"], "PORT": str(free_port())}
    with GatewayThread(GatewayOptions(rows_per_second=200)) as gateway:
        with EmbeddedRedis(persist=True) as old:
            record(tmp_path, "before", gateway.port, old.url)
            subprocess.run(["redis-cli", "-u", old.url, "--rdb", backup], check=True, capture_output=True)
            saved = entries(old.url)
        with EmbeddedRedis(persist=True, extra_args=["--requirepass", "secret"]) as new:
            subprocess.run([load, backup, new.url], check=True, capture_output=True, env=environment)
            assert entries(new.url) == saved
            new.restart()  # it is in the append-only file by now
            assert entries(new.url) == saved
            record(tmp_path, "after", gateway.port, new.url)
            numbers = [seq for _, seq in entries(new.url)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > len(saved)


def test_standby_takes_over_from_a_drained_recorder_with_the_numbering(tmp_path: Path, redis_url: str) -> None:
    with GatewayThread(GatewayOptions(rows_per_second=200)) as gateway:
        env = environment_of(tmp_path, gateway.port, redis_url, "SPY", ibkr_lease_wait_secs=60, ibkr_lease_ttl_secs=5)
        with ingest_process(tmp_path, "old", env) as old:
            grows(redis_url, "SPY", 50)
            with ingest_process(tmp_path, "new", env) as new:
                new.said("lease_held")
                before = len(entries(redis_url))
                old.process.send(signal.SIGTERM)
                assert old.ended() == 0
                new.said("connected")
                grows(redis_url, "SPY", 50)
    found = entries(redis_url)
    assert [seq for _, seq in found] == list(range(1, len(found) + 1))
    # from the last snapshot that was seen of the old one: it may have stored no other
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(found[before - 1 :])]
    print(f"MEASURED hand-over between two recorders: {max(gaps)} ms without a row")
