"""The operator's checklist, line by line, against the simulated gateway and a real Redis."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

from ibkr_depth_pipeline.box.embedded_redis import EmbeddedRedis, free_port
from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.ingest.checklist import ChecklistItem, Verdict, check_rotation, run_checklist
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL


@pytest.fixture
async def gateway() -> AsyncIterator[SimulatedGateway]:
    async with SimulatedGateway(GatewayOptions()) as simulated:
        yield simulated


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.upper().startswith("IBKR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def symbols_file(tmp_path: Path) -> Path:
    path = tmp_path / "symbols.yaml"
    path.write_text("symbols: [SPY, AAPL]")
    return path


def settings_for(gateway: SimulatedGateway, redis_url: str, symbols_file: Path, **overrides: Any) -> Settings:
    given = {
        "ibkr_host": gateway.host,
        "ibkr_port": gateway.port,
        "ibkr_client_id": 777,
        "ibkr_client_id_max_offset": 1,
        "redis_url": redis_url,
        "symbol_config_path": symbols_file,
    }
    return load_settings(**{**given, **overrides})


def by_subject(findings: list[ChecklistItem]) -> dict[str, Verdict]:
    return {finding.subject: finding.verdict for finding in findings}


def failures(findings: list[ChecklistItem]) -> list[ChecklistItem]:
    return [finding for finding in findings if finding.verdict is FAIL]


async def test_everything_in_order_is_one_line_each_in_the_order_an_operator_looks(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path
) -> None:
    findings = await run_checklist(settings_for(gateway, shared_redis_url, symbols_file))
    assert [(finding.subject, finding.verdict) for finding in findings] == [
        ("universe", OK),
        ("rotation", OK),
        ("redis", OK),
        ("gateway", OK),
        ("client id", OK),
        ("read-only", OK),
        ("venue of SPY", OK),
        ("venue of AAPL", OK),
    ]


async def test_misspelt_setting_is_a_warning_ahead_of_all(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBKR_PROT", "4002")
    first, *rest = await run_checklist(settings_for(gateway, shared_redis_url, symbols_file))
    assert (first.verdict, first.subject) == (WARN, "settings")
    assert first.text.startswith("IBKR_PROT: no such setting")
    assert len(rest) == 8


async def test_nothing_is_subscribed_to_and_nothing_is_left_behind(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path
) -> None:
    await run_checklist(settings_for(gateway, shared_redis_url, symbols_file))
    await gateway.wait_for(lambda: gateway.journal.entries("closed"))
    assert not gateway.journal.requests("reqMktDepth")
    with redis.Redis.from_url(shared_redis_url) as client:
        assert list(client.scan_iter()) == []


async def test_taken_client_id_is_a_warning_that_names_the_free_one(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path
) -> None:
    gateway.hold_client_id(777, 60)
    findings = await run_checklist(settings_for(gateway, shared_redis_url, symbols_file))
    assert ChecklistItem(WARN, "client id", "777 in use; 778 is free") in findings
    assert not failures(findings)


async def test_no_free_client_id_fails_although_the_gateway_answers(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path
) -> None:
    gateway.hold_client_id(777, 60)
    gateway.hold_client_id(778, 60)
    findings = await run_checklist(settings_for(gateway, shared_redis_url, symbols_file))
    assert by_subject(findings)["gateway"] is OK
    (failed,) = failures(findings)
    assert failed.subject == "client id"
    assert "777 to 778" in failed.text
    assert "IBKR_CLIENT_ID_MAX_OFFSET" in failed.text


async def test_no_gateway_fails_and_the_rest_is_still_looked_at(shared_redis_url: str, symbols_file: Path) -> None:
    async with SimulatedGateway(GatewayOptions(port=free_port())) as gone:
        settings = settings_for(gone, shared_redis_url, symbols_file)
    findings = await run_checklist(settings)
    (failed,) = failures(findings)
    assert failed.subject == "gateway"
    assert f"{settings.ibkr_host}:{settings.ibkr_port}" in failed.text
    assert by_subject(findings)["redis"] is OK


async def test_port_that_is_no_gateway_fails(
    gateway: SimulatedGateway, redis_server: EmbeddedRedis, symbols_file: Path
) -> None:
    settings = settings_for(gateway, redis_server.url, symbols_file)
    wrong = settings.model_copy(update={"ibkr_port": redis_server.port, "ibkr_connect_timeout_secs": 0.3})
    (failed,) = failures(await run_checklist(wrong))
    assert failed.subject == "gateway"


async def test_gateway_that_takes_orders_is_a_warning(shared_redis_url: str, symbols_file: Path) -> None:
    async with SimulatedGateway(GatewayOptions(read_only_api=False)) as gateway:
        findings = await run_checklist(settings_for(gateway, shared_redis_url, symbols_file), orders=True)
    assert by_subject(findings)["read-only"] is WARN
    assert not failures(findings)


async def test_open_orders_are_asked_for_only_where_the_operator_says_so(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path
) -> None:
    settings = settings_for(gateway, shared_redis_url, symbols_file)
    (read_only,) = [each for each in await run_checklist(settings) if each.subject == "read-only"]
    assert "--orders" in read_only.text
    assert not gateway.journal.requests("reqOpenOrders")
    await run_checklist(settings, orders=True)
    assert len(gateway.journal.requests("reqOpenOrders")) == 1


async def test_gateway_line_shows_version_and_connection_time(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path
) -> None:
    findings = await run_checklist(settings_for(gateway, shared_redis_url, symbols_file))
    (line,) = [each.text for each in findings if each.subject == "gateway"]
    assert re.search(r"protocol version 176, connected at 20\d{6} ", line)


async def test_gateway_older_than_those_that_are_served_is_a_warning(shared_redis_url: str, symbols_file: Path) -> None:
    async with SimulatedGateway(GatewayOptions(server_version=160)) as gateway:
        findings = await run_checklist(settings_for(gateway, shared_redis_url, symbols_file))
    assert by_subject(findings)["gateway version"] is WARN
    assert not failures(findings)


async def test_port_at_which_nothing_listens_names_the_ports_and_what_to_do(
    shared_redis_url: str, symbols_file: Path
) -> None:
    async with SimulatedGateway(GatewayOptions(port=free_port())) as gone:
        settings = settings_for(gone, shared_redis_url, symbols_file)
    (failed,) = failures(await run_checklist(settings))
    assert all(word in failed.text for word in ("running", "IBKR_PORT", "7496", "7497", "4001", "4002", "API"))
    assert "\n" not in failed.text


async def test_gateway_that_accepts_and_is_mute_names_what_may_be_waiting(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path
) -> None:
    gateway.mute_new_connections()
    settings = settings_for(gateway, shared_redis_url, symbols_file, ibkr_connect_timeout_secs=0.3)
    (failed,) = failures(await run_checklist(settings))
    assert all(word in failed.text for word in ("login", "dialog", "IBKR_CONNECT_TIMEOUT_SECS"))


async def test_client_id_that_hangs_is_passed_over_with_a_warning(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path
) -> None:
    gateway.hang_client_id(777)
    settings = settings_for(gateway, shared_redis_url, symbols_file, ibkr_connect_timeout_secs=0.3)
    (found,) = [each for each in await run_checklist(settings) if each.subject == "client id"]
    assert found.verdict is WARN
    assert "777 not answered" in found.text
    assert "IBKR_CLIENT_ID" in found.text


async def test_unknown_symbol_fails_on_its_own_line(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path
) -> None:
    findings = await run_checklist(settings_for(gateway, shared_redis_url, symbols_file), ["SPY", "NOSUCH"])
    assert failures(findings) == [ChecklistItem(FAIL, "venue of NOSUCH", "the gateway knows no such contract (200)")]
    assert by_subject(findings)["venue of SPY"] is OK


async def test_bad_name_that_was_asked_for_is_refused(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path
) -> None:
    with pytest.raises(ConfigurationError, match="symbols asked for"):
        await run_checklist(settings_for(gateway, shared_redis_url, symbols_file), ["spy"])


@pytest.mark.parametrize(("text", "lines"), [("symbols: [spy, 'A:B']", 2), ("symbols: []", 1), ("[", 1)])
async def test_bad_universe_fails_line_by_line_and_the_rest_is_still_looked_at(
    gateway: SimulatedGateway, shared_redis_url: str, symbols_file: Path, text: str, lines: int
) -> None:
    symbols_file.write_text(text)  # noqa: ASYNC240 - a line
    findings = await run_checklist(settings_for(gateway, shared_redis_url, symbols_file))
    assert [finding.subject for finding in failures(findings)] == ["universe"] * lines
    assert all(str(symbols_file) in finding.text for finding in failures(findings))
    assert by_subject(findings)["gateway"] is OK


async def test_no_redis_fails_and_the_rest_is_still_looked_at(
    gateway: SimulatedGateway, redis_server: EmbeddedRedis, symbols_file: Path
) -> None:
    settings = settings_for(gateway, redis_server.url, symbols_file)
    redis_server.stop()
    findings = await run_checklist(settings)
    assert [finding.subject for finding in failures(findings)] == ["redis"]
    assert by_subject(findings)["venue of SPY"] is OK


async def test_wrong_password_fails_and_is_not_shown(
    gateway: SimulatedGateway, redis_server: EmbeddedRedis, symbols_file: Path
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("requirepass", "right")
        url = redis_server.url.replace("redis://", "redis://:hunter2@")
        findings = await run_checklist(settings_for(gateway, url, symbols_file))
        client.config_set("requirepass", "")
    assert [finding.subject for finding in failures(findings)] == ["redis"]
    assert "hunter2" not in str(findings)


def test_slots_beyond_the_usual_ones_are_a_warning(symbols_file: Path) -> None:
    settings = load_settings(ibkr_max_concurrent_depth=4, ibkr_rotation_secs=15)
    assert [finding.verdict for finding in check_rotation(settings, 10)] == [OK, WARN]


def test_dwell_shorter_than_a_first_row_takes_is_a_warning_only_where_symbols_rotate() -> None:
    settings = load_settings(ibkr_max_concurrent_depth=3, ibkr_rotation_secs=0.5)
    assert [finding.verdict for finding in check_rotation(settings, 10)] == [WARN]
    assert [finding.verdict for finding in check_rotation(settings, 3)] == [OK]


def test_rotation_line_says_how_long_each_symbol_is_on() -> None:
    settings = load_settings(ibkr_max_concurrent_depth=3, ibkr_rotation_secs=15)
    (finding,) = check_rotation(settings, 10)
    assert "each of 10 symbols is on for 15 s every 60 s" in finding.text


async def test_contract_that_another_gateway_records_is_a_failure_that_names_both(
    gateway: SimulatedGateway,
    shared_redis_url: str,
    symbols_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "other.yaml").write_text("symbols: [{name: APPLE, con_id: 265598}]")
    gateways = "gateways: [{name: a, port: 1, universe: symbols.yaml}, {name: b, port: 2, universe: other.yaml}]"
    (tmp_path / "gateways.yaml").write_text(gateways)
    monkeypatch.setenv("GATEWAYS_CONFIG_PATH", str(tmp_path / "gateways.yaml"))
    with redis.Redis.from_url(shared_redis_url) as client:
        client.hset(
            "raw:ibkr:depth:venue:APPLE", mapping={"con_id": 265598, "exchange": "ISLAND", "depth_supported": 1}
        )
    (found,) = failures(await run_checklist(settings_for(gateway, shared_redis_url, symbols_file)))
    assert found.subject == "venue of AAPL"
    for part in ("'APPLE'", "'AAPL'", "265598 on ISLAND"):
        assert part in found.text
