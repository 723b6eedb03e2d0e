"""A Debian machine with systemd as its first process: systemd-nspawn boots a root folder, with a network of its own.

Ports 3000, 4266 and 6379 are free in it whatever else runs here. Its files are this machine's, below `root`.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline_tests.conftest import REPOSITORY
from ibkr_depth_pipeline_tests.deploy import debian_root

PACKAGES = ("systemd", "systemd-sysv", "dbus", "ca-certificates", "procps")
"""What a machine has before install.sh's own apt-get install."""

SUITE = "bookworm"
BOOT_SECS = 120.0
_CLONE_NEWNET = 0x40000000
_WAITS_FOR_A_NETWORK = "systemd-networkd-wait-online.service"


class DoesNotBoot(Exception):
    """systemd does not come up here; the message says how far it came."""


def missing_tool() -> str:
    """Why no machine can be booted here; empty if one may."""
    if reason := debian_root.missing_tool():
        return reason
    return "" if shutil.which("systemd-nspawn") else "no systemd-nspawn here (apt-get install systemd-container)"


def make_machine(root: Path, packages: Sequence[str]) -> None:
    """A root that boots; `packages` besides."""
    debian_root.make_root(root, SUITE, [*PACKAGES, *packages])
    debian_root.share_network(root)
    # there is loopback alone, which that service does not count as a network
    (root / "etc/systemd/system" / _WAITS_FOR_A_NETWORK).symlink_to("/dev/null")


def copy_checkout(folder: Path) -> None:
    """The repository's files as they are now, as a clone would have them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target)


class BootedMachine:
    """Boots at once. Raises DoesNotBoot if systemd is not up in BOOT_SECS. The caller must end() it."""

    def __init__(self, root: Path, log_path: Path) -> None:
        self.root = root
        self._name = f"depth-{uuid.uuid4().hex[:8]}"
        # in a PID namespace of its own: nothing of the machine outlives a systemd-nspawn that is killed
        command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "systemd-nspawn", "--quiet", "--boot"]
        command += ["--register=no", "--keep-unit", "--private-network", "--console=pipe"]
        command += [f"--machine={self._name}", f"--directory={root}"]
        self._process = GuardedProcess(command, log_path=log_path, cwd=log_path.parent)
        if not wait_until(self._is_up, BOOT_SECS):
            tail = self._process.log_tail()
            self.end()
            raise DoesNotBoot(f"systemd does not boot here: {tail}")

    def _is_up(self) -> bool:
        if not self._process.running:
            return False
        state = self._enter(["systemctl", "is-system-running"], own_network=True).stdout.strip()
        return state in ("running", "degraded")

    @property
    def leader(self) -> int:
        """The pid, here, of its systemd; 0 before that has started."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        return next((child.pid for child in children if child.name() == "systemd"), 0)

    def run(self, *command: str, own_network: bool = True, timeout_secs: float = 900.0) -> str:
        """What `command` prints in it, as root. own_network false: this machine's, for what is fetched."""
        done = self._enter(command, own_network=own_network, timeout_secs=timeout_secs)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stdout[-3000:]} {done.stderr[-3000:]}"
        return done.stdout

    def _enter(
        self, command: Sequence[str], *, own_network: bool, timeout_secs: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        if not (leader := self.leader):
            return subprocess.CompletedProcess(command, 1, "", "it has not started")
        network = "--net" if own_network else f"--net=/proc/{self._process.pid}/ns/net"
        spaces = ["--mount", "--uts", "--ipc", "--pid", network]
        given = {} if own_network else debian_root.builder_environment()
        env = {"PATH": debian_root.PATH, "HOME": "/root", **given}
        words = ["nsenter", f"--target={leader}", *spaces, "env", "-i", *(f"{name}={env[name]}" for name in env)]
        return subprocess.run([*words, *command], capture_output=True, text=True, timeout=timeout_secs)

    def unit(self, name: str, key: str) -> str:
        """That property of a unit."""
        return self.run("systemctl", "show", f"--property={key}", "--value", name).strip()

    def journal(self, *units: str) -> str:
        """The newest lines of these units' logs, for the message of a test that fails."""
        chosen = [f"--unit={unit}" for unit in units]
        return self.run("journalctl", "--no-pager", "--lines=80", *chosen)

    @contextmanager
    def network(self) -> Iterator[None]:
        """This thread, and those and the processes that it starts, are in the machine's network meanwhile."""
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self.leader}/ns/net") as its:
            _enter_network(its.fileno())
            try:
                yield
            finally:
                _enter_network(ours.fileno())

    def end(self) -> None:
        """Shut it down; after some seconds, at once."""
        self._process.end(grace_secs=20.0)
        for left in ("propagate", "unix-export"):
            folder = Path("/run/systemd/nspawn") / left / self._name
            if folder.is_dir() and not folder.is_mount():
                folder.rmdir()


def _enter_network(descriptor: int) -> None:
    # os.setns is of Python 3.12
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
