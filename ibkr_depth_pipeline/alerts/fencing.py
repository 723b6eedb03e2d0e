"""The end of a process whose run was written off: stuck, it would go on holding its slots at the gateway."""

from __future__ import annotations

import socket

import psutil

from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.sink.figures import RunIdentity

_SLACK_SECS = 60.0


def end_process(run: RunIdentity) -> bool:
    """Kill that run's process, with -9, if it is one of this machine and still the same. Whether it was killed.

    On another machine, or in another container, that is its launcher's to do. A process that is younger than the run
    only happens to have the number.
    """
    if run.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(run.pid)
        if process.create_time() > run.started_ts / 1000 + _SLACK_SECS:
            return False
        process.kill()
    except psutil.Error:
        return False
    get_log().warning("stuck_process_killed", run_id=run.run_id, pid=run.pid)
    return True
