"""Dagster's storage in Postgres, as the image has it: the shipped dagster.yaml opens it, and a failure is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
import pytest
import yaml

from ibkr_depth_pipeline.box.embedded_redis import HOST, free_port
from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline_tests.box.running_box import listens
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS, REPOSITORY
from ibkr_depth_pipeline_tests.deploy.postgres import DATABASE, PASSWORD, USER, PostgresServer

SHIPPED = REPOSITORY / "deploy" / "docker" / "dagster.yaml"
CREDENTIALS = {
    "DAGSTER_POSTGRES_USER": USER,
    "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
    "DAGSTER_POSTGRES_DB": DATABASE,
}


def write_instance(home: Path, port: int, host: str = HOST) -> None:
    """The shipped dagster.yaml, with its host and port moved to a server of the test's."""
    home.mkdir(exist_ok=True)
    document = yaml.safe_load(SHIPPED.read_text())
    document["storage"]["postgres"]["postgres_db"] |= {"hostname": host, "port": port}
    (home / "dagster.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server
    finally:
        server.remove()


def test_shipped_instance_file_has_an_engine_that_the_installed_driver_opens() -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    utils = pytest.importorskip("dagster_postgres.utils", reason="dagster-postgres is not installed: make venv")
    config = yaml.safe_load(SHIPPED.read_text())["storage"]["postgres"]["postgres_db"]
    config |= {"username": USER, "password": PASSWORD, "db_name": DATABASE}
    engine = sqlalchemy.create_engine(utils.pg_url_from_config({"postgres_db": config}))
    assert engine.driver == "psycopg2"
    engine.dispose()


def test_instance_of_the_shipped_file_keeps_its_runs_in_postgres(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    write_instance(tmp_path / "home", postgres.port)
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        instance.create_run_for_job(dg.job(name="nothing")(lambda: None))
        assert instance.get_runs_count() == 1
    assert postgres.query("SELECT count(*) FROM runs") == "1"


def health(port: int, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ibkr_depth_pipeline.orchestration.health", "--port", str(port)]
    return subprocess.run(command, capture_output=True, text=True, env=dict(environment), timeout=PATIENCE_SECS)


def test_code_server_is_unhealthy_exactly_while_its_instance_cannot_be_opened(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    home, port = tmp_path / "home", free_port()
    write_instance(home, postgres.port)
    environment = {"DAGSTER_HOME": str(home), "PATH": os.environ["PATH"], "IBKR_AUTOMATION": "off", **CREDENTIALS}
    location = tmp_path / "location.py"
    location.write_text("import dagster\ndefs = dagster.Definitions()\n")
    words = ["-m", "dagster", "api", "grpc", "--host", HOST, "--port", str(port), "--location-name", "any"]
    words += ["--python-file", str(location)]
    log = tmp_path / "code.log"
    server = GuardedProcess([sys.executable, *words], log_path=log, env=environment, cwd=tmp_path)
    try:
        assert wait_until(lambda: listens(server, port), PATIENCE_SECS), log.read_text()
        assert wait_until(lambda: health(port, environment).returncode == 0, PATIENCE_SECS), log.read_text()
        postgres.stop()
        away = health(port, environment)
        assert (away.returncode, server.running) == (1, True)
        assert "unhealthy" in away.stderr
        assert PASSWORD not in away.stderr
        postgres.start()
        assert wait_until(lambda: health(port, environment).returncode == 0, PATIENCE_SECS)
    finally:
        server.end(grace_secs=10.0)
    assert health(port, environment).returncode == 1
