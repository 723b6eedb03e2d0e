"""The files for Docker and Kubernetes, as far as they can be judged without either."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline_tests.conftest import REPOSITORY

DOCKER = REPOSITORY / "deploy" / "docker"
DAGSTER = ("code", "web", "daemon")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return document


def test_every_service_restarts_by_itself_and_publishes_on_loopback_only(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"redis", "postgres", "ib-gateway", "archive", *DAGSTER}
    for name, service in compose["services"].items():
        assert service["restart"] == "always", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_our_processes_have_no_rights_beyond_their_own(compose: dict[str, Any]) -> None:
    for name in (*DAGSTER, "archive"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_standby_is_a_container_of_its_own_with_the_same_rights_and_a_short_lease(compose: dict[str, Any]) -> None:
    standby = yaml.safe_load((DOCKER / "compose.standby.yaml").read_text())["services"]
    assert set(standby) == {"code", "standby"}
    like = standby["standby"]["extends"]
    assert (like["file"], like["service"] in compose["services"]) == ("compose.yaml", True)
    for service in standby.values():
        settings = {name.lower(): value for name, value in service["environment"].items()}
        assert load_settings(**settings).ibkr_standby == "on"
        assert load_settings(**settings).ibkr_lease_ttl_secs == 3


def test_stop_of_the_container_reaches_the_ingest_and_leaves_it_time(compose: dict[str, Any]) -> None:
    code = compose["services"]["code"]
    assert code["init"] is True
    assert code["environment"]["TINI_KILL_PROCESS_GROUP"] == "1"
    assert code["environment"].items() >= compose["services"]["web"]["environment"].items()
    assert code["stop_grace_period"] == "30s"


def test_archive_lies_on_a_volume_since_all_else_is_read_only(compose: dict[str, Any]) -> None:
    for name in DAGSTER:
        service = compose["services"][name]
        volumes = dict(mount.split(":")[:2] for mount in service["volumes"])
        assert Path(service["environment"]["ARCHIVE_URL"]).is_relative_to(volumes["dagster_home"])


def test_mounted_files_are_in_the_repository_or_made_by_the_script(compose: dict[str, Any]) -> None:
    mounts = [mount for service in compose["services"].values() for mount in service.get("volumes", [])]
    made = (DOCKER / "prepare.sh").read_text()
    for source in {mount.partition(":")[0] for mount in mounts}:
        known = source in compose["volumes"] or (DOCKER / source).exists()
        assert known or f"mkdir -p {source.removeprefix('./')}\n" in made, source


def test_every_setting_reaches_our_containers_and_none_is_named_twice(compose: dict[str, Any]) -> None:
    for name in (*DAGSTER, "archive"):
        assert compose["services"][name]["env_file"] == ["settings.env"]
    documented = set(re.findall(r"^([A-Z_]+)=", (REPOSITORY / ".env.example").read_text(), re.MULTILINE))
    of_dagster = {name for name in compose["services"]["code"]["environment"] if name.startswith(("IBKR_", "REDIS_"))}
    assert of_dagster <= documented


def test_logs_are_rotated_and_images_have_versions(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["logging"]["options"]["max-size"], name
        tag = service["image"].rpartition(":")[2]
        assert re.search(r"\d+\.\d+", tag), (name, tag)


def test_redis_refuses_what_it_has_no_room_for_and_has_room_for_the_universe(compose: dict[str, Any]) -> None:
    words = compose["services"]["redis"]["command"]
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
    assert words[words.index("--appendonly") + 1] == "yes"
    room = int(words[words.index("--maxmemory") + 1].removesuffix("mb")) * 2**20
    symbols = len(yaml.safe_load((REPOSITORY / "config" / "ibkr_symbols.yaml").read_text())["symbols"])
    assert room > 2 * 600 * symbols * Settings.model_fields["ibkr_stream_maxlen"].default


def test_gateway_keeps_its_session_and_its_settings(compose: dict[str, Any]) -> None:
    gateway = compose["services"]["ib-gateway"]
    assert gateway["environment"]["EXISTING_SESSION_DETECTED_ACTION"] == "primary"
    assert gateway["environment"]["TZ"] == gateway["environment"]["TIME_ZONE"]
    inside = [mount.split(":")[1] for mount in gateway["volumes"]]
    assert gateway["environment"]["TWS_SETTINGS_PATH"] in inside


def gateway_check(compose: dict[str, Any], port: int) -> int:
    """The exit code of the gateway's health check, with this port and without the container."""
    _, *words = compose["services"]["ib-gateway"]["healthcheck"]["test"]
    replaced = words[-1].replace("${IBKR_PORT:-4004}", str(port)).replace("$$", "$")
    return subprocess.run([*words[:-1], replaced], capture_output=True, timeout=30).returncode


