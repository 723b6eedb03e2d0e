"""Hosts of a network of their own on this machine: a network namespace each, on a bridge (Linux, root, iproute2).

A host can lose its link, be cut off without noticing it, and end with all its processes. The test itself has an
address in the network. Names are the test process's own; nothing is left of the network at its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import psutil
import pytest

from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until

_MARK = "ibkrdepth"
_PATIENCE_SECS = 30.0
# As on another machine, it has a host name of its own, and its own files at a path that is the same on all of them.
# `ip netns exec` has made the mounts its own.
_AS_ANOTHER_MACHINE = 'hostname "$0" && mount --bind "$1" "$2" && shift 2 && exec "$@"'


def ip(*words: object) -> str:
    """What `ip` prints. Raises OSError with its reason."""
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


class Host:
    """One host: `address` in the network, loopback of its own, a folder, and processes that see both only."""

    def __init__(self, network: Network, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        self.namespace = network.named(name)
        self.home = network.home
        """A path at which each host has files of its own: the test finds them in `folder` / "home"."""
        own = folder / "home"
        own.mkdir(parents=True)
        enter = ("ip", "netns", "exec", self.namespace, "unshare", "--uts")
        self.within = (*enter, "sh", "-c", _AS_ANOTHER_MACHINE, name, str(own), str(self.home))
        """What to put before a command that this host is to run."""
        self._network = network
        self._port = f"to-{name}"  # the bridge's end of its link; a name of at most 15 letters
        self._all: list[GuardedProcess] = []

    def start(self, name: str, command: Sequence[str | Path], env: Mapping[str, str]) -> GuardedProcess:
        """A process of this host; its log is NAME.log in the host's folder."""
        words = [*self.within, *command]
        process = GuardedProcess(words, log_path=self.folder / f"{name}.log", env=env, cwd=self.folder)
        self._all.append(process)
        return process

    def plug_in(self) -> None:
        """The link, as it is when the host is switched on for the first time."""
        self._network.inside("link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.namespace, "link", "set", device, "up")
        self._network.inside("link", "set", self._port, "up", "master", "bridge")

    def remember(self, address: str, mac: str) -> None:
        """The link address of another one, for ever: as behind a router, nobody learns that it is gone."""
        ip("-n", self.namespace, "neigh", "replace", address, "lladdr", mac, "dev", "eth0", "nud", "permanent")

    @property
    def mac(self) -> str:
        """Its link address."""
        return str(json.loads(ip("-n", self.namespace, "-j", "link", "show", "eth0"))[0]["address"])

    def lose_link(self) -> None:
        """The host's own end of its link goes down."""
        ip("-n", self.namespace, "link", "set", "eth0", "down")

    def regain_link(self) -> None:
        """After `lose_link`."""
        ip("-n", self.namespace, "link", "set", "eth0", "up")

    def cut_off(self) -> None:
        """Its link stays up, and nothing passes through the network any more: no end notices, no connection breaks."""
        self._network.inside("link", "set", self._port, "nomaster")

    def rejoin(self) -> None:
        """After `cut_off`."""
        self._network.inside("link", "set", self._port, "master", "bridge")

    def kill(self, last: GuardedProcess | None = None) -> None:
        """Every process of the host ends at once, as without power; `last` after the others, and by itself."""
        for process in sorted(self._all, key=lambda process: process is last):
            process.end(grace_secs=5.0 if process is last else 0.0)
        for pid in self.pids():
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        self._all.clear()
        assert wait_until(lambda: not self.pids(), _PATIENCE_SECS), f"{self.name} still has processes {self.pids()}"

    def pids(self) -> list[int]:
        """Of every process in the namespace."""
        return [int(pid) for pid in ip("netns", "pids", self.namespace).split()]


class Network:
    """`with` it: a bridge, and an address of the test's in 198.18.N.0/24, which is kept for such tests (RFC 2544)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.home = folder / "dagster_home"
        self.home.mkdir(exist_ok=True)
        self._name = f"{_MARK}{os.getpid()}"
        self._subnet = f"198.18.{os.getpid() % 254 + 1}"
        self._outside = f"dp{os.getpid()}"  # the test's end of its link: at most 15 letters
        self._hosts: list[Host] = []
        self._stack = ExitStack()

    @property
    def own_address(self) -> str:
        """Of this process, as the hosts reach it."""
        return f"{self._subnet}.254"

    def named(self, part: str) -> str:
        """A name in this machine's namespaces or interfaces that is nobody else's."""
        return f"{self._name}-{part}"

    def inside(self, *words: object) -> None:
        """`ip` in the namespace of the bridge."""
        ip("-n", self.named("net"), *words)

    def host(self, name: str) -> Host:
        """Another host, which runs nothing yet."""
        host = Host(self, name, f"{self._subnet}.{len(self._hosts) + 1}", self._folder / name)
        self._add(host.namespace)
        self._stack.callback(host.kill)
        host.plug_in()
        for other in self._hosts:
            other.remember(host.address, host.mac)
            host.remember(other.address, other.mac)
        self._hosts.append(host)
        return host

    def __enter__(self) -> Network:
        try:
            self._add(self.named("net"))
            ip("link", "add", self._outside, "type", "veth", "peer", "name", "outside", "netns", self.named("net"))
            self._stack.callback(ip, "link", "del", self._outside)
            ip("addr", "add", f"{self.own_address}/24", "dev", self._outside)
            self.inside("link", "add", "bridge", "type", "bridge")
            self.inside("link", "set", "outside", "master", "bridge")
            for device in ("bridge", "outside"):
                self.inside("link", "set", device, "up")
            ip("link", "set", self._outside, "up")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self._stack.close()

    def _add(self, namespace: str) -> None:
        ip("netns", "add", namespace)
        self._stack.callback(ip, "netns", "del", namespace)


def network_or_skip(folder: Path) -> Network:
    """The network, not yet entered; the test is skipped with the reason where none can be made."""
    if shutil.which("ip") is None:
        pytest.skip("no network namespaces: there is no `ip` (apt-get install iproute2)")
    if os.geteuid() != 0:
        pytest.skip("no network namespaces: only root makes them")
    _remove_left_over()
    try:
        with Network(folder):
            pass
    except OSError as error:
        pytest.skip(f"no network namespaces: {error}")
    return Network(folder)


def _remove_left_over() -> None:
    """Namespaces of test processes that were killed; their processes ended with them."""
    for line in ip("netns", "list").splitlines():
        name = line.split()[0]
        owner = name.removeprefix(_MARK).partition("-")[0]
        if name.startswith(_MARK) and owner.isdigit() and not psutil.pid_exists(int(owner)):
            ip("netns", "del", name)
