"""Kills the process of a run that was failed as dead: a stuck one would keep its slots at the gateway."""

from __future__ import annotations

import socket

import psutil

from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.schema.status import RunIdentity
from ibkr_depth_pipeline.sink.status import process_mark

_SLACK_SECS = 60.0


def end_process(run: RunIdentity) -> bool:
    """Kill the run's process with SIGKILL if it is on this machine and still the same. Returns whether it was killed.

    On another machine or in another container, its launcher has to. A process that is younger than the run, much
    older, or of another PID namespace only happens to have the number.
    """
    if run.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(run.pid)
        if not _is_of(run, process):
            return False
        process.kill()  # psutil refuses if the number belongs to another process by now
    except psutil.Error:
        return False
    get_log().warning("stuck_process_killed", run_id=run.run_id, pid=run.pid)
    return True


def _is_of(run: RunIdentity, process: psutil.Process) -> bool:
    """By the mark that the run left of its process; by both start times if either mark is missing."""
    mark = process_mark(run.pid)
    if run.process and mark:
        return run.process == mark
    return abs(process.create_time() - run.started_ts / 1000) <= _SLACK_SECS
