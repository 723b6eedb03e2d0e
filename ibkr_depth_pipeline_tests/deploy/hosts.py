"""A deployment on three hosts: two that record, with a gateway and a code server each, and one for what they share.

The shared one has Postgres, a Redis Cluster of three masters, the code server that monitors, daemon and webserver.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
import yaml

from ibkr_depth_pipeline.box.embedded_redis import find_redis_binary
from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline.orchestration.gateway_assets import symbol_key
from ibkr_depth_pipeline.schema.keys import ingest_heartbeat_key, ingest_key, stream_key, turns_stream
from ibkr_depth_pipeline.simulation.journal import Entry
from ibkr_depth_pipeline.simulation.rows import WireRow
from ibkr_depth_pipeline_tests.deploy.namespaces import Host, Network, network_or_skip
from ibkr_depth_pipeline_tests.deploy.postgres import PostgresServer, postgres_folder
from ibkr_depth_pipeline_tests.deploy.test_postgres import CREDENTIALS, write_instance
from ibkr_depth_pipeline_tests.end_to_end.recording import Snapshot, snapshot_of
from ibkr_depth_pipeline_tests.monitoring.webhook import Webhook

PATIENCE_SECS = 300.0
UNIVERSES = {"alpha": ("SPY", "QQQ"), "beta": ("AAPL", "MSFT", "IWM")}
"""The symbols of each recording host, whose gateway has the host's name."""

GATEWAY_PORT, CODE_PORT, WEB_PORT, REDIS_PORTS = 4002, 4266, 3000, (7001, 7002, 7003)
_SCRIPTS = Path(sys.executable).parent
_LOCATIONS = "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"
_ASSET = """query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode {
  repository { location { name } }
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } } } } }"""
_SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))


