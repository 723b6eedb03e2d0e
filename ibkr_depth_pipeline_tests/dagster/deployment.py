"""A Dagster as in production: code server, webserver and daemon as processes, with an instance of their own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from ibkr_depth_pipeline.box.dagster_api import DagsterApi
from ibkr_depth_pipeline.box.embedded_redis import HOST, free_port
from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline_tests.box.running_box import listens
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS, REPOSITORY

LOCATION = "ibkr_depth_pipeline"
JOB = "ibkr_depth_ingest_job"
_BY_HAND = {"IBKR_AUTOMATION": "off", "IBKR_STOP_AT_CLOSE": "false"}

_LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message }
  ... on PythonError { causes { message } } ... on RunConfigValidationInvalid { errors { message } } } }"""
_TERMINATE = """mutation($run: String!) { terminateRun(runId: $run, terminatePolicy: SAFE_TERMINATE) {
  __typename ... on Error { message } } }"""


class Refused(Exception):
    """Dagster does not launch; the text is all that it says."""


def environment_of(
    folder: Path, gateway: GatewayThread, redis_url: str, symbols: Sequence[str], **more: str
) -> dict[str, str]:
    """The settings of a Dagster that records these symbols around the clock. Writes the universe into `folder`."""
    universe = folder / "ibkr_symbols.yaml"
    universe.write_text(json.dumps({"symbols": list(symbols)}))
    return {
        "IBKR_HOST": gateway.host,
        "IBKR_PORT": str(gateway.port),
        "REDIS_URL": redis_url,
        "SYMBOL_CONFIG_PATH": str(universe),
        "IBKR_CALENDAR": "24/7",
        **more,
    }


class Server:
    """A process that can be started anew after it was killed, as whoever runs the deployment does."""

    def __init__(self, command: list[str], log_path: Path, env: Mapping[str, str]) -> None:
        self._start = lambda: GuardedProcess(command, log_path=log_path, env=env, cwd=log_path.parent)
        self._all = [self._start()]

    @property
    def process(self) -> GuardedProcess:
        """The newest one."""
        return self._all[-1]

    def kill(self) -> None:
        """With -9, it alone: the runs that it has started go on."""
        psutil.Process(self.process.pid).kill()
        wait_until(lambda: not self.process.running, PATIENCE_SECS)

    def start(self) -> None:
        """A new one, after `kill`; the old one's children stay."""
        self._all.append(self._start())

    def end(self) -> None:
        """And whatever it has started, ever."""
        for process in reversed(self._all):
            process.end(grace_secs=10.0)


class Deployment:
    """Launches, watches and terminates runs as the UI does."""

    def __init__(self, home: Path, port: int, servers: Mapping[str, Server]) -> None:
        self.home = home
        self.instance = dg.DagsterInstance.from_config(str(home))
        self.servers = servers
        self.port = port

    def launch(
        self, run_config: Mapping[str, Any] | None = None, *, job: str = JOB, asset: dg.AssetKey | None = None
    ) -> str:
        """The run's id, at once. Raises Refused."""
        selector: dict[str, Any] = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}
        selector |= {"jobName": job, "assetSelection": [{"path": asset.path}] if asset else None}
        answer = self._ask(_LAUNCH, params={"selector": selector, "runConfigData": run_config or {}})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise Refused(json.dumps(answer))
        return str(answer["run"]["runId"])

    def terminate(self, run_id: str) -> None:
        """As the button does."""
        self._ask(_TERMINATE, run=run_id)

    def _ask(self, query: str, **variables: object) -> dict[str, Any]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE_SECS)
        with contextlib.closing(connection):
            body = json.dumps({"query": query, "variables": variables})
            connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
            answer = json.load(connection.getresponse())
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    def status(self, run_id: str) -> str:
        run = self.instance.get_run_by_id(run_id)
        return run.status.value if run else "UNKNOWN"

    def wait_for_end(self, run_id: str) -> str:
        """The status it ended with, or the one it is stuck in."""
        wait_until(lambda: self.status(run_id) in {"SUCCESS", "FAILURE", "CANCELED"}, PATIENCE_SECS)
        return self.status(run_id)

    def worker(self, run_id: str) -> psutil.Process:
        """The process that executes the run, which has started."""
        entries = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
        pid = entries[0].get_dagster_event().pid
        assert pid is not None
        return psutil.Process(pid)

    def refusal(self, run_config: Mapping[str, Any]) -> str:
        """What the Launchpad says to this config; "" where it launched."""
        try:
            self.launch(run_config)
        except Refused as error:
            return str(error)
        return ""

    def stored_text(self) -> bytes:
        """Everything that Dagster has written: events, runs, compute logs, its own logs."""
        return b"".join(path.read_bytes() for path in self.home.parent.rglob("*") if path.is_file())


@contextmanager
def deployment(
    folder: Path, environment: Mapping[str, str], instance_file: Path = REPOSITORY / "config" / "dagster.yaml"
) -> Iterator[Deployment]:
    """One in `folder`, whose processes see `environment` only; all of them end with it, runs included.

    Schedules and sensors are off unless the environment says otherwise.
    """
    home = folder / "dagster_home"
    home.mkdir(exist_ok=True)  # a restored one has its history
    shutil.copy(instance_file, home / "dagster.yaml")
    code_port, web_port = free_port(), free_port()
    workspace = folder / "workspace.yaml"
    workspace.write_text(
        f"load_from: [{{grpc_server: {{host: {HOST}, port: {code_port}, location_name: {LOCATION}}}}}]"
    )
    where = ["--workspace", str(workspace)]
    code = ["dagster", "api", "grpc", "--host", HOST, "--port", str(code_port), "--location-name", LOCATION]
    commands = {
        "code": [*code, "--module-name", "ibkr_depth_pipeline.definitions", "--attribute", "defs"],
        "web": ["dagster_webserver", "--host", HOST, "--port", str(web_port), *where],
        "daemon": ["dagster._daemon", "run", *where],
    }
    env = {"DAGSTER_HOME": str(home), "PATH": os.environ["PATH"], **_BY_HAND, **environment}
    servers: dict[str, Server] = {}
    with ExitStack() as stack:
        for name, command in commands.items():
            log = folder / f"{name}.log"
            servers[name] = Server([sys.executable, "-m", *command], log, env)
            stack.callback(servers[name].end)
            if name == "code":
                assert wait_until(lambda: listens(servers["code"].process, code_port), PATIENCE_SECS), (
                    folder / "code.log"
                ).read_text()
        api = DagsterApi(HOST, web_port)
        assert wait_until(lambda: api.serves(home, LOCATION), PATIENCE_SECS), (folder / "web.log").read_text()
        running = Deployment(home, web_port, servers)
        stack.callback(running.instance.dispose)
        yield running
        if servers["web"].process.running:
            _terminate_all(running)


def _terminate_all(running: Deployment) -> None:
    for run in running.instance.get_runs():
        if not run.is_finished:
            running.terminate(run.run_id)
            running.wait_for_end(run.run_id)
