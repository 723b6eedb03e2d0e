"""A session as Dagster sees it: what is observed while it runs, and how an interrupted one ends."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import dagster as dg
import pytest
import redis

from ibkr_depth_pipeline.box.processes import wait_until
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.orchestration.gateway_assets import symbol_key
from ibkr_depth_pipeline.orchestration.resources import errors_as_failures
from ibkr_depth_pipeline.schema.keys import stream_key
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline_tests.conftest import PATIENCE_SECS
from ibkr_depth_pipeline_tests.dagster.conftest import FEED, SYMBOLS, execute

PLOTTED = {"rows", "snapshots", "rows_per_sec", "coverage", "refused_309", "dropped_rows"}


def observed(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[dict[str, object]]:
    """The metadata of every observation, the oldest first."""
    records = instance.fetch_observations(key, limit=100, ascending=True).records
    events = [record.asset_observation for record in records]
    return [{name: value.value for name, value in event.metadata.items()} for event in events if event]


def total(observations: list[dict[str, object]], name: str) -> int:
    return sum(int(str(each[name])) for each in observations)


def test_session_is_observed_while_it_runs_and_the_intervals_add_up(
    environment: dict[str, str], gateway: GatewayThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBKR_OBSERVE_SECS", "1")
    with dg.DagsterInstance.ephemeral() as instance:
        result = execute(instance, duration=4.0)
        feed = observed(instance, FEED)
        symbols = {symbol: observed(instance, symbol_key(symbol)) for symbol in SYMBOLS}
        event = instance.get_latest_materialization_event(FEED)
    assert result.success
    assert event is not None
    assert event.asset_materialization is not None
    assert len(feed) >= 2
    lags = {"lag_p50_ms", "lag_p99_ms"}
    assert PLOTTED | lags | {"batch_size", "reconnects"} <= set(feed[-1])
    assert all(isinstance(value, int | float) for each in feed for value in each.values())
    assert total(feed, "rows") > 0
    for symbol, each in symbols.items():
        assert len(each) == len(feed) + 1, symbol
        assert set(each[-1]) >= PLOTTED | {"bid", "ask"}
        assert all(0 <= float(str(one["coverage"])) <= 1 for one in each)
    metadata = event.asset_materialization.metadata
    assert all(f"**{symbol}** on " in str(metadata["books"].value) for symbol in SYMBOLS)
    assert "](data:image/svg+xml;base64," in str(metadata["coverage_plot"].value)
    stored = sum(total(each, "snapshots") for each in symbols.values())
    assert stored == metadata["session_snapshots"].value


def test_error_after_a_signal_ends_the_run_as_canceled() -> None:
    error = SinkUnavailable("Redis is away")
    error.interrupted_by = "SIGTERM"
    with pytest.raises(dg.DagsterExecutionInterruptedError, match="SIGTERM, and then: Redis is away"):
        with errors_as_failures():
            raise error


def test_error_without_a_signal_fails_the_run() -> None:
    with pytest.raises(dg.Failure, match="Redis is away"):
        with errors_as_failures():
            raise SinkUnavailable("Redis is away")


@pytest.mark.faults
def test_session_follows_the_universe_file_and_tells_the_feed_of_a_bad_one(
    environment: dict[str, str], universe_file: Path, shared_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IBKR_OBSERVE_SECS", "0.5")
    universe_file.write_text(json.dumps({"symbols": ["SPY"]}))
    front = {"name": "ES", "sec_type": "FUT", "exchange": "CME", "expiry": "front"}

    def edit() -> None:
        with redis.Redis.from_url(shared_redis_url) as store:
            assert wait_until(lambda: bool(store.xlen(stream_key("SPY"))), PATIENCE_SECS)
            universe_file.write_text(json.dumps({"symbols": ["SPY", front]}))
            assert wait_until(lambda: bool(store.xlen(stream_key("ES"))), PATIENCE_SECS)
            universe_file.write_text("symbols: [SPY, ON]")

    editor = threading.Thread(target=edit)
    with dg.DagsterInstance.ephemeral() as instance:
        editor.start()
        result = execute(instance, duration=20.0)
        editor.join()
        feed, future = observed(instance, FEED), observed(instance, symbol_key("ES"))
    assert result.success
    assert any("quote it" in str(each.get("universe", "")) for each in feed)
    assert "universe" not in feed[0]
    assert total(future, "rows") > 0, "it was recorded until the end, by the universe of before"
    assert re.fullmatch(r"ES[HMUZ]\d 20\d{6} \(\d+\) on CME", str(future[-1]["contract"]))