class SharedHost:
    """Postgres, Redis Cluster, the monitoring code server, daemon and webserver."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.redis_url = "redis+cluster://" + ",".join(f"{host.address}:{port}" for port in REDIS_PORTS)
        self.postgres = PostgresServer(host.address, host.within)
        self._start_cluster()
        self.store = redis.RedisCluster(host.address, REDIS_PORTS[0])

    def _start_cluster(self) -> None:
        for port in REDIS_PORTS:
            folder = self.host.folder / f"redis-{port}"
            folder.mkdir()
            words = ["--bind", self.host.address, "--port", str(port), "--dir", str(folder), "--save", ""]
            words += ["--protected-mode", "no", "--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"]
            self.host.start(f"redis-{port}", [find_redis_binary(), *words], {})
        nodes = [redis.Redis(self.host.address, port, socket_timeout=5) for port in REDIS_PORTS]
        for node, slots in zip(nodes, _SLOTS, strict=True):
            assert wait_until(partial(_answers, node), PATIENCE_SECS)
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
            node.execute_command("CLUSTER", "MEET", self.host.address, REDIS_PORTS[0])
        for node in nodes:
            assert wait_until(partial(_is_whole, node), PATIENCE_SECS)
            node.close()

    def start_dagster(self, deployed: SeveralHosts, webhook: Webhook) -> None:
        """What monitors, and what every run is recorded in. The list of gateways names both hosts'."""
        entries = [site.entry(site.host.address) for site in deployed.sites.values()]
        alerts = {"ALERT_URLS": webhook.url, "IBKR_ALERT_AFTER_SECS": "5", "IBKR_ALERT_GRACE_SECS": "5"}
        env = deployed.environment(self.host, entries, IBKR_CODE_LOCATION="monitoring", **alerts)
        self.host.start("code", code_server("monitor", self.host.address), env)
        locations = {"monitor": self.host, **{name: site.host for name, site in deployed.sites.items()}}
        servers = [
            {"grpc_server": {"host": host.address, "port": CODE_PORT, "location_name": name}}
            for name, host in locations.items()
        ]
        (self.host.folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": servers}))
        workspace = ("--workspace", "workspace.yaml")
        web = ("-h", self.host.address, "-p", str(WEB_PORT), *workspace)
        self.host.start("web", [_SCRIPTS / "dagster-webserver", *web], env)
        self.host.start("daemon", [_SCRIPTS / "dagster-daemon", "run", *workspace], env)

    def close(self) -> None:
        self.store.close()
        self.postgres.remove()


def _answers(node: Any) -> bool:
    try:
        return bool(node.ping())
    except redis.RedisError:
        return False


def _is_whole(node: Any) -> bool:
    return bool(node.cluster("INFO")["cluster_state"] == "ok")


def code_server(location: str, address: str) -> list[str | Path]:
    """The command of the image and of the systemd unit."""
    where = ["--host", address, "--port", str(CODE_PORT), "--location-name", location]
    module = ["--module-name", "ibkr_depth_pipeline.definitions", "--attribute", "defs"]
    return [_SCRIPTS / "dagster", "code-server", "start", *where, *module]


class RecordingHost:
    """A gateway on its host's loopback, and the code server whose runs record from it."""

    def __init__(self, host: Host, symbols: Sequence[str]) -> None:
        self.host = host
        self.name = host.name
        self.symbols = symbols
        self._gateways: list[_Gateway] = []
        (host.folder / "universe.yaml").write_text(json.dumps({"symbols": symbols}))

    def entry(self, address: str = "127.0.0.1") -> dict[str, object]:
        """Of this host's gateway in a list of gateways."""
        universe = str(self.host.folder / "universe.yaml")
        return {"name": self.name, "host": address, "port": GATEWAY_PORT, "universe": universe}

    def start(self, deployed: SeveralHosts) -> None:
        """For the first time, or after `lose`."""
        self.start_gateway(self.host)
        env = deployed.environment(self.host, [self.entry()], IBKR_CODE_LOCATION="recording")
        self.host.start("code", code_server(self.name, self.host.address), env)

    def start_gateway(self, host: Host) -> None:
        """Another gateway of this account, on that host; what it sends belongs to what the account sent."""
        self._gateways.append(_Gateway(host, host.folder / f"journal-{self.name}-{len(self._gateways)}.jsonl"))

    def lose(self) -> None:
        """Without network and power, at once."""
        self.host.lose_link()
        self.host.kill(last=self._gateways[-1].process)  # with a grace, for the sake of its journal

    def end_last_gateway(self) -> None:
        """The newest one, with a grace for its journal."""
        self._gateways[-1].process.end(grace_secs=5.0)

    def sent(self) -> Iterator[Entry]:
        """All that this account's gateways sent until now, by the time at which it was sent."""
        found = [entry for number, gateway in enumerate(self._gateways) for entry in gateway.sent(number * 1000)]
        return iter(sorted(found, key=lambda entry: entry.at))


class _Gateway:
    """`ibkr_gateway_sim` on a host's loopback."""

    def __init__(self, host: Host, journal: Path) -> None:
        words = ["--port", str(GATEWAY_PORT), "--rows-per-second", "10", "--journal", str(journal)]
        self.process = host.start(journal.stem, [_SCRIPTS / "ibkr_gateway_sim", *words], _path())
        self._host = host
        self._journal = journal

    def sent(self, offset: int) -> Iterator[Entry]:
        """Its journal; `offset` is added to the numbers of its connections."""
        if self.process.running:
            self._flush_journal()
        for line in self._journal.read_text().splitlines():
            yield _entry(json.loads(line), offset)

    def _flush_journal(self) -> None:
        """Rows are written with the next entry of another kind, such as a connection's."""
        known = len(self._journal.read_text())
        address = f"('127.0.0.1', {GATEWAY_PORT})"
        connect = [sys.executable, "-c", f"import socket; socket.create_connection({address}).close()"]
        subprocess.run([*self._host.within, *connect], check=True)
        closed = '"kind": "closed"'
        assert wait_until(lambda: closed in self._journal.read_text()[known:], PATIENCE_SECS)


def _entry(record: dict[str, Any], offset: int) -> Entry:
    rows = tuple(WireRow(*row) for row in record.pop("rows", ()))
    at, connection, kind, name = (record.pop(each, "") for each in ("at", "connection", "kind", "name"))
    return Entry(at, connection + offset, kind, name, record, rows)


def _path() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}


