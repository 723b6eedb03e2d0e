"""A run that nobody counts on any more ends itself, and leaves the way free."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis

from ibkr_depth_pipeline.errors import NoLongerWanted
from ibkr_depth_pipeline.ingest.composition import WantedCallback
from ibkr_depth_pipeline.ingest.run import run_ingest
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import GatewayOptions
from ibkr_depth_pipeline.universe import SymbolSpec, Universe

UNIVERSE = Universe((SymbolSpec("SPY"),))


@pytest.fixture
def gateway() -> Iterator[GatewayThread]:
    with GatewayThread(GatewayOptions(rows_per_second=100)) as running:
        yield running


@pytest.fixture
def settings(gateway: GatewayThread, shared_redis_url: str) -> Settings:
    return load_settings(ibkr_host=gateway.host, ibkr_port=gateway.port, redis_url=shared_redis_url)


def test_run_that_is_not_wanted_drains_cancels_and_releases_its_lease(
    settings: Settings, gateway: GatewayThread, shared_redis_url: str
) -> None:
    with redis.Redis.from_url(shared_redis_url) as store:

        def ask() -> bool:
            return not store.xlen("raw:ibkr:depth:stream:SPY")

        with pytest.raises(NoLongerWanted):
            run_ingest(settings, UNIVERSE, wanted_callback=WantedCallback(ask, every_secs=0.05))
        assert not store.exists("raw:ibkr:depth:lease:default", "raw:ibkr:depth:ingest:default:hb")
    assert gateway.journal.requests("cancelMktDepth")


def test_run_goes_on_if_it_is_unknown_whether_it_is_wanted(settings: Settings) -> None:
    asked = threading.Event()

    def ask() -> bool:
        asked.set()
        raise OSError("the database is locked")

    assert run_ingest(settings, UNIVERSE, 1.0, wanted_callback=WantedCallback(ask, every_secs=0.05)).summary.drained
    assert asked.is_set()
