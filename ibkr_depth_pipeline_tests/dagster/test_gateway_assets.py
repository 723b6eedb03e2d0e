"""The universe as assets: what a reload of the code location makes of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ibkr_depth_pipeline.definitions import build_definitions
from ibkr_depth_pipeline.orchestration.gateway_assets import GatewayAssets, load_gateway_assets, symbol_key
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline_tests.dagster.conftest import FEED, SYMBOLS, execute


def loaded(universe: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> GatewayAssets:
    """As a reload sees it."""
    file.write_text(universe)
    monkeypatch.setenv("SYMBOL_CONFIG_PATH", str(file))
    return load_gateway_assets()


def upstream_of_feed(assets: GatewayAssets) -> set[dg.AssetKey]:
    graph = build_definitions(assets).resolve_asset_graph()
    return set(graph.get(FEED).parent_keys)


def metadata_of(assets: GatewayAssets, symbol: str) -> dict[str, Any]:
    (spec,) = (spec for spec in assets.specs if spec.key == symbol_key(symbol))
    return dict(spec.metadata)


def test_symbol_of_the_file_is_upstream_of_the_feed_with_its_venue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "universe.yaml"
    assets = loaded("symbols: [SPY, {symbol: AAPL, exchange: ISLAND, primary_exchange: NASDAQ}]", file, monkeypatch)
    assert upstream_of_feed(assets) == {symbol_key("SPY"), symbol_key("AAPL")}
    assert metadata_of(assets, "AAPL")["venue"] == "ISLAND"
    assert metadata_of(assets, "AAPL")["primary_exchange"] == "NASDAQ"
    assert metadata_of(assets, "SPY")["venue"] == "chosen at the gateway"


def test_symbol_added_to_the_file_is_an_asset_after_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "universe.yaml"
    loaded("symbols: [SPY]", file, monkeypatch)
    assert symbol_key("QQQ") in upstream_of_feed(loaded("symbols: [SPY, QQQ]", file, monkeypatch))


def test_odd_symbols_have_distinct_asset_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["BRK B", "BRK.B", "BRK-B", "BRK/B", "A&B", "A+", "A"]
    assets = loaded(f"symbols: {names}", tmp_path / "universe.yaml", monkeypatch)
    dg.Definitions.validate_loadable(build_definitions(assets))
    keys = upstream_of_feed(assets)
    assert len(keys) == len(names)
    assert {dg.AssetKey.from_user_string(key.to_user_string()) for key in keys} == keys


@pytest.mark.parametrize(("universe", "words"), [("symbols: [spx]", "'spx' is not a symbol"), ("", "must hold")])
def test_wrong_universe_file_leaves_the_location_loading_and_is_explained_at_the_feed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, universe: str, words: str
) -> None:
    assets = loaded(universe, tmp_path / "universe.yaml", monkeypatch)
    assert upstream_of_feed(assets) == set()
    assert words in assets.feed_metadata["universe_problem"].value


def test_session_observes_each_symbol_it_recorded(environment: dict[str, str], gateway: GatewayThread) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert execute(instance, duration=3.0).success
        events = {symbol: instance.fetch_observations(symbol_key(symbol), limit=1).records for symbol in SYMBOLS}
    for symbol, records in events.items():
        observed = records[0].asset_observation
        assert observed is not None
        assert observed.metadata["rows"].value, symbol
        assert observed.metadata["snapshots"].value == observed.metadata["rows"].value
