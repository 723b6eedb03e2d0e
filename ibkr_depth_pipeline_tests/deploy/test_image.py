"""The image starts and records: built from the Dockerfile without Docker, run as compose.yaml runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import yaml

from ibkr_depth_pipeline.box.embedded_redis import HOST, free_port
from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline_tests.conftest import REPOSITORY
from ibkr_depth_pipeline_tests.deploy.debian_root import TOOLS, missing_tool
from ibkr_depth_pipeline_tests.deploy.image import (
    Container,
    Image,
    Mount,
    build_image,
    read_steps,
    start_container,
)
from ibkr_depth_pipeline_tests.deploy.postgres import PostgresServer
from ibkr_depth_pipeline_tests.deploy.test_constraints import versions
from ibkr_depth_pipeline_tests.deploy.test_postgres import CREDENTIALS, write_instance

DOCKER = REPOSITORY / "deploy" / "docker"
PATIENCE_SECS = 120.0


def test_dockerfile_steps_are_read_with_continuations_and_without_comments() -> None:
    steps = read_steps("# a comment\nfrom x\nENV A=1 \\\n    B=2\n\nRUN a && \\\n  b\n")
    assert [(step.word, step.rest) for step in steps] == [("FROM", "x"), ("ENV", "A=1  B=2"), ("RUN", "a &&  b")]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if reason := missing_tool():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("image") / "root"
    try:
        yield build_image(root, DOCKER / "Dockerfile", REPOSITORY)
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("tool", TOOLS)
def test_base_is_made_by_either_tool(tool: str, tmp_path: Path) -> None:
    if reason := missing_tool() or ("" if shutil.which(tool) else f"no {tool} here (apt-get install {tool})"):
        pytest.skip(reason)
    base = Image(tmp_path / "root", tool=tool)
    try:
        step = next(step for step in read_steps((DOCKER / "Dockerfile").read_text()) if step.word == "FROM")
        base.apply(step, REPOSITORY, DOCKER / "Dockerfile.dockerignore")
        assert "3.11" in output(base, tmp_path, "python", "--version")
    finally:
        shutil.rmtree(base.root, ignore_errors=True)


@pytest.fixture
def volume(tmp_path: Path, image: Image) -> Path:
    """The volume dagster_home: the image's user may write to it, as to a new volume of Docker's."""
    made = tmp_path / "dagster_home"
    made.mkdir()
    (made / "dagster.yaml").touch()  # the file that the mount covers
    shutil.chown(made, int(image.user))
    return made


def output(image: Image, tmp_path: Path, *command: str) -> str:
    """What `command` prints in a container of its own."""
    log = tmp_path / "output.log"
    log.unlink(missing_ok=True)
    container = start_container(image, command, [], {}, log)
    try:
        assert wait_until(lambda: not container.process.running, PATIENCE_SECS)
    finally:
        container.end()
    return log.read_text()


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_image_holds_the_tested_versions_and_its_processes_have_no_rights(image: Image, tmp_path: Path) -> None:
    installed = json.loads(output(image, tmp_path, "pip", "list", "--format", "json").splitlines()[0])
    tested = versions(REPOSITORY / "constraints" / "python3.11.txt")
    found = {each["name"].lower().replace("_", "-"): each["version"] for each in installed}
    named = {name: version for name, version in found.items() if name in tested and name not in ("pip", "setuptools")}
    assert {name: str(tested[name]) for name in named} == named
    assert {"dagster-postgres", "prometheus-client", "pyarrow", "redis"} <= set(named)
    status = output(image, tmp_path, "cat", "/proc/self/status")
    assert all(f"{name}:\t0000000000000000" in status for name in ("CapEff", "CapPrm", "CapBnd"))
    assert "NoNewPrivs:\t1" in status
    assert f"Uid:\t{image.user}" in status
    for folder in ("/opt/ibkr_depth_pipeline", "/usr/local", "/home/ibkr_depth"):
        assert "Read-only file system" in output(image, tmp_path, "touch", f"{folder}/file")
    assert "symbols" in output(image, tmp_path, "cat", "config/ibkr_symbols.yaml")


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server
    finally:
        server.remove()


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_watchdog_of_the_image_starts_a_recording_that_a_stop_drains(
    image: Image, tmp_path: Path, volume: Path, postgres: PostgresServer, redis_url: str
) -> None:
    code_port, compose = free_port(), yaml.safe_load((DOCKER / "compose.yaml").read_text())
    write_instance(tmp_path / "instance", postgres.port)
    workspace = tmp_path / "workspace.yaml"
    moved = (
        (DOCKER / "workspace.yaml").read_text().replace("4266", str(code_port)).replace("host: code", "host: " + HOST)
    )
    workspace.write_text(moved)
    universe = tmp_path / "config"
    universe.mkdir()
    (universe / "ibkr_symbols.yaml").write_text(json.dumps({"symbols": ["SPY", "QQQ"]}))
    mounts = [
        Mount(volume, "/opt/dagster_home", writable=True),
        Mount(tmp_path / "instance" / "dagster.yaml", "/opt/dagster_home/dagster.yaml"),
        Mount(universe, "/opt/ibkr_depth_pipeline/config"),
        Mount(workspace, "/opt/ibkr_depth_pipeline/workspace.yaml"),
    ]
    with ExitStack() as stack:
        gateway = stack.enter_context(GatewayThread(GatewayOptions(rows_per_second=50)))
        environment = {
            **CREDENTIALS,
            "IBKR_HOST": gateway.host,
            "IBKR_PORT": str(gateway.port),
            "REDIS_URL": redis_url,
            "IBKR_CALENDAR": "24/7",
            "TINI_KILL_PROCESS_GROUP": compose["services"]["code"]["environment"]["TINI_KILL_PROCESS_GROUP"],
        }

        def start(name: str, command: list[str]) -> Container:
            words = [word.replace("4266", str(code_port)) for word in command]
            container = start_container(image, words, mounts, environment, tmp_path / f"{name}.log")
            stack.callback(container.end)
            return container

        code = start("code", list(image.command))
        health = compose["services"]["code"]["healthcheck"]["test"][1:]

        def healthy() -> bool:
            check = start("health", health)
            wait_until(lambda: not check.process.running, PATIENCE_SECS)
            return check.process.exit_code == 0

        assert wait_until(healthy, PATIENCE_SECS), (tmp_path / "code.log").read_text()
        start("daemon", compose["services"]["daemon"]["command"])
        store = stack.enter_context(redis.Redis.from_url(redis_url))
        assert wait_until(lambda: store.xlen(stream_key("SPY")) > 100, PATIENCE_SECS), "\n".join(
            (tmp_path / f"{name}.log").read_text() for name in ("code", "daemon")
        )
        assert code.stop(grace_secs=30.0)
        logs = "".join(path.read_text() for path in volume.glob("storage/*/compute_logs/*.err"))
        assert '"drained": true' in logs
        assert int(postgres.query("SELECT count(*) FROM runs")) >= 1
