"""The probe job in this process: a check per symbol, the table, and its schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import redis

from ibkr_depth_pipeline.definitions import build_definitions
from ibkr_depth_pipeline.orchestration.gateway_assets import PROBE_KEY, load_gateway_assets, symbol_key
from ibkr_depth_pipeline.orchestration.rendering import ladder_markdown
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.gateway import SimulatedGateway
from ibkr_depth_pipeline_tests.dagster.conftest import SYMBOLS, failure_of


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def probe(instance: dg.DagsterInstance, *only: str, **config: Any) -> dg.ExecuteInProcessResult:
    """The job as the location that has just been reloaded runs it; `only` are the symbols selected, all by default."""
    job = build_definitions(load_gateway_assets()).resolve_job_def("ibkr_depth_probe_job")
    run_config = {"ops": {"ibkr_depth_probe": {"config": config}}}
    selection = [symbol_key(symbol) for symbol in only] or None
    return job.execute_in_process(
        instance=instance, run_config=run_config, asset_selection=selection, raise_on_error=False
    )


def refuse_all(simulated: SimulatedGateway) -> None:
    for symbol in SYMBOLS:
        simulated.refuse(symbol, 354)


def checks(result: dg.ExecuteInProcessResult) -> dict[dg.AssetKey, dg.AssetCheckEvaluation]:
    return {found.asset_key: found for found in result.get_asset_check_evaluations()}


def test_symbol_with_depth_passes_its_check_and_shows_its_first_book(
    instance: dg.DagsterInstance, environment: dict[str, str], shared_redis_url: str
) -> None:
    result = probe(instance)
    assert result.success
    found = checks(result)
    assert {key: check.passed for key, check in found.items()} == {symbol_key(symbol): True for symbol in SYMBOLS}
    spy = found[symbol_key("SPY")].metadata
    assert spy["venue_requested"].value == "ARCA"
    assert "| venue | size | bid | ask | size | venue |" in str(spy["first_book"].value)
    with redis.Redis.from_url(shared_redis_url) as store:
        assert store.hget("raw:ibkr:depth:venue:SPY", "depth_supported") == b"1"
    (whole,) = result.asset_materializations_for_node("ibkr_depth_probe")[-1:]
    assert whole.asset_key == PROBE_KEY
    assert whole.metadata["symbols_with_depth"].value == len(SYMBOLS)
    assert "| SPY | ARCA | yes |" in str(whole.metadata["report"].value)


def test_refused_symbol_fails_its_check_as_an_error_and_the_run_goes_on(
    instance: dg.DagsterInstance, environment: dict[str, str], gateway: GatewayThread
) -> None:
    gateway.do(lambda simulated: simulated.refuse("MSFT", 10092))
    result = probe(instance)
    assert result.success
    refused = checks(result)[symbol_key("MSFT")]
    assert not refused.passed
    assert refused.severity is dg.AssetCheckSeverity.ERROR
    assert "10092" in str(refused.description)


def test_undecided_symbol_fails_its_check_as_a_warning(
    instance: dg.DagsterInstance, environment: dict[str, str], gateway: GatewayThread
) -> None:
    gateway.do(lambda simulated: simulated.pause_rows("QQQ"))
    result = probe(instance, first_book_secs=0.5)
    silent = checks(result)[symbol_key("QQQ")]
    assert (silent.passed, silent.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_probe_run_fails_with_the_reasons_if_no_symbol_has_depth(
    instance: dg.DagsterInstance, environment: dict[str, str], gateway: GatewayThread
) -> None:
    gateway.do(refuse_all)
    result = probe(instance)
    assert not result.success
    assert "no symbol has market depth" in failure_of(result)
    assert len(checks(result)) == len(SYMBOLS)


def test_probe_asks_only_the_selected_symbols(
    instance: dg.DagsterInstance, environment: dict[str, str], gateway: GatewayThread
) -> None:
    result = probe(instance, "AAPL")
    assert result.success
    assert set(checks(result)) == {symbol_key("AAPL")}
    assert {entry.name for entry in gateway.journal.entries("subscribed")} == {"AAPL"}


def test_probe_beside_a_running_ingest_subscribes_nothing_and_reports_it(
    instance: dg.DagsterInstance, environment: dict[str, str], gateway: GatewayThread, shared_redis_url: str
) -> None:
    with redis.Redis.from_url(shared_redis_url) as store:
        store.set("raw:ibkr:depth:hb:SPY", "1700000000000", ex=60)
        result = probe(instance)
    assert result.success
    assert not gateway.journal.entries("subscribed")
    (whole,) = result.asset_materializations_for_node("ibkr_depth_probe")[-1:]
    assert "an ingest is running" in str(whole.metadata["running_ingest"].value)


def test_dead_probe_run_is_not_retried() -> None:
    job = build_definitions(load_gateway_assets()).resolve_job_def("ibkr_depth_probe_job")
    assert job.tags["dagster/max_retries"] == "0"


def test_probe_schedule_fires_45_minutes_before_the_open() -> None:
    schedule = build_definitions(load_gateway_assets()).resolve_schedule_def("ibkr_depth_probe_before_open")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("45 8 * * *", "America/New_York")


def test_ladder_has_the_best_rows_on_top_and_bids_on_the_left() -> None:
    empty = (0.0, 0.0, "")
    text = ladder_markdown(((100.25, 3.0, "ARCA"), (100.0, 1.5, ""), empty), ((100.5, 7.0, "A|B"), empty, empty))
    assert text.splitlines()[2:] == [
        "| ARCA | 3 | 100.25 | 100.5 | 7 | A\\|B |",
        "|  | 1.5 | 100 |  |  |  |",
    ]


def test_empty_book_has_no_ladder() -> None:
    assert ladder_markdown((), ()) == ""
