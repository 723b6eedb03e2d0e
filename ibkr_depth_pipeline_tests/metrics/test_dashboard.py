"""The Grafana dashboard: a real Prometheus that scrapes a running ingest answers each query; each rule has a panel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from ibkr_depth_pipeline.box.embedded_redis import free_port
from ibkr_depth_pipeline.box.processes import GuardedProcess
from ibkr_depth_pipeline.metrics.endpoint import MetricsEndpoint
from ibkr_depth_pipeline.metrics.samples import PREFIX, families
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, universe_of
from ibkr_depth_pipeline_tests.metrics.sample_figures import FIGURES

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "ibkr_depth_dashboard.json"
RULES = DASHBOARD.parents[1] / "prometheus" / "ibkr_depth_rules.yaml"
VARIABLES = {"$__rate_interval": "5s", "$symbol": ".*", "$job": ".*"}
SCRAPE_SECS = 1


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def queries() -> list[str]:
    """Every query, as Grafana would send it."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    found += [annotation["expr"] for annotation in dashboard()["annotations"]["list"]]
    for name, value in VARIABLES.items():
        found = [query.replace(name, value) for query in found]
    return found


def rules() -> dict[str, str]:
    """The expression of each shipped rule, by its name."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule.get("alert") or rule["record"]: rule["expr"] for rule in group["rules"]}


def may_be_empty(query: str) -> bool:
    """Whether a healthy recording of a second's age may have nothing to show: only what is filtered by a comparison."""
    return query.endswith("> 0") or query in rules().values()


class Prometheus:
    """A server that scrapes one ingest; `ask` is its query interface."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    async def ask(self, query: str) -> list[Any]:
        """The samples. Raises HTTPError where Prometheus refuses the query, URLError while it is not up."""
        path = f"{self._url}/query?{urllib.parse.urlencode({'query': query})}"
        return await asyncio.to_thread(self._get, path)

    def _get(self, path: str) -> list[Any]:
        with urllib.request.urlopen(path, timeout=10) as answer:
            result = json.load(answer)
        assert result["status"] == "success"
        return list(result["data"]["result"])


@pytest.fixture
def ingest_port() -> int:
    return free_port()


@pytest.fixture
def prometheus(tmp_path: Path, ingest_port: int) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("the queries are not checked: no Prometheus here (apt-get install prometheus)")
    config = tmp_path / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: {SCRAPE_SECS}s}}\n"
        f"scrape_configs: [{{job_name: ibkr, static_configs: [{{targets: ['127.0.0.1:{ingest_port}']}}]}}]\n"
    )
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    server = GuardedProcess(command, log_path=tmp_path / "prometheus.log", cwd=tmp_path)
    try:
        yield Prometheus(port)
    finally:
        server.end(grace_secs=5)


async def test_every_query_of_the_dashboard_has_an_answer_beside_a_running_ingest(
    shared_redis_url: str, ingest_port: int, prometheus: Prometheus
) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=500)) as gateway:
        settings = {"ibkr_metrics_port": ingest_port, "ibkr_rotation_secs": 1}
        universe = universe_of("SPY", "QQQ", "IWM", "AAPL")
        async with recording(gateway, shared_redis_url, universe, **settings) as run:
            await run.grows("SPY")
            gateway.malformed_rows()
            empty = queries()

            async def all_answered() -> bool:
                with contextlib.suppress(ConnectionError, urllib.error.URLError):
                    empty[:] = [query for query in empty if not await prometheus.ask(query) and not may_be_empty(query)]
                    return not empty
                return False

            await run.until(all_answered)


def test_output_of_the_endpoint_passes_promtool() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here (apt-get install prometheus)")
    endpoint = MetricsEndpoint("127.0.0.1", 0, "default")
    endpoint.publish(FIGURES)
    registry = CollectorRegistry()
    registry.register(endpoint)
    text = generate_latest(registry)
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_dashboard_shows_every_metric_but_those_named_here() -> None:
    shown = set(re.findall(r"ibkr_depth_(\w+)", "".join(queries())))
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    names = {each.name + suffix for each in families(FIGURES, "default") for suffix in suffixes.get(each.type, ("",))}
    every = {name.removeprefix(PREFIX) for name in names}
    beside = {"run_info", "market_data_troubles", "gateway_connections_total", "buffer_snapshots", "snapshots_total"}
    assert every - shown == beside
    assert shown <= every


def test_each_rule_has_a_panel_with_its_expression() -> None:
    shown = {
        panel["description"].split()[1].rstrip("."): target["expr"]
        for panel in dashboard()["panels"]
        if panel["description"].startswith("Rule ")
        for target in panel["targets"]
    }
    assert shown == rules()


def test_panels_have_their_own_ids_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
