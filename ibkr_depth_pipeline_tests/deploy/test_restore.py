"""backup.sh and restore.sh of deploy/, as they stand: all is lost, and a session records on elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import psutil
import pyarrow.parquet as pq
import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis, free_port
from ibkr_depth_pipeline.box.processes import GuardedProcess, wait_until
from ibkr_depth_pipeline.orchestration.gateway_assets import symbol_key
from ibkr_depth_pipeline.orchestration.storage import postgres_url
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline_tests.conftest import REPOSITORY
from ibkr_depth_pipeline_tests.dagster.deployment import Deployment, deployment, environment_of
from ibkr_depth_pipeline_tests.deploy.postgres import DATABASE, USER, PostgresServer
from ibkr_depth_pipeline_tests.deploy.test_postgres import CREDENTIALS, SHIPPED, write_instance

PATIENCE_SECS = 180.0
SYMBOLS = ("SPY", "QQQ")
TOOLS = ("redis-cli", "redis-server", "sqlite3", "flock")


def test_url_of_the_shipped_postgres_is_one_that_libpq_reads(tmp_path: Path) -> None:
    shutil.copy(SHIPPED, tmp_path / "dagster.yaml")
    odd = {**CREDENTIALS, "DAGSTER_POSTGRES_PASSWORD": "a/b@c"}
    assert postgres_url(tmp_path, odd) == f"postgresql://{USER}:a%2Fb%40c@postgres:5432/{DATABASE}"
    with pytest.raises(KeyError, match="DAGSTER_POSTGRES_USER"):
        postgres_url(tmp_path, {})
    assert postgres_url(REPOSITORY / "config", {}) == ""


@dataclass
class Host:
    """A host with a Redis, a storage for Dagster and a folder for the archive, all its own."""

    folder: Path
    gateway: GatewayThread
    postgres: PostgresServer | None
    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "redis").mkdir()
        self.redis = self.stack.enter_context(self._redis_server())
        self.archive = self.folder / "archive"
        self.instance_file = REPOSITORY / "config" / "dagster.yaml"
        if self.postgres is not None:
            write_instance(self.folder / "written", self.postgres.port)
            self.instance_file = self.folder / "written" / "dagster.yaml"

    def _redis_server(self) -> EmbeddedRedis:
        return EmbeddedRedis(persist=True, directory=self.folder / "redis", extra_args=["--requirepass", "a-secret"])

    @property
    def environment(self) -> dict[str, str]:
        more = {
            **(CREDENTIALS if self.postgres is not None else {}),
            "GATEWAYS_CONFIG_PATH": "config/gateways.yaml",
            "ARCHIVE_URL": str(self.archive),
            "ARCHIVE_FLUSH_SECS": "0.5",
            "IBKR_AUTOMATION": "on",
            "IBKR_LEASE_TTL_SECS": "2",
            "IBKR_OBSERVE_SECS": "5",
        }
        return environment_of(self.folder, self.gateway, self.redis.url, SYMBOLS, **more)

    def script(self, name: str, folder: Path) -> str:
        """Runs deploy/NAME from a checkout of its own, as it is installed."""
        installed = self.folder / "installed"
        if not installed.exists():
            shutil.copytree(REPOSITORY / "deploy", installed / "deploy")
            (installed / ".venv").symlink_to(Path(sys.executable).parent.parent)
        home = self.folder / "dagster_home"
        home.mkdir(exist_ok=True)
        shutil.copy(self.instance_file, home / "dagster.yaml")
        settings = self.folder / "settings.env"
        settings.write_text("".join(f"{key}='{value}'\n" for key, value in self.environment.items()))
        env = {"PATH": os.environ["PATH"], "SETTINGS": str(settings), "DAGSTER_HOME": str(home)}
        done = subprocess.run(
            [installed / "deploy" / name, folder],
            env={**env, "PORT": str(free_port())},
            capture_output=True,
            text=True,
            cwd="/",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def recording(self) -> Iterator[Deployment]:
        """Dagster with the watchdog's session, and an archiver beside it."""
        with deployment(self.folder, self.environment, self.instance_file) as deployed:
            command = [Path(sys.executable).with_name("ibkr_depth_archive"), "run"]
            env = {"PATH": os.environ["PATH"], **self.environment}
            archiver = GuardedProcess(command, log_path=self.folder / "archiver.log", env=env, cwd=self.folder)
            try:
                yield deployed
            finally:
                archiver.end(grace_secs=10.0)

    def grows(self, by: int) -> None:
        with redis.Redis.from_url(self.redis.url) as store:
            before = {symbol: newest_seq(store, symbol) for symbol in SYMBOLS}
            grown = lambda: all(newest_seq(store, symbol) >= before[symbol] + by for symbol in SYMBOLS)  # noqa: E731
            assert wait_until(grown, PATIENCE_SECS), (self.folder / "code.log").read_text()[-3000:]

    def numbers(self, symbol: str) -> list[int]:
        with redis.Redis.from_url(self.redis.url) as store:
            return [int(fields[b"seq"]) for _, fields in store.xrange(stream_key(symbol))]

    def archived(self, symbol: str) -> list[tuple[int, int]]:
        """(ts, seq) of every snapshot as a plain glob finds them."""
        found: list[tuple[int, int]] = []
        for path in sorted(self.archive.glob(f"books/*/symbol={symbol}/*.parquet")):
            table = pq.read_table(path, columns=["ts", "seq"], partitioning=None)
            found += zip(table["ts"].cast("int64").to_pylist(), table["seq"].to_pylist(), strict=True)
        return sorted(found)

    def close(self) -> None:
        """What is running stops."""
        self.stack.close()
        if self.postgres is not None:
            self.postgres.remove()
            self.postgres = None

    def lose_everything(self) -> None:
        self.close()
        shutil.rmtree(self.folder)


