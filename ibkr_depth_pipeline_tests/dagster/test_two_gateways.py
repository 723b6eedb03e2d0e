"""Two gateways, two simulated accounts, one Redis, one deployment: each records its own, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import redis

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.definitions import build_definitions
from ibkr_depth_pipeline.orchestration.gateway_assets import load_all_gateway_assets, symbol_key
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.dagster.deployment import Deployment, deployment

UNIVERSES = {"paper": ("SPY", "QQQ"), "live": ("AAPL", "MSFT", "IWM")}


@pytest.fixture
def accounts() -> Iterator[dict[str, GatewayThread]]:
    """Two accounts, with slots of their own."""
    with GatewayThread(GatewayOptions(rows_per_second=50)) as paper:
        with GatewayThread(GatewayOptions(rows_per_second=50)) as live:
            yield {"paper": paper, "live": live}


@pytest.fixture
def gateways_file(tmp_path: Path, accounts: dict[str, GatewayThread]) -> Path:
    for name, symbols in UNIVERSES.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"symbols": symbols}))
    entries = [
        {"name": name, "host": account.host, "port": account.port, "universe": f"{name}.yaml", "slots": 1}
        for name, account in accounts.items()
    ]
    path = tmp_path / "gateways.yaml"
    path.write_text(json.dumps({"gateways": entries}))
    return path


@pytest.fixture
def deployed(tmp_path: Path, gateways_file: Path, shared_redis_url: str) -> Iterator[Deployment]:
    folder = tmp_path / "deployment"
    folder.mkdir()
    environment = {
        "GATEWAYS_CONFIG_PATH": str(gateways_file),
        "REDIS_URL": shared_redis_url,
        "IBKR_ROTATION_SECS": "0.5",
        "IBKR_PORT": "1",  # nobody's: each run must take its own gateway's
    }
    with deployment(folder, environment) as running:
        yield running


def recorded(url: str) -> set[str]:
    """The symbols of which there are snapshots."""
    with redis.Redis.from_url(url) as store:
        streams = store.keys("raw:ibkr:depth:stream:*")
        return {key.decode().rpartition(":")[2] for key in streams if store.xlen(key)}


@pytest.mark.faults  # it costs a deployment; end_to_end/test_two_ingests.py has two ingests side by side without one
def test_two_gateways_record_their_universes_at_the_same_time_under_leases_of_their_own(
    deployed: Deployment, accounts: dict[str, GatewayThread], shared_redis_url: str
) -> None:
    runs = {name: deployed.launch(job=f"ibkr_depth_ingest_job_{name}") for name in UNIVERSES}
    everything = {symbol for symbols in UNIVERSES.values() for symbol in symbols}
    assert wait_until(lambda: recorded(shared_redis_url) == everything, PATIENCE_SECS), "not every symbol was recorded"
    assert {deployed.status(run_id) for run_id in runs.values()} == {"STARTED"}
    with redis.Redis.from_url(shared_redis_url) as store:
        figures = {name: json.loads(store.get(f"raw:ibkr:depth:ingest:{name}") or "{}") for name in UNIVERSES}
    assert {name: told["run"]["run_id"] for name, told in figures.items()} == runs
    for run_id in runs.values():
        deployed.terminate(run_id)
    assert [deployed.wait_for_end(run_id) for run_id in runs.values()] == ["CANCELED", "CANCELED"]
    for name, account in accounts.items():
        asked = {entry.detail["symbol"] for entry in account.journal.requests("reqMktDepth")}
        assert asked == set(UNIVERSES[name])
        assert not account.journal.errors(309)


def test_gateway_has_a_group_a_pool_and_jobs_of_its_own(gateways_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAYS_CONFIG_PATH", str(gateways_file))
    definitions = build_definitions(*load_all_gateway_assets())
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    for name, symbols in UNIVERSES.items():
        feed = graph.get(dg.AssetKey(["raw", "ibkr", "depth", name, "feed"]))
        assert feed.group_name == f"ibkr_depth_{name}"
        assert feed.pools == {f"ibkr_depth_{name}"}
        assert feed.parent_keys == {symbol_key(symbol) for symbol in symbols}
        for job in ("ibkr_depth_ingest_job", "ibkr_depth_probe_job"):
            assert definitions.resolve_job_def(f"{job}_{name}").executor_def.name == "in_process"
        assert definitions.resolve_schedule_def(f"ibkr_depth_ingest_before_open_{name}").job_name.endswith(name)


def test_wrong_gateways_file_leaves_the_location_loading_and_is_explained_at_the_feed(
    gateways_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateways_file.write_text("gateways: [{name: paper}]")
    monkeypatch.setenv("GATEWAYS_CONFIG_PATH", str(gateways_file))
    (lineage,) = load_all_gateway_assets()
    assert "gateways[1] 'paper': universe is missing" in lineage.feed_metadata["universe_problem"].value
    dg.Definitions.validate_loadable(build_definitions(lineage))


def test_code_locations_of_several_hosts_hold_a_half_each_and_nothing_twice(
    gateways_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAYS_CONFIG_PATH", str(gateways_file))
    assets = load_all_gateway_assets()
    held = {"all": _names(build_definitions(*assets))}
    for each in ("recording", "monitoring"):
        monkeypatch.setenv("IBKR_CODE_LOCATION", each)
        dg.Definitions.validate_loadable(build_definitions(*assets))
        held[each] = _names(build_definitions(*assets))
    assert held["recording"] | held["monitoring"] == held["all"]
    assert not held["recording"] & held["monitoring"]
    # what launches runs is beside the gateway, what notices that its host is lost is elsewhere
    assert "ibkr_depth_watchdog_paper" in held["recording"]
    assert {"ibkr_depth_heartbeats_paper", "ibkr_depth_run_alerts_paper"} <= held["monitoring"]


def _names(definitions: dg.Definitions) -> set[str]:
    graph = definitions.resolve_asset_graph()
    repository = definitions.get_repository_def()
    named = [*repository.get_all_jobs(), *repository.schedule_defs, *repository.sensor_defs]
    return {
        *(each.name for each in named if each.name != "__ASSET_JOB"),
        *(key.to_user_string() for key in graph.materializable_asset_keys),
        *(f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys),
    }
