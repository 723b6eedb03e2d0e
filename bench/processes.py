"""Children of the benchmark: lines that they say, what they cost, and that none is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
PEERS_PYTHON = REPOSITORY / ".venv-bench" / "bin" / "python"
PATIENCE_SECS = 180.0


class BenchmarkFailed(Exception):
    """A measurement could not be made, or what it measured is wrong. The text says which and why."""


class Child:
    """A process whose stdout is read as lines of JSON. `with` ends it: SIGTERM, a grace, then SIGKILL."""

    def __init__(
        self, command: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._name = " ".join(str(part) for part in command[1:4])
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **(env or {})},
            cwd=cwd or REPOSITORY,
        )
        self._pending = b""

    def __enter__(self) -> Child:
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self.stop()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()

    def stop(self, grace_secs: float = 30.0) -> int:
        """Ask it to end; its exit code. Repeatable."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace_secs)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def said(self, key: str, patience: float = PATIENCE_SECS) -> Any:
        """The value of `key` in the next line that has it. Raises BenchmarkFailed where none comes."""
        return self.line_with(key, patience)[key]

    def line_with(self, key: str, patience: float = PATIENCE_SECS) -> dict[str, Any]:
        """The next line that has `key`. Raises BenchmarkFailed where none comes."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            line = self._line(deadline)
            if line.startswith(b"{") and key in (fields := json.loads(line)):
                return dict(fields)
        raise self.failed(f"said nothing of {key} within {patience:g} s")

    def line(self, patience: float = PATIENCE_SECS) -> bytes:
        """The next line, whatever it holds."""
        return self._line(time.monotonic() + patience)

    def _line(self, deadline: float) -> bytes:
        assert self.process.stdout is not None
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not data:
                raise self.failed("fell silent" if not ready else "ended")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def failed(self, why: str) -> BenchmarkFailed:
        """With the end of what it wrote to stderr."""
        return BenchmarkFailed(f"{self._name}: {why}\n{self.stderr()[-3000:]}")

    def stderr(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def cpu_secs(self) -> float:
        """User and system time so far, children that it started included."""
        return sum(_cpu(each) for each in self.tree())

    def peak_rss_mb(self) -> float:
        """The most memory that was resident at once, of it and its children, in MB (10^6 bytes)."""
        return sum(_peak_rss(each.pid) for each in self.tree()) / 1e6

    def tree(self) -> list[psutil.Process]:
        """The process and all that it started."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            raise self.failed("is gone") from None


def _cpu(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _peak_rss(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def module(name: str, *arguments: object, python: Path | str = sys.executable) -> list[str]:
    """The command that runs a module of this folder."""
    return [str(python), "-m", f"bench.{name}", *(str(each) for each in arguments)]