def test_gateway_is_healthy_exactly_if_it_answers_the_handshake(compose: dict[str, Any]) -> None:
    with GatewayThread(GatewayOptions()) as gateway:
        assert gateway_check(compose, gateway.port) == 0
    assert gateway_check(compose, gateway.port) != 0
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert gateway_check(compose, silent.getsockname()[1]) != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="the files become the property of another user: needs root")
def test_script_makes_what_compose_reads_and_leaves_what_is_there(tmp_path: Path) -> None:
    shutil.copytree(DOCKER, tmp_path / "deploy" / "docker", ignore=shutil.ignore_patterns(".env", "*.env", "tws_*"))
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    shutil.copy(REPOSITORY / ".env.example", tmp_path)
    (tmp_path / "config" / "ibkr_symbols.yaml").chmod(0o600)
    docker = tmp_path / "deploy" / "docker"
    for secret in ("hunter2", "another"):
        subprocess.run([docker / "prepare.sh"], input=f"{secret}\n", text=True, check=True, capture_output=True)
    password = docker / "tws_password.txt"
    assert password.read_text() == "hunter2"
    assert (password.stat().st_uid, oct(password.stat().st_mode)[-3:]) == (1000, "400")
    assert (docker / "tws_settings").stat().st_uid == 1000
    settings = dict(line.split("=", 1) for line in (docker / ".env").read_text().splitlines() if line[:1].isupper())
    assert all(re.fullmatch("[A-Za-z0-9]{32}", settings[name]) for name in ("REDIS_PASSWORD", "POSTGRES_PASSWORD"))
    assert (docker / "settings.env").read_text() == (REPOSITORY / ".env.example").read_text()
    assert oct((docker / ".env").stat().st_mode)[-3:] == "600"
    assert oct((tmp_path / "config" / "ibkr_symbols.yaml").stat().st_mode)[-3:] == "644"


def test_every_variable_that_must_be_set_stands_in_the_example(compose: dict[str, Any]) -> None:
    named = set(re.findall(r"\$\{([A-Z_]+)", json.dumps(compose)))
    given = set(re.findall(r"^([A-Z_]+)=", (DOCKER / "env.example").read_text(), re.MULTILINE))
    assert named == given


def test_dagster_of_the_containers_is_configured_as_any_other_but_for_the_storage() -> None:
    common = yaml.safe_load((REPOSITORY / "config" / "dagster.yaml").read_text())
    contained = yaml.safe_load((DOCKER / "dagster.yaml").read_text())
    assert set(contained) - set(common) == {"storage"}
    assert {key: contained[key] for key in common} == common


