"""The systemd units: systemd accepts them, each restarts by itself, all stay on loopback, and their commands run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
import yaml

from ibkr_depth_pipeline.box.dagster_api import DagsterApi
from ibkr_depth_pipeline.box.embedded_redis import HOST, free_port
from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline_tests.box.running_box import listens
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS, REPOSITORY
from ibkr_depth_pipeline_tests.deploy.units import INSTALLED, SERVICES, SYSTEMD, command, unit_path, unit_values
from ibkr_depth_pipeline_tests.monitoring.webhook import Webhook

ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    scripts = str(Path(sys.executable).parent)
    for path in (*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.target")):
        (tmp_path / path.name).write_text(path.read_text().replace(f"{INSTALLED}/.venv/bin", scripts))
    units = [str(path) for path in tmp_path.iterdir()]
    result = subprocess.run([str(ANALYZE), "verify", *units], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("service", [*SERVICES, "page", "standby"])
def test_each_service_restarts_by_itself_and_has_few_rights(service: str) -> None:
    assert unit_values(service, "Restart") == ["always"]
    assert unit_values(service, "OnFailure") == ["ibkr-depth-alert@%n.service"]
    assert unit_values(service, "SuccessExitStatus") == ["143 SIGTERM"]
    assert unit_values(service, "NoNewPrivileges") == ["true"]
    assert unit_values(service, "ProtectSystem") == ["strict"]
    assert unit_values(service, "CapabilityBoundingSet") == [""]
    assert unit_values(service, "User") == ["ibkr-depth"]


@pytest.mark.parametrize("service", SERVICES)
def test_service_that_cannot_start_is_given_up_but_one_that_waits_for_a_database_is_not(service: str) -> None:
    (interval,), (burst,) = unit_values(service, "StartLimitIntervalSec"), unit_values(service, "StartLimitBurst")
    (pause,) = unit_values(service, "RestartSec")
    assert int(burst) * int(pause) < int(interval)
    takes_to_notice = 20  # Dagster's processes try for so long, at least, before they give their storage up
    assert int(burst) * (int(pause) + takes_to_notice) > int(interval)


def test_alert_of_a_failed_unit_reaches_the_webhook() -> None:
    words = command("alert@")
    with Webhook() as webhook:
        settings = {"PATH": os.environ["PATH"], "ALERT_URLS": webhook.url}
        words[words.index("%i")] = "ibkr-depth-code.service"
        subprocess.run(words, env=settings, check=True, capture_output=True, cwd=REPOSITORY)
        (title,) = webhook.titles()
    assert "ibkr-depth-code.service has failed" in title


SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
case "$1" in show)
    count=$(cat {count} 2>/dev/null || echo 0)
    echo $((count + 1)) > {count}
    [ "$count" -lt 3 ] && echo deactivating || echo inactive
esac
"""


@pytest.fixture
def systemctl(tmp_path: Path) -> dict[str, str]:
    """An environment with a systemctl that stops nothing, and whose services take their time to stop."""
    script = tmp_path / "bin" / "systemctl"
    script.parent.mkdir()
    script.write_text(SYSTEMCTL.format(log=tmp_path / "calls", count=tmp_path / "count"))
    script.chmod(0o755)
    return {"PATH": f"{script.parent}:{os.environ['PATH']}", "DAGSTER_HOME": str(tmp_path / "dagster_home")}


