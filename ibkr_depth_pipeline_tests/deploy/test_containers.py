"""The files for Docker and Kubernetes, as far as they can be judged without either."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ibkr_depth_pipeline_tests.conftest import REPOSITORY

DOCKER = REPOSITORY / "deploy" / "docker"
DAGSTER = ("code", "web", "daemon")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return document


def test_every_service_restarts_by_itself_and_publishes_on_loopback_only(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"redis", "postgres", "ib-gateway", *DAGSTER}
    for name, service in compose["services"].items():
        assert service["restart"] == "always", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_the_three_dagster_processes_have_no_rights_beyond_their_own(compose: dict[str, Any]) -> None:
    for name in DAGSTER:
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_a_stop_reaches_the_ingest_and_leaves_it_time(compose: dict[str, Any]) -> None:
    code = compose["services"]["code"]
    assert code["init"] is True
    assert code["environment"]["TINI_KILL_PROCESS_GROUP"] == "1"
    assert code["environment"].items() >= compose["services"]["web"]["environment"].items()
    assert code["stop_grace_period"] == "30s"


def test_the_archive_lies_on_a_volume_since_all_else_is_read_only(compose: dict[str, Any]) -> None:
    for name in DAGSTER:
        service = compose["services"][name]
        volumes = dict(mount.split(":")[:2] for mount in service["volumes"])
        assert Path(service["environment"]["ARCHIVE_URL"]).is_relative_to(volumes["dagster_home"])


def test_what_is_mounted_from_here_is_here(compose: dict[str, Any]) -> None:
    mounts = [mount for service in compose["services"].values() for mount in service.get("volumes", [])]
    for source in {mount.partition(":")[0] for mount in mounts}:
        assert source in compose["volumes"] or (DOCKER / source).exists(), source


def test_every_variable_that_must_be_set_stands_in_the_example(compose: dict[str, Any]) -> None:
    named = set(re.findall(r"\$\{([A-Z_]+)", json.dumps(compose)))
    given = set(re.findall(r"^([A-Z_]+)=", (DOCKER / "env.example").read_text(), re.MULTILINE))
    assert named == given


def test_the_containers_dagster_is_configured_as_any_other_but_for_the_storage() -> None:
    common = yaml.safe_load((REPOSITORY / "config" / "dagster.yaml").read_text())
    contained = yaml.safe_load((DOCKER / "dagster.yaml").read_text())
    assert set(contained) - set(common) == {"storage"}
    assert {key: contained[key] for key in common} == common


def test_the_workspace_names_the_code_servers_container_and_port(compose: dict[str, Any]) -> None:
    (entry,) = yaml.safe_load((DOCKER / "workspace.yaml").read_text())["load_from"]
    assert entry["grpc_server"]["host"] in compose["services"]
    (command,) = re.findall(r"^CMD (\[.*\])$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    words = json.loads(command)
    assert words[words.index("--port") + 1] == str(entry["grpc_server"]["port"])
    assert words[words.index("--location-name") + 1] == entry["grpc_server"]["location_name"]


def test_what_the_dockerfile_copies_is_here_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    kept = [line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"]
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert any(Path(source).is_relative_to(folder) for folder in kept), source


def test_the_values_for_kubernetes_say_what_the_instance_file_says() -> None:
    values = yaml.safe_load((REPOSITORY / "deploy" / "kubernetes" / "values.yaml").read_text())
    common = yaml.safe_load((REPOSITORY / "config" / "dagster.yaml").read_text())
    assert values["additionalInstanceConfig"]["concurrency"] == common["concurrency"]
    assert values["dagsterDaemon"]["runRetries"]["maxRetries"] == common["run_retries"]["max_retries"]
    assert values["dagsterDaemon"]["sensors"]["numWorkers"] == common["sensors"]["num_workers"]
    assert values["telemetry"]["enabled"] is common["telemetry"]["enabled"]
    for deployment in values["dagster-user-deployments"]["deployments"]:
        assert "ibkr_depth_pipeline.definitions" in deployment["codeServerArgs"]