def newest_seq(store: redis.Redis, symbol: str) -> int:
    found = store.xrevrange(stream_key(symbol), count=1)
    return int(found[0][0].decode().partition("-")[2]) if found else 0


def end_at_once(deployed: Deployment) -> None:
    """As a host that loses its power: every process, runs included."""
    for server in deployed.servers.values():
        family = psutil.Process(server.process.pid)
        for process in [*family.children(recursive=True), family]:
            process.kill()


def checked(host: Host) -> str:
    """`ibkr_depth_archive check` of today, once all is kept; fails unless all is well."""
    env = {"PATH": os.environ["PATH"], **host.environment}
    today = datetime.now(timezone.utc).date().isoformat()
    for words in (["run", "--once"], ["check", today, "--calendar", "24/7"]):
        command = [Path(sys.executable).with_name("ibkr_depth_archive"), *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=host.folder)
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def missing(numbers: Sequence[int]) -> list[int]:
    return sorted(set(range(1, max(numbers) + 1)) - set(numbers))


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("on_postgres", "archive_survives"),
    [(False, True), (True, False)],
    ids=["sqlite, archive newer than the backup", "postgres, archive lost as well"],
)
def test_session_records_on_with_its_numbers_on_an_empty_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_postgres: bool, archive_survives: bool
) -> None:
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"not installed here: {', '.join(lacking)}")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    backup = tmp_path / "backup"
    with GatewayThread(GatewayOptions(rows_per_second=20)) as gateway, ExitStack() as hosts:
        old = Host(tmp_path / "old", gateway, PostgresServer() if on_postgres else None)
        hosts.callback(old.close)
        with old.recording() as deployed:
            old.grows(100)
            first_run = deployed.instance.get_runs()[0].run_id
            assert wait_until(lambda: observations(deployed.instance) > 0, PATIENCE_SECS)
            old.script("backup.sh", backup)
            saved = {symbol: max(old.archived(symbol)) for symbol in SYMBOLS}
            old.grows(150)
            assert wait_until(
                lambda: all(max(old.archived(symbol))[1] > saved[symbol][1] + 50 for symbol in SYMBOLS), PATIENCE_SECS
            )
            end_at_once(deployed)
        before = {symbol: old.archived(symbol) for symbol in SYMBOLS}
        if archive_survives:
            shutil.move(old.archive, tmp_path / "survivor")
        old.lose_everything()

        new = Host(tmp_path / "new", gateway, PostgresServer() if on_postgres else None)
        hosts.callback(new.close)
        if archive_survives:
            shutil.move(tmp_path / "survivor", new.archive)
        print(new.script("restore.sh", backup))
        with new.recording() as deployed:
            new.grows(100)
            assert deployed.instance.get_run_by_id(first_run) is not None
            assert len(deployed.instance.all_logs(first_run)) > 0
            assert wait_until(lambda: deployed.status(first_run) == "FAILURE", PATIENCE_SECS), "its worker is gone"
            assert observations(deployed.instance) > 0
            end_at_once(deployed)
        for symbol in SYMBOLS:
            kept = new.archived(symbol)
            numbers = [seq for _, seq in kept]
            assert len(set(numbers)) == len(numbers), "no number stands for two snapshots"
            assert numbers == sorted(numbers)
            if archive_survives:
                assert kept[: len(before[symbol])] == before[symbol]
            assert max(new.numbers(symbol)) - 60 < max(numbers)
        print(checked(new))


def observations(instance: dg.DagsterInstance) -> int:
    return len(instance.fetch_observations(symbol_key("SPY"), limit=5).records)
