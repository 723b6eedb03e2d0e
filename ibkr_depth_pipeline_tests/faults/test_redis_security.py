"""Redis over TLS, and a user that may touch nothing but our keys: real servers, a whole run on each."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from structlog.testing import capture_logs

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis, free_port
from ibkr_depth_pipeline.box.processes import BoxError
from ibkr_depth_pipeline.errors import ConfigurationError, SinkUnavailable
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.sink.connection import check_writable, open_redis
from ibkr_depth_pipeline.sink.status import read_health
from ibkr_depth_pipeline_tests.conftest import REPOSITORY
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, universe_of
from ibkr_depth_pipeline_tests.sink.writing import reading
from ibkr_depth_pipeline_tests.web.conftest import WebServer
from ibkr_depth_pipeline_tests.web.market import RecordedMarket
from ibkr_depth_pipeline_tests.web.test_socket import until, viewer

SECRET = "hunter2"
DOCUMENTED = REPOSITORY / "docs" / "redis-schema.md"


def documented_user() -> list[str]:
    """The command of the documentation that makes the recorder's user."""
    (rule,) = re.findall(r"ACL SETUSER (recorder [^`]*?)\n\n", DOCUMENTED.read_text())
    return [word.strip() for word in rule.replace("\\\n", " ").replace("PASSWORD", SECRET).split()]


async def make_user(url: str) -> None:
    async with reading(url) as admin:
        await admin.execute_command("ACL", "SETUSER", *documented_user())


async def run_for_a_while(redis_url: str, admin_url: str, **settings: Any) -> None:
    """A whole run, its checklist and its status, with the user of the documentation."""
    with capture_logs() as lines:
        async with SimulatedGateway() as gateway:
            async with recording(gateway, redis_url, universe_of("SPY", "QQQ"), **settings) as run:
                async with reading(admin_url) as admin:

                    async def some_are_stored() -> bool:
                        return await admin.xlen("raw:ibkr:depth:stream:SPY") >= 50

                    await run.until(some_are_stored)
                    target = load_settings(redis_url=redis_url, **settings).redis_target
                    report = await read_health(target, "default", ["SPY"])
                    await check_writable(target)
                summary = await run.stop()
        assert report.symbols[0].state.value == "fresh"
        assert report.feed.running
    assert summary.drained
    assert not [line for line in lines if line["log_level"] in ("error", "critical")]
    assert SECRET not in str(lines)


async def test_documented_user_suffices_for_a_run(redis_server: EmbeddedRedis) -> None:
    await make_user(redis_server.url)
    url = redis_server.url.replace("redis://", f"redis://recorder:{SECRET}@")
    await run_for_a_while(url, redis_server.url)
    async with reading(redis_server.url) as admin:
        assert await admin.exists("raw:ibkr:depth:lease:default") == 0


async def test_documented_user_needs_select_for_another_database(redis_server: EmbeddedRedis) -> None:
    assert "needs `+select` besides" in DOCUMENTED.read_text()
    await make_user(redis_server.url)
    url = redis_server.url.replace("redis://", f"redis://recorder:{SECRET}@").removesuffix("/0") + "/1"
    with pytest.raises(SinkUnavailable, match="'select'"):
        await check_writable(url)
    async with reading(redis_server.url) as admin:
        await admin.execute_command("ACL", "SETUSER", "recorder", "+select")
    await check_writable(url)


async def test_documented_user_may_touch_no_other_key(redis_server: EmbeddedRedis) -> None:
    await make_user(redis_server.url)
    client = open_redis(redis_server.url.replace("redis://", f"redis://recorder:{SECRET}@"))
    try:
        await client.set("raw:ibkr:depth:hb:SPY", 1)
        for command in (("SET", "other", "1"), ("GET", "raw:ibkr:trades:SPY"), ("FLUSHALL",), ("CONFIG", "GET", "*")):
            with pytest.raises(redis.ResponseError, match=r"(?i)permission"):
                await client.execute_command(*command)
        with pytest.raises(redis.ResponseError):
            await client.eval("return redis.call('SET', 'other', '1')", 0)
    finally:
        await client.aclose()


# ---- TLS


