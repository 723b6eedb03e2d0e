"""Child processes that cannot outlive the process that started them.

Each child leads a session, and so a process group, of its own, and a guard sits in that group: a shell that does
nothing but read a pipe whose other end only we hold. When we end, however we end (SIGKILL included), the kernel
closes our end, the guard reads end-of-file and kills the whole group, grandchildren too.

Why not Linux's PR_SET_PDEATHSIG: it fires when the *thread* that forked ends, so a server that was started from a
worker thread dies early; it does not reach grandchildren; and setting it between fork and exec needs `preexec_fn`,
which can deadlock in a process with threads. The guard needs none of that and is plain POSIX.

As the guard is a member, the group's number stays taken until we end the group: it can't come to name strangers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from ibkr_depth_pipeline.clock import monotonic
from ibkr_depth_pipeline.errors import DepthPipelineError

POLL_SECS = 0.02

# $$ is the shell's pid, hence the pid of the command that replaces it, hence the group's number. The list in the
# background would get /dev/null as its stdin, so the pipe moves to 3 first; the command itself gets neither.
_GUARDED = """\
exec 3<&0
(trap '' HUP INT TERM; read -r _line <&3; kill -s KILL -- "-$$") &
exec "$@" 0</dev/null 3<&-
"""


class BoxError(DepthPipelineError):
    """The box, or a server in it, can't be started or has ended. The message is for the person at the terminal."""


def wait_until(condition: Callable[[], bool], timeout_secs: float) -> bool:
    """Polls until `condition` holds: True then, False if it still does not after `timeout_secs`."""
    deadline = monotonic() + timeout_secs
    while not condition():
        if monotonic() >= deadline:
            return False
        time.sleep(POLL_SECS)
    return True


class GuardedProcess:
    """A running command. Its output, stdout and stderr, goes to the end of `log_path`.

    The caller must call `end()`; if it does not, the guard ends the group. A process forked from ours without
    exec (multiprocessing's "fork") holds the pipe open too, and so puts the guard's moment off until it ends.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.log_path = log_path
        pipe, self._lifeline = os.pipe()
        try:
            with log_path.open("ab") as log:
                self._child = subprocess.Popen(
                    ["/bin/sh", "-c", _GUARDED, "guard", *map(str, command)],
                    stdin=pipe,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=None if env is None else dict(env),
                    cwd=cwd,
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(pipe)
        self._ended = False

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative if a signal ended it."""
        return self._child.poll()

    @property
    def running(self) -> bool:
        return self.exit_code is None

    def send(self, signum: signal.Signals) -> None:
        """Signal the command itself, not its group. Nothing happens if it has ended."""
        self._child.send_signal(signum)

    def members(self) -> list[psutil.Process]:
        """The live processes of its group: the command and what it started, without the guard."""
        return [process for process in self._group() if not _is_guard(process, self.pid)]

    def end(self, *, grace_secs: float = 0.0) -> None:
        """SIGTERM to its group, at most `grace_secs` to act on it, then SIGKILL for what is left. Repeatable.

        The group is empty afterwards, and the ports of its processes are free.
        """
        if self._ended:
            return
        if grace_secs > 0:
            self._signal_group(signal.SIGTERM)
            wait_until(lambda: not self.members(), grace_secs)
        self._signal_group(signal.SIGKILL)
        self._child.wait()
        wait_until(lambda: not self._group(), timeout_secs=5.0)
        os.close(self._lifeline)
        self._ended = True

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of its log, as text."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _signal_group(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter: macOS, all of it zombies
            os.killpg(self.pid, signum)

    def _group(self) -> list[psutil.Process]:
        found = (_in_group(pid, self.pid) for pid in psutil.pids())
        return [process for process in found if process is not None]


def _in_group(pid: int, group: int) -> psutil.Process | None:
    with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
        if os.getpgid(pid) == group and (process := psutil.Process(pid)).status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _is_guard(process: psutil.Process, leader: int) -> bool:
    # Forked from the shell that the leader was before exec, so it still has that shell's command line.
    try:
        return process.pid != leader and process.cmdline()[2:3] == [_GUARDED]
    except psutil.NoSuchProcess:
        return False