def test_stop_returns_when_every_service_has_stopped(tmp_path: Path, systemctl: dict[str, str]) -> None:
    subprocess.run([SYSTEMD / "stop.sh"], env=systemctl, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "stop ibkr-depth.target"
    asked = [call.rpartition(" ")[2] for call in calls if call.startswith("show")]
    services = (*SERVICES, "archive", "page")
    assert set(asked) == {unit_path(service).name for service in services}
    assert len(asked) == 3 + len(services)


def test_wipe_empties_the_history_between_a_stop_and_a_start(tmp_path: Path, systemctl: dict[str, str]) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("no sqlite3 here (apt-get install sqlite3)")
    home = tmp_path / "dagster_home"
    home.mkdir()
    shutil.copy(REPOSITORY / "config" / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.create_run_for_job(dg.job(name="nothing")(lambda: None))
        assert instance.get_runs_count() == 1
        instance.event_log_storage.initialize_concurrency_limit_to_default("ibkr_depth")
        assert instance.event_log_storage.get_concurrency_info("ibkr_depth").slot_count == 1
    installed = tmp_path / "installed"
    shutil.copytree(SYSTEMD, installed / "deploy" / "systemd")
    (installed / ".venv").symlink_to(Path(sys.executable).parent.parent)
    subprocess.run([installed / "deploy" / "systemd" / "wipe.sh"], env=systemctl, check=True, capture_output=True)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_runs_count() == 0
        # a pool that is known and has no slot would keep every run waiting
        assert instance.event_log_storage.get_concurrency_keys() == set()
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "start ibkr-depth.target"


def test_switch_drains_migrates_and_names_the_new_version(tmp_path: Path, systemctl: dict[str, str]) -> None:
    home, old = tmp_path / "dagster_home", tmp_path / "old"
    home.mkdir()
    old.mkdir()
    shutil.copy(REPOSITORY / "config" / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs_count()
    new, link, units = tmp_path / "new", tmp_path / "link", tmp_path / "units"
    units.mkdir()
    link.symlink_to(old)
    shutil.copytree(SYSTEMD, new / "deploy" / "systemd")
    (new / ".venv").symlink_to(Path(sys.executable).parent.parent)
    env = {**systemctl, "LINK": str(link), "UNITS": str(units)}
    subprocess.run([new / "deploy" / "systemd" / "switch.sh"], env=env, check=True, capture_output=True)
    assert link.resolve() == new
    assert (units / "ibkr-depth.target").exists()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert (calls[0], calls[-1]) == ("stop ibkr-depth.target", "start ibkr-depth.target")


def test_archive_lies_where_the_services_can_write() -> None:
    (state,) = unit_values("code", "StateDirectory")
    (environment,) = unit_values("code", "Environment")
    archive = f"ARCHIVE_URL=/var/lib/{state}/archive"
    assert archive in environment.split()
    # the settings' own file, a copy of the example, wins over the unit
    assert "ARCHIVE_URL=$STATE/archive" in (SYSTEMD / "install.sh").read_text()
    assert "\nARCHIVE_URL=archive\n" in (REPOSITORY / ".env.example").read_text()


def test_tapes_of_the_flight_recorder_lie_where_the_services_can_write() -> None:
    (environment,) = unit_values("code", "Environment")
    assert "IBKR_FLIGHT_RECORDER_DIR=/var/lib/ibkr-depth/flight_recorder" in environment.split()
    assert "IBKR_FLIGHT_RECORDER_DIR=$STATE/flight_recorder" in (SYSTEMD / "install.sh").read_text()


def test_standby_stops_with_the_target_so_that_it_takes_nothing_over_then() -> None:
    assert unit_values("standby", "PartOf") == ["ibkr-depth.target"]
    assert command("standby")[1:] == ["run", "--reserve"]
    assert "IBKR_FLIGHT_RECORDER_DIR=/var/lib/ibkr-depth" in unit_values("standby", "Environment")[0]


def test_target_starts_all_three_services() -> None:
    target = (SYSTEMD / "ibkr-depth.target").read_text()
    assert all(unit_path(service).name in target for service in SERVICES)


def test_everything_listens_on_loopback_and_the_workspace_names_the_code_servers_port() -> None:
    for service in ("code", "web"):
        words = command(service)
        assert words[words.index("--host") + 1] == "127.0.0.1"
    words = command("code")
    (entry,) = yaml.safe_load((SYSTEMD / "workspace.yaml").read_text())["load_from"]
    server = entry["grpc_server"]
    assert (server["host"], str(server["port"])) == ("127.0.0.1", words[words.index("--port") + 1])
    assert server["location_name"] == words[words.index("--location-name") + 1]


@pytest.fixture
def environment(tmp_path: Path, shared_redis_url: str) -> Iterator[dict[str, str]]:
    """What the units' EnvironmentFile would say, for a simulated gateway."""
    universe = tmp_path / "ibkr_symbols.yaml"
    universe.write_text(json.dumps({"symbols": ["SPY"]}))
    home = tmp_path / "dagster_home"
    home.mkdir()
    shutil.copy(REPOSITORY / "config" / "dagster.yaml", home)
    with GatewayThread(GatewayOptions(rows_per_second=50)) as gateway:
        yield {
            "DAGSTER_HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "IBKR_HOST": gateway.host,
            "IBKR_PORT": str(gateway.port),
            "REDIS_URL": shared_redis_url,
            "SYMBOL_CONFIG_PATH": str(universe),
            "GATEWAYS_CONFIG_PATH": "config/gateways.yaml",
            "IBKR_STOP_AT_CLOSE": "false",
            "IBKR_AUTOMATION": "off",
        }


def moved(words: list[str], ports: dict[str, int], workspace: Path) -> list[str]:
    """The command with free ports, and with the workspace that names them."""
    named = {"4266": str(ports["code"]), "3000": str(ports["web"])}
    named[str(SYSTEMD / "workspace.yaml")] = str(workspace)
    return [named.get(word, word) for word in words]


@pytest.mark.faults
def test_commands_of_the_units_run_a_session_and_drain_it_when_systemd_stops_them(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    ports = {"code": free_port(), "web": free_port()}
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text((SYSTEMD / "workspace.yaml").read_text().replace("4266", str(ports["code"])))
    running: dict[str, GuardedProcess] = {}
    try:
        for service in SERVICES:
            words = moved(command(service), ports, workspace)
            log = tmp_path / f"{service}.log"
            running[service] = GuardedProcess(words, log_path=log, env=environment, cwd=tmp_path)
            port = ports.get(service)
            assert port is None or wait_until(partial(listens, running[service], port), PATIENCE_SECS), log.read_text()
        api = DagsterApi(HOST, ports["web"])
        assert wait_until(lambda: api.serves(tmp_path / "dagster_home", "ibkr_depth_pipeline"), PATIENCE_SECS)
        api.launch("ibkr_depth_pipeline", "ibkr_depth_ingest_job")
        logs = tmp_path / "dagster_home" / "storage"
        assert wait_until(lambda: "rotation_started" in told(logs), PATIENCE_SECS), "nothing was recorded"
        running["code"].end(grace_secs=30.0)
        assert '"drained": true' in told(logs)
    finally:
        for process in reversed(running.values()):
            process.end(grace_secs=10.0)


def told(logs: Path) -> str:
    """What the runs' own logs hold."""
    return "".join(path.read_text() for path in logs.glob("*/compute_logs/*.err"))
