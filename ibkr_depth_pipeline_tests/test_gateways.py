"""The list of gateways: where it comes from, what an entry sets, and what a bad file says, all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.gateways import Gateway, gateway_named, load_gateways
from ibkr_depth_pipeline_tests.conftest import REPOSITORY


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with two universes, and no setting from outside."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    for name, symbols in {"one": ["SPY", "QQQ"], "two": ["AAPL"], "both": ["MSFT", "SPY"]}.items():
        (tmp_path / "config" / f"{name}.yaml").write_text(json.dumps({"symbols": symbols}))
    return tmp_path


ONE = {"name": "one", "port": 4001, "universe": "one.yaml"}
TWO = {"name": "two", "port": 4002, "universe": "two.yaml"}


def listed(*entries: object) -> tuple[Gateway, ...]:
    """The gateways of a file with these entries, at the default path."""
    Path("config/gateways.yaml").write_text(json.dumps({"gateways": entries}))
    return load_gateways()


def problems(*entries: object) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        listed(*entries)
    assert "gateways.yaml" in caught.value.where
    return caught.value.problems


def test_gateway_of_the_settings_is_used_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBKR_PORT", "4711")
    (only,) = load_gateways()
    assert only.name == ""
    assert only.settings().ibkr_port == 4711
    assert only.settings().ibkr_gateway_name == "default"


def test_file_named_by_the_setting_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAYS_CONFIG_PATH", "elsewhere.yaml")
    with pytest.raises(ConfigurationError, match=r"elsewhere\.yaml: can't be read"):
        load_gateways()


def test_entry_wins_over_the_environment_and_a_run_over_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBKR_PORT", "4711")
    monkeypatch.setenv("IBKR_ROTATION_SECS", "3")
    entry = {**TWO, "host": "gateway.example", "client_id": 5, "probe_client_id": 6, "slots": 2}
    one, two = listed(ONE, entry)
    settings = two.settings(ibkr_client_id=9)
    assert (settings.ibkr_gateway_name, settings.ibkr_host, settings.ibkr_port) == ("two", "gateway.example", 4002)
    assert (settings.ibkr_client_id, settings.ibkr_probe_client_id) == (9, 6)
    assert settings.ibkr_max_concurrent_depth == 2
    assert settings.symbol_config_path == Path("config/two.yaml")
    assert settings.ibkr_rotation_secs == 3
    assert one.settings().ibkr_gateway_name == "one"


def test_facts_of_a_gateway_lie_beside_the_file() -> None:
    one, two = listed(ONE, {**TWO, "facts": "facts_of_two.json"})
    assert one.settings().ibkr_gateway_facts == Path("config/gateway_facts.json")
    assert two.settings().ibkr_gateway_facts == Path("config/facts_of_two.json")


def test_metrics_port_is_the_entrys_or_that_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IBKR_METRICS_PORT", "9400")
    both = listed(ONE, {**TWO, "metrics_port": 9401})
    assert [gateway.settings().ibkr_metrics_port for gateway in both] == [9400, 9401]
    assert "gateways[1] 'one' metrics_port: 70000 is not allowed" in problems({**ONE, "metrics_port": 70000})[0]


def test_each_gateway_has_a_dead_mans_switch_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEADMAN_URL", "https://hc.example/key/depth-{gateway}")
    targets = [each.settings().deadman_target for each in listed(ONE, {**TWO, "deadman_url": "https://other/s3cr3t"})]
    assert targets == ["https://hc.example/key/depth-one", "https://other/s3cr3t"]
    assert "deadman_url_shared" not in "".join(capfd.readouterr())
    refused = problems({**ONE, "deadman_url": "ftp://other/s3cr3t"})[0]
    assert "gateways[1] 'one' deadman_url" in refused
    assert "s3cr3t" not in refused


@pytest.mark.parametrize("url", ["https://hc.example/s3cr3t", ""])
def test_dead_mans_switch_that_gateways_share_is_logged_without_its_url(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEADMAN_URL", url)
    listed(ONE, TWO)
    logged = "".join(capfd.readouterr())
    assert ("deadman_url_shared" in logged) is bool(url)
    assert "s3cr3t" not in logged


BAD = {
    "no mapping": ("paper", "gateways[2] 'paper': must be a mapping"),
    "no name": ({"universe": "two.yaml"}, "gateways[2] (no name): name is missing"),
    "no universe": ({"name": "two"}, "gateways[2] 'two': universe is missing"),
    "a name that Dagster can't take": ({**TWO, "name": "my gw"}, "gateways[2] 'my gw' name: 'my gw' is not allowed"),
    "a port out of range": ({**TWO, "port": 0}, "gateways[2] 'two' port: 0 is not allowed; gateway port"),
    "no slots": ({**TWO, "slots": 0}, "gateways[2] 'two' slots: 0 is not allowed"),
    "an unknown key": ({**TWO, "prot": 1}, "gateways[2] 'two': unknown key 'prot'"),
    "a universe that is not there": ({**TWO, "universe": "no.yaml"}, "can't be read"),
    "a name twice": ({**TWO, "name": "one"}, "the name one is listed under gateways[1] 'one' too"),
    "a gateway twice": ({**TWO, "port": 4001}, "the gateway at 127.0.0.1:4001 is listed under gateways[1] 'one' too"),
    "a symbol twice": ({**TWO, "universe": "both.yaml"}, "the symbol SPY is listed under gateways[1] 'one' too"),
}


@pytest.mark.parametrize(("entry", "words"), BAD.values(), ids=BAD)
def test_error_names_the_bad_entry_and_the_problem(entry: object, words: str) -> None:
    (problem,) = problems(ONE, entry)
    assert words in problem


def test_problems_are_all_listed_at_once() -> None:
    assert len(problems({**ONE, "port": -1, "slots": "many"}, {"name": "two"}, "three")) == 4


@pytest.mark.parametrize("document", ["", "gateways: []", "gateways: {}", "{gateways: [], more: 1}", "- paper"])
def test_file_of_another_shape_is_refused(document: str) -> None:
    Path("config/gateways.yaml").write_text(document)
    with pytest.raises(ConfigurationError, match="must hold `gateways:`"):
        load_gateways()


def test_gateway_that_is_no_longer_listed_is_refused() -> None:
    assert gateway_named("").name == ""
    listed(ONE, TWO)
    assert gateway_named("two").name == "two"
    with pytest.raises(ConfigurationError, match=r"three is no longer listed \(one, two\); reload the code location"):
        gateway_named("three")
    with pytest.raises(ConfigurationError, match="the gateway of the settings is no longer listed"):
        gateway_named("")


def test_example_file_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAYS_CONFIG_PATH", str(REPOSITORY / "config" / "gateways.example.yaml"))
    told: dict[str, Any] = {gateway.name: gateway.settings().ibkr_port for gateway in load_gateways()}
    assert told == {"paper": 4002, "live": 4001}


def test_pins_are_counted_for_each_gateway_by_its_own_slots(folder: Path) -> None:
    (folder / "config" / "one.yaml").write_text("symbols: [A, {symbol: B, pin: true}, {symbol: C, pin: true}]")
    (folder / "config" / "two.yaml").write_text("symbols: [D, {symbol: E, pin: true}, {symbol: F, pin: true}]")
    one = {"name": "one", "universe": "one.yaml", "port": 1, "slots": 3}
    two = {"name": "two", "universe": "two.yaml", "port": 2}
    assert len(listed(one, two)) == 2
    (problem,) = problems(one, {**two, "slots": 2})
    assert "'two'" in problem
    assert "2 are pinned" in problem