@dataclass
class SeveralHosts:
    """The whole. What the test asks it asks from outside, as an operator's desk does."""

    network: Network
    shared: SharedHost
    sites: dict[str, RecordingHost]
    webhook: Webhook
    instance: dg.DagsterInstance

    def environment(self, host: Host, entries: Sequence[Mapping[str, object]], **settings: str) -> dict[str, str]:
        """Of Dagster's processes on that host, whose list of gateways is `entries`."""
        (host.folder / "gateways.yaml").write_text(json.dumps({"gateways": entries}))
        write_instance(host.folder / "home", self.shared.postgres.port, self.shared.host.address)
        return {
            **_path(),
            **CREDENTIALS,
            "DAGSTER_HOME": str(host.home),
            "GATEWAYS_CONFIG_PATH": str(host.folder / "gateways.yaml"),
            "REDIS_URL": self.shared.redis_url,
            "IBKR_CALENDAR": "24/7",
            "IBKR_AUTOMATION": "on",
            "IBKR_STREAM_MAXLEN": "10000000",
            **settings,
        }

    # ---- what was recorded

    def length(self, symbol: str) -> int:
        return int(self.shared.store.xlen(stream_key(symbol)))

    def lengths(self, site: str) -> list[int]:
        """Of the streams of that host's universe."""
        return [self.length(symbol) for symbol in UNIVERSES[site]]

    def grows(self, site: str, by: int = 100) -> bool:
        """Whether each stream of that host's universe is longer by `by`, at last."""
        before = self.lengths(site)

        def longer() -> bool:
            return all(now >= was + by for now, was in zip(self.lengths(site), before, strict=True))

        return wait_until(longer, PATIENCE_SECS)

    def stored(self, symbol: str) -> list[Snapshot]:
        return [snapshot_of(fields) for _, fields in self.shared.store.xrange(stream_key(symbol))]

    def newest_ts(self, symbol: str) -> int:
        """Of its stream, unix ms; 0 if that is empty."""
        newest = self.shared.store.xrevrange(stream_key(symbol), count=1)
        return int(newest[0][1][b"ts"]) if newest else 0

    def ended_subscriptions(self, site: str) -> int:
        """Of that host's universe, as the recorders noted them."""
        return sum(int(self.shared.store.xlen(turns_stream(symbol))) for symbol in UNIVERSES[site])

    def host_of(self, site: str) -> str:
        """The name of the host on which the run is that records that host's universe."""
        return str(json.loads(self.shared.store.get(ingest_key(site)) or "{}").get("run", {}).get("host"))

    def start_standby(self, site: str, host: Host) -> GuardedProcess:
        """Another recorder of that host's universe, on `host`, from a gateway there; it waits for the lease."""
        self.sites[site].start_gateway(host)
        settings = {
            "IBKR_GATEWAY_NAME": site,
            "IBKR_PORT": str(GATEWAY_PORT),
            "IBKR_LEASE_WAIT_SECS": "3600",
            "SYMBOL_CONFIG_PATH": str(self.sites[site].host.folder / "universe.yaml"),
            "REDIS_URL": self.shared.redis_url,
            "IBKR_STREAM_MAXLEN": "10000000",
        }
        standby = host.start("standby", [_SCRIPTS / "ibkr_ingest_run", "run"], {**_path(), **settings})
        log = host.folder / "standby.log"
        assert wait_until(lambda: "lease_held" in log.read_text(), PATIENCE_SECS), log.read_text()
        return standby

    # ---- Dagster's view

    def recorder(self, site: str) -> str:
        """The run whose heartbeat stands; "" if none does."""
        return (self.shared.store.get(ingest_heartbeat_key(site)) or b"").decode()

    def status(self, run_id: str) -> str:
        run = self.instance.get_run_by_id(run_id)
        return run.status.value if run else "UNKNOWN"

    def locations(self) -> dict[str, bool]:
        """Each code location that the webserver lists, and whether it has its definitions."""
        entries = self._ask(_LOCATIONS).get("workspaceOrError", {}).get("locationEntries", ())
        return {
            entry["name"]: (entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation"
            for entry in entries
        }

    def shown(self, symbol: str) -> tuple[str, dict[str, str]]:
        """The code location of that symbol's asset, and its checks that were evaluated, as the webserver shows them."""
        asset = self._ask(_ASSET, path=symbol_key(symbol).path)["assetNodeOrError"]
        found = asset["assetChecksOrError"]["checks"]
        newest = {each["name"]: each["executionForLatestMaterialization"] for each in found}
        return asset["repository"]["location"]["name"], {name: run["status"] for name, run in newest.items() if run}

    def _ask(self, query: str, **variables: object) -> dict[str, Any]:
        """What the webserver answers; nothing while it can't be reached."""
        url = f"http://{self.shared.host.address}:{WEB_PORT}/graphql"
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return dict(json.load(answer)["data"] or {})
        except OSError:
            return {}

    def ticks(self, sensor: str) -> int:
        """How many ticks of that sensor were stored."""
        count = f"SELECT count(*) FROM job_ticks WHERE tick_body LIKE '%\"{sensor}\"%'"
        return int(self.shared.postgres.query(count))

    def alerted(self, words: str, seen: int = 0) -> bool:
        """Whether an alert with these words in its title came, beyond the first `seen` alerts."""
        return any(words in title for title in self.webhook.titles()[seen:])

    def is_in_trouble(self, site: str) -> bool:
        """Whether an alert of stale books stands that no recovery has followed."""
        titles = [title for title in self.webhook.titles() if f" {site}: " in title]
        known = [title for title in titles if "stale" in title or "recovered" in title]
        return bool(known) and "stale" in known[-1]


@contextmanager
def several_hosts(folder: Path) -> Iterator[SeveralHosts]:
    """The deployment, all of whose processes run; the test is skipped where there can be none."""
    postgres_folder()
    with network_or_skip(folder) as network, pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        hosts = {name: network.host(name) for name in (*UNIVERSES, "shared")}
        shared = SharedHost(hosts["shared"])
        try:
            with Webhook(network.own_address) as webhook:
                sites = {name: RecordingHost(hosts[name], symbols) for name, symbols in UNIVERSES.items()}
                write_instance(folder / "home", shared.postgres.port, shared.host.address)
                with dg.DagsterInstance.from_config(str(folder / "home")) as instance:
                    deployed = SeveralHosts(network, shared, sites, webhook, instance)
                    for site in sites.values():
                        site.start(deployed)
                    shared.start_dagster(deployed, webhook)
                    yield deployed
        finally:
            shared.close()
