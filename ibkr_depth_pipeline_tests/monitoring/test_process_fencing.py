"""Only the very process of a run that was written off is killed."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from ibkr_depth_pipeline.monitoring.process_fencing import end_process
from ibkr_depth_pipeline.schema.status import RunIdentity
from ibkr_depth_pipeline.sink.status import process_mark
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS


@pytest.fixture
def stuck() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_process_of_this_machine_is_killed(stuck: subprocess.Popen[bytes]) -> None:
    assert end_process(RunIdentity("run-1", socket.gethostname(), stuck.pid, now_ms()))
    assert stuck.wait(timeout=PATIENCE_SECS) == -9
    assert not end_process(RunIdentity("run-1", socket.gethostname(), stuck.pid, now_ms()))


def test_process_of_another_machine_or_younger_than_the_run_is_left_alone(stuck: subprocess.Popen[bytes]) -> None:
    assert not end_process(RunIdentity("run-1", "elsewhere", stuck.pid, now_ms()))
    assert not end_process(RunIdentity("run-1", socket.gethostname(), stuck.pid, now_ms() - 3_600_000))
    assert stuck.poll() is None


def test_older_process_with_the_same_number_is_left_alone(stuck: subprocess.Popen[bytes]) -> None:
    assert not end_process(RunIdentity("run-1", socket.gethostname(), stuck.pid, now_ms() + 3_600_000))
    assert stuck.poll() is None


def test_process_with_another_mark_is_left_alone(stuck: subprocess.Popen[bytes]) -> None:
    boot, namespace, ticks = process_mark(stuck.pid).split()
    others = (f"{boot} pid:[1] {ticks}", f"{boot} {namespace} {int(ticks) - 1}", f"0-0 {namespace} {ticks}")
    for mark in others:
        assert not end_process(RunIdentity("run-1", socket.gethostname(), stuck.pid, now_ms(), mark)), mark
    assert stuck.poll() is None


def test_process_with_the_runs_mark_is_killed_at_any_clock_offset(stuck: subprocess.Popen[bytes]) -> None:
    mark = process_mark(stuck.pid)
    assert end_process(RunIdentity("run-1", socket.gethostname(), stuck.pid, now_ms() - 3_600_000, mark))
    assert stuck.wait(timeout=PATIENCE_SECS) == -9


def test_process_that_has_ended_has_no_mark() -> None:
    with subprocess.Popen(["true"]) as done:
        done.wait(timeout=PATIENCE_SECS)
    assert process_mark(done.pid) == ""