@dataclass(frozen=True)
class Certificates:
    """Files of a certificate authority and of what it signed."""

    folder: Path

    def file(self, name: str) -> str:
        return str(self.folder / name)


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def _authority(folder: Path, name: str) -> None:
    subject = ["-subj", f"/CN={name}", "-days", "2"]
    _openssl(
        folder,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        f"{name}.key",
        "-out",
        f"{name}.pem",
        *subject,
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, a stranger's, and a server's and a client's certificate of the first."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificates to test with")
    folder = tmp_path_factory.mktemp("certificates of 100 %")
    _authority(folder, "ca")
    _authority(folder, "stranger")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        _openssl(
            folder,
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={name}",
        )
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    return Certificates(folder)


@dataclass(frozen=True)
class TlsServer:
    """A Redis that also listens for TLS, and demands a client's certificate there."""

    plain_url: str
    tls_url: str


@pytest.fixture
def tls_server(certificates: Certificates) -> Iterator[TlsServer]:
    port = free_port()
    options = {
        "port": str(port),
        "cert-file": certificates.file("server.pem"),
        "key-file": certificates.file("server.key"),
    }
    options |= {"ca-cert-file": certificates.file("ca.pem"), "auth-clients": "yes"}
    server = EmbeddedRedis(extra_args=[part for name, value in options.items() for part in (f"--tls-{name}", value)])
    try:
        server.start()
    except BoxError as error:
        if "tls-" not in str(error):
            raise
        pytest.skip(
            "the Redis server here is built without TLS: put one with it on PATH (apt-get install redis-server)"
        )
    try:
        yield TlsServer(server.url, f"rediss://recorder:{SECRET}@127.0.0.1:{port}/0")
    finally:
        server.stop()


def tls_files(certificates: Certificates, **other: str) -> dict[str, str]:
    files = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key", **other}
    return {f"redis_tls_{name}": certificates.file(file) for name, file in files.items() if file}


def test_web_page_shows_a_redis_over_tls(tls_server: TlsServer, certificates: Certificates, tmp_path: Path) -> None:
    market = RecordedMarket(tls_server.plain_url)
    market.redis.execute_command(
        "ACL", "SETUSER", "recorder", "on", f">{SECRET}", "~raw:ibkr:depth:*", "+@read", "+@connection"
    )
    files = {name.upper(): path for name, path in tls_files(certificates).items()}
    web = WebServer(tls_server.tls_url, tmp_path, **files)
    try:
        with viewer(web) as socket:
            socket.send('{"watch": "SPY"}')
            assert until(socket, "frame", symbol="SPY")["book"][2][0][0] == 100.0
        assert SECRET not in web.process.log_path.read_text()
    finally:
        web.end()
        market.close()


async def test_run_over_tls_records_with_the_documented_user(tls_server: TlsServer, certificates: Certificates) -> None:
    await make_user(tls_server.plain_url)
    await run_for_a_while(tls_server.tls_url, tls_server.plain_url, **tls_files(certificates))


@pytest.mark.parametrize(
    "files",
    [{"ca_file": "stranger.pem"}, {"cert_file": "", "key_file": ""}],
    ids=["strange_authority", "no_certificate"],
)
async def test_tls_connection_without_the_right_certificates_is_refused(
    tls_server: TlsServer, certificates: Certificates, files: dict[str, str]
) -> None:
    await make_user(tls_server.plain_url)
    settings = load_settings(redis_url=tls_server.tls_url, **tls_files(certificates, **files))
    with pytest.raises(SinkUnavailable) as failure:
        await check_writable(settings.redis_target)
    assert SECRET not in str(failure.value)


def test_tls_files_reach_the_client_whatever_is_in_their_names(certificates: Certificates) -> None:
    settings = load_settings(redis_url="rediss://localhost/3?client_name=a", **tls_files(certificates))
    given = open_redis(settings.redis_target).connection_pool.connection_kwargs
    assert (given["ssl_ca_certs"], given["db"]) == (certificates.file("ca.pem"), 3)
    assert given["ssl_certfile"] == certificates.file("client.pem")


def test_tls_files_without_tls_or_in_part_are_refused(certificates: Certificates) -> None:
    with pytest.raises(ConfigurationError, match="nothing is encrypted"):
        load_settings(redis_tls_ca_file=certificates.file("ca.pem"))
    with pytest.raises(ConfigurationError, match="both or neither"):
        load_settings(redis_url="rediss://localhost", redis_tls_cert_file=certificates.file("client.pem"))
    with pytest.raises(ConfigurationError, match=r"REDIS_TLS_CA_FILE='absent\.pem'"):
        load_settings(redis_url="rediss://localhost", redis_tls_ca_file="absent.pem")


def test_url_is_used_as_it_is_without_tls_files() -> None:
    assert Settings(redis_url="redis://localhost:1/0").redis_target == "redis://localhost:1/0"