def test_workspace_names_the_code_servers_container_and_port(compose: dict[str, Any]) -> None:
    (entry,) = yaml.safe_load((DOCKER / "workspace.yaml").read_text())["load_from"]
    assert entry["grpc_server"]["host"] in compose["services"]
    (command,) = re.findall(r"^CMD (\[.*\])$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    words = json.loads(command)
    assert words[words.index("--port") + 1] == str(entry["grpc_server"]["port"])
    assert words[words.index("--location-name") + 1] == entry["grpc_server"]["location_name"]


def test_files_that_the_dockerfile_copies_exist_and_are_not_ignored() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    kept = [line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"]
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert any(Path(source).is_relative_to(folder) for folder in kept), source


def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy" / "kubernetes" / "values.yaml").read_text())
    return loaded


def snake(document: Any) -> Any:
    """Keys as dagster.yaml has them, in the place of the chart's."""
    if not isinstance(document, dict):
        return document
    return {
        re.sub("([A-Z])", lambda found: f"_{found[0].lower()}", key): snake(value) for key, value in document.items()
    }


def test_values_for_kubernetes_say_all_that_the_instance_file_says() -> None:
    common = yaml.safe_load((REPOSITORY / "config" / "dagster.yaml").read_text())
    said = values()
    daemon = snake(said["dagsterDaemon"])
    chart = {**daemon, "telemetry": said["telemetry"], "retention": snake(said["retention"])}
    for section, wanted in common.items():
        given = said["additionalInstanceConfig"].get(section, chart.get(section))
        assert given is not None, section
        compare(wanted, given, section)


def compare(wanted: Any, given: Any, where: str) -> None:
    """Whether `given` says what `wanted` says; it may say more."""
    if not isinstance(wanted, dict):
        assert given == wanted, where
        return
    for key, value in wanted.items():
        assert key in given, f"{where}.{key}"
        compare(value, given[key], f"{where}.{key}")


def test_code_server_of_the_values_has_a_liveness_probe_and_its_arguments() -> None:
    for deployment in values()["dagster-user-deployments"]["deployments"]:
        assert "ibkr_depth_pipeline.definitions" in deployment["codeServerArgs"]
        assert deployment["livenessProbe"]["timeoutSeconds"] < deployment["livenessProbe"]["periodSeconds"]


def test_run_pod_asks_for_what_is_meant_and_has_the_files_and_secrets() -> None:
    job = pytest.importorskip("dagster_k8s.job", reason="dagster-k8s is not installed: pip install dagster-k8s")
    context = pytest.importorskip("dagster_k8s.container_context").K8sContainerContext
    launcher = snake_keys(values()["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"])
    (deployment,) = values()["dagster-user-deployments"]["deployments"]
    # what the chart hands to the code server, as its template k8sContainerContext makes it
    of_code = {
        "env_secrets": [each["name"] for each in deployment["envSecrets"]],
        "volumes": deployment["volumes"],
        "volume_mounts": deployment["volumeMounts"],
        "resources": deployment["resources"],
    }
    of_launcher = context.create_from_config({"k8s": {"run_k8s_config": launcher}})
    merged = of_launcher.merge(context.create_from_config({"k8s": of_code}))
    made = job.construct_dagster_k8s_job(
        job.DagsterK8sJobConfig(
            dagster_home="/opt/dagster_home", instance_config_map="instance", job_image="image:0.1.0"
        ),
        ["dagster", "api", "execute_run"],
        "dagster-run-1",
        user_defined_k8s_config=merged.run_k8s_config,
    ).to_dict()
    template = made["spec"]["template"]["spec"]
    (container,) = template["containers"]
    assert container["resources"]["requests"] == {"cpu": "500m", "memory": "512Mi"}
    assert template["termination_grace_period_seconds"] == 60
    assert made["spec"]["backoff_limit"] == 0
    assert [each["secret_ref"]["name"] for each in container["env_from"] if each["secret_ref"]] == ["ibkr-depth"]
    assert "/etc/ibkr_depth" in [mount["mount_path"] for mount in container["volume_mounts"]]


def snake_keys(document: dict[str, Any]) -> dict[str, Any]:
    """The sections as dagster-k8s calls them; what is within them are Kubernetes' own names, either way."""
    return {key: snake(value) for key, value in snake(document).items()}
