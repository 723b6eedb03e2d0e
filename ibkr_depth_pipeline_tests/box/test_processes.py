"""A guarded process: its whole group ends with it, in order where it can, and with its owner in any case."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

WITH_GRANDCHILD = "sleep 600 & echo $!; wait"
DRAINS = "trap 'echo drained; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def start(script: str, folder: Path) -> GuardedProcess:
    """Run it and wait for its first line."""
    process = GuardedProcess(["/bin/sh", "-c", script], log_path=folder / "log")
    assert wait_until(lambda: bool(process.log_tail()), PATIENCE_SECS)
    return process


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_end_takes_grandchildren_along(tmp_path: Path) -> None:
    process = start(WITH_GRANDCHILD, tmp_path)
    grandchild = int(process.log_tail())
    process.end()
    process.end()
    assert not process.running
    assert not is_alive(grandchild)


def test_grandchildren_of_a_command_that_has_died_are_still_found_and_ended(tmp_path: Path) -> None:
    process = start(WITH_GRANDCHILD, tmp_path)
    grandchild = int(process.log_tail())
    process.send(signal.SIGKILL)
    assert wait_until(lambda: not process.running, PATIENCE_SECS)
    assert [member.pid for member in process.members()] == [grandchild]
    process.end()
    assert not is_alive(grandchild)


def test_command_is_let_finish_within_its_grace(tmp_path: Path) -> None:
    process = start(DRAINS, tmp_path)
    process.end(grace_secs=30)
    assert process.exit_code == 0
    assert process.log_tail(lines=1) == "drained"


def test_command_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    process = start(DEAF, tmp_path)
    process.end(grace_secs=0.2)
    assert process.exit_code == -signal.SIGKILL


def test_exit_code_and_the_end_of_the_log_are_there_for_a_report(tmp_path: Path) -> None:
    process = GuardedProcess(["/bin/sh", "-c", "seq 100; exit 3"], log_path=tmp_path / "log")
    assert wait_until(lambda: not process.running, PATIENCE_SECS)
    assert process.exit_code == 3
    assert process.log_tail(lines=2) == "99\n100"
    process.end()


def test_unknown_working_directory_leaves_nothing_open(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError):
        GuardedProcess(["true"], log_path=tmp_path / "log", cwd=tmp_path / "absent")
    assert psutil.Process().num_fds() == before


OWNER = """
import sys
from pathlib import Path
from ibkr_depth_pipeline.box.processes import GuardedProcess
process = GuardedProcess(["/bin/sh", "-c", sys.argv[2]], log_path=Path(sys.argv[1]))
sys.stdin.read()
"""


def test_whole_group_dies_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", OWNER, log, WITH_GRANDCHILD], stdin=subprocess.PIPE) as owner:
        assert wait_until(lambda: log.exists() and log.read_text().endswith("\n"), PATIENCE_SECS)
        grandchild = int(log.read_text())
        group = os.getpgid(grandchild)
        assert group != os.getpgid(0)
        owner.kill()
    assert wait_until(lambda: not is_alive(grandchild) and not is_alive(group), PATIENCE_SECS)
