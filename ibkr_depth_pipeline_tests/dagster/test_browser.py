"""A session as its operator sees it, in a real browser: launch, watch, an outage, Terminate.

The pictures are those of the README: `make test-faults ARGS='-k operator --basetemp FOLDER'` keeps them in FOLDER.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline_tests.dagster.browser import CHROMIUM, operator
from ibkr_depth_pipeline_tests.dagster.deployment import JOB, Deployment, deployment, environment_of

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(300),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="the package playwright is missing"),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}: apt-get install chromium"),
]
FEED = "/assets/raw/ibkr/depth/feed"


@pytest.fixture
def gateway() -> Iterator[tuple[GatewayThread, ExitStack]]:
    """A lively one, and what stops it."""
    with ExitStack() as running:
        yield running.enter_context(GatewayThread(GatewayOptions(rows_per_second=60))), running


@pytest.fixture
def deployed(tmp_path: Path, gateway: tuple[GatewayThread, ExitStack], shared_redis_url: str) -> Iterator[Deployment]:
    folder = tmp_path / "deployment"
    folder.mkdir()
    quick = {"IBKR_ROTATION_SECS": "1", "IBKR_OBSERVE_SECS": "1", "IBKR_ALERT_GRACE_SECS": "0"}
    symbols = ("SPY", "QQQ", "AAPL", "MSFT", "NVDA")
    environment = environment_of(tmp_path, gateway[0], shared_redis_url, symbols, **quick)
    with deployment(folder, environment) as running:
        yield running


def test_operator_launches_a_session_follows_it_sees_an_outage_and_terminates_it(
    deployed: Deployment, gateway: tuple[GatewayThread, ExitStack], tmp_path: Path
) -> None:
    _, running = gateway
    with operator(deployed.port, tmp_path) as somebody:
        somebody.switches_on("ibkr_depth_heartbeats")
        run_id = somebody.launches(JOB)
        somebody.sees("ASSET_OBSERVATION")
        somebody.open(f"/runs/{run_id}")
        somebody.sees("Started")
        somebody.sees("ASSET_OBSERVATION")
        somebody.keeps("run")

        somebody.open(f"{FEED}?view=checks")
        somebody.sees("Passed")
        somebody.open("/asset-groups")
        somebody.sees("NVDA")
        somebody.keeps("lineage")

        somebody.open(f"{FEED}?view=checks")
        running.close()
        somebody.sees("not connected to the gateway")
        somebody.keeps("failing-check")

        somebody.open(f"{FEED}?view=overview")
        somebody.clicks("Plots")
        somebody.page.get_by_text("rows_per_sec").scroll_into_view_if_needed()
        assert somebody.page.locator("canvas").count() > 5
        somebody.keeps("plots")

        somebody.open(f"/runs/{run_id}")
        somebody.clicks("Terminate")
        somebody.clicks("Terminate 1 run")
        somebody.sees("Canceled")
        assert deployed.wait_for_end(run_id) == "CANCELED"

        somebody.open(f"{FEED}?view=events")
        somebody.page.get_by_text("[Show Markdown]").first.click()
        picture = somebody.page.get_by_alt_text("Which symbol held a slot when")
        picture.wait_for()
        assert picture.evaluate("image => image.naturalWidth") > 100
        somebody.keeps("coverage")
