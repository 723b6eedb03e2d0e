"""`ibkr_market_box` as a process, read through what it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS

COMMAND = Path(sysconfig.get_path("scripts")) / "ibkr_market_box"
START_SECS = 180.0
_LISTEN = psutil.CONN_LISTEN
_MAPPED = "::ffff:"  # gRPC listens on IPv4 through IPv6


class Box:
    """A running `ibkr_market_box`, read through what it prints."""

    def __init__(self, folder: Path, *options: str, **env: str) -> None:
        self._output = folder / "output.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [COMMAND, *options], stdout=output, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, **env}
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, pattern: str, patience: float = START_SECS) -> str:
        """The first group of `pattern` in the output, once it is there."""
        wait_until(lambda: bool(re.search(pattern, self.output)) or not self.running, patience)
        match = re.search(pattern, self.output)
        assert match, f"no {pattern} in:\n{self.output}"
        return match.group(1)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def folder(self) -> Path:
        return Path(self.wait_for(r"Logs +(.+)/logs\n"))

    def members(self) -> list[psutil.Process]:
        """Every live process that works in the box's folder, wherever it hangs in the process tree."""
        return [process for process in psutil.process_iter() if works_in(process, self.folder)]

    def listener(self, port: str) -> psutil.Process:
        """The process that listens on that port."""
        return next(process for process in self.members() if int(port) in {port for _, port in listening([process])})

    def clear_away(self) -> None:
        self.process.kill()
        self.process.wait()
        if "Logs" in self.output:
            wait_until(lambda: not self.members(), PATIENCE_SECS)
            shutil.rmtree(self.folder, ignore_errors=True)

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_SECS)


def works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections("inet")
            found |= {(c.laddr.ip.removeprefix(_MAPPED), c.laddr.port) for c in connections if c.status == _LISTEN}
    return found


def listens(process: GuardedProcess, port: int) -> bool:
    """Whether that process, or one of its group, listens on the port: not anybody else, who may have taken it."""
    return port in {each for _, each in listening(process.members())}


def start(stack: ExitStack, folder: Path, *options: str, **env: str) -> Box:
    """A box that is gone at the end of `stack`, with its run folder, however the test went."""
    box = Box(folder, *options, **env)
    stack.callback(box.clear_away)
    return box
