"""Only the very process of a run that was written off is killed."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from ibkr_depth_pipeline.alerts.fencing import end_process
from ibkr_depth_pipeline.sink.figures import RunIdentity


@pytest.fixture
def stuck() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_a_process_of_this_machine_is_killed(stuck: subprocess.Popen[bytes]) -> None:
    assert end_process(RunIdentity("run-1", socket.gethostname(), stuck.pid, now_ms()))
    assert stuck.wait(timeout=30) == -9
    assert not end_process(RunIdentity("run-1", socket.gethostname(), stuck.pid, now_ms()))


def test_one_of_another_machine_or_younger_than_the_run_is_left_alone(stuck: subprocess.Popen[bytes]) -> None:
    assert not end_process(RunIdentity("run-1", "elsewhere", stuck.pid, now_ms()))
    assert not end_process(RunIdentity("run-1", socket.gethostname(), stuck.pid, now_ms() - 3_600_000))
    assert stuck.poll() is None
