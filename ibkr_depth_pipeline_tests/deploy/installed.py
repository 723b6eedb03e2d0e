"""The recorder installed on a booted machine as docs/deployment.md says, beside a Redis and the gateway's unit.

IB Gateway under IBC is stood in for by the simulated gateway: the unit runs a script that starts that.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path

import redis

from ibkr_depth_pipeline.box.dagster_api import DagsterApi, LaunchedRun
from ibkr_depth_pipeline.box.embedded_redis import HOST
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline_tests.deploy.booted import BootedMachine, copy_checkout

NEEDED = ("git", "python3", "python3-venv", "redis-server", "sqlite3")
"""What install.sh asks for."""

LINK = "/opt/ibkr_depth_pipeline"
SETTINGS = "/etc/ibkr-depth.env"
TARGET = "ibkr-depth.target"
DAGSTER = ("code", "daemon", "web")
SERVICES = (*DAGSTER, "archive", "page")
JOB = "ibkr_depth_ingest_job"
SYMBOLS = ("SPY", "QQQ")
PATIENCE_SECS = 180.0

_HOME = Path("/var/lib/ibkr-depth/dagster_home")
_XVFB_RUN = """#!/bin/sh
shift
exec "$@"
"""
_IBC = f"#!/bin/sh\nexec {LINK}-1/.venv/bin/ibkr_gateway_sim --port 7497 --rows-per-second 50\n"


def _with_dagster(constraints: str, version: str) -> str:
    """The libraries of Dagster 1.N.M are 0.(N + 16).M."""
    _, minor, patch = version.split(".")
    library = f"0.{int(minor) + 16}.{patch}"
    text = re.sub(r"^(dagster(?:-\w+)?)==1\..*$", rf"\1=={version}", constraints, flags=re.MULTILINE)
    return re.sub(r"^(dagster-\w+)==0\..*$", rf"\1=={library}", text, flags=re.MULTILINE)


def unit_name(service: str) -> str:
    return f"ibkr-depth-{service}.service"


@dataclass(frozen=True, slots=True)
class Entry:
    """A snapshot of a stream."""

    ts: int
    seq: int


class InstalledRecorder:
    """The versions on a machine, and what they record. All but `install` is to be called within its network."""

    def __init__(self, machine: BootedMachine) -> None:
        self.machine = machine
        self.store = redis.Redis(HOST, 6379)
        self.dagster = DagsterApi(HOST, 3000)

    def install(self, version: int, dagster: str = "") -> str:
        """Copy the checkout to that version's folder and run its install.sh. Returns what that printed.

        dagster: another version of it than the tested one, such as 1.13.0.
        """
        folder = self.machine.root / f"{LINK}-{version}".lstrip("/")
        copy_checkout(folder)
        for file in (folder / "constraints").glob("python3*.txt") if dagster else ():
            file.write_text(_with_dagster(file.read_text(), dagster))
        return self.run_script("install", version, own_network=False)

    def run_script(self, name: str, version: int, *, own_network: bool = True) -> str:
        """Run a script of deploy/systemd as root."""
        return self.machine.run(f"{LINK}-{version}/deploy/systemd/{name}.sh", own_network=own_network)

    def configure(self, **settings: object) -> None:
        """Set these, beside what the file has: a later line wins. In force with the next start."""
        lines = [f"{name.upper()}={value}\n" for name, value in settings.items()]
        with (self.machine.root / SETTINGS.lstrip("/")).open("a") as file:
            file.writelines(lines)

    def list_symbols(self) -> None:
        """The universe: few enough that each holds a slot all the time."""
        self._universe_file(1).write_text(json.dumps({"symbols": SYMBOLS}))

    def universe(self, version: int) -> str:
        """What that version's file of the universe holds."""
        return self._universe_file(version).read_text()

    def _universe_file(self, version: int) -> Path:
        return self.machine.root / f"{LINK}-{version}".lstrip("/") / "config" / "ibkr_symbols.yaml"

    def start_gateway(self) -> None:
        """The unit of the example, with stand-ins for IBC and Xvfb."""
        scripts = {"usr/local/bin/xvfb-run": _XVFB_RUN, "opt/ibc/scripts/ibcstart.sh": _IBC}
        for path, text in scripts.items():
            script = self.machine.root / path
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text(text)
            script.chmod(0o755)
        self.machine.run("useradd", "--system", "ibgateway")
        self.systemctl("enable", "--now", unit_name("gateway"))

    def systemctl(self, *words: str) -> str:
        return self.machine.run("systemctl", *words)

    def states(self) -> dict[str, str]:
        """The state of each service."""
        return {service: self.machine.unit(unit_name(service), "ActiveState") for service in SERVICES}

    def failed_units(self) -> str:
        return self.systemctl("--failed", "--plain", "--no-legend", "list-units", "ibkr-depth*").strip()

    def count(self, symbol: str = SYMBOLS[0]) -> int:
        return int(self.store.xlen(stream_key(symbol)))

    def grows(self, by: int = 50) -> None:
        """Wait until every symbol has `by` new snapshots."""
        before = {symbol: self.count(symbol) for symbol in SYMBOLS}
        grown = wait_until(lambda: all(self.count(each) >= count + by for each, count in before.items()), PATIENCE_SECS)
        assert grown, self.machine.journal(*map(unit_name, DAGSTER))

    def entries(self, symbol: str = SYMBOLS[0]) -> list[Entry]:
        """The whole stream, in order."""
        found = self.store.xrange(stream_key(symbol))
        return [Entry(int(fields[b"ts"]), int(fields[b"seq"])) for _, fields in found]

    def gap_ms(self, after: int) -> int:
        """The longest time between two snapshots in a row of the first symbol, from the `after`th on."""
        entries = self.entries()[after - 1 :]
        return max(later.ts - earlier.ts for earlier, later in itertools.pairwise(entries))

    def is_whole(self) -> bool:
        """Whether every stream counts from 1 on without a hole or a double."""
        counts = [[entry.seq for entry in self.entries(symbol)] for symbol in SYMBOLS]
        return all(count == list(range(1, len(count) + 1)) for count in counts)

    def runs(self) -> list[LaunchedRun]:
        """The ingest's runs, newest first."""
        assert wait_until(lambda: self.dagster.serves(_HOME, "ibkr_depth_pipeline"), PATIENCE_SECS)
        return self.dagster.runs(JOB)
