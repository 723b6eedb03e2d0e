"""The venues of a run's symbols, found at the start and looked for again, through the real client."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from ibkr_depth_pipeline.errors import GatewayError
from ibkr_depth_pipeline.gateway.venues import Resolution
from ibkr_depth_pipeline.ingest import venue_search
from ibkr_depth_pipeline.ingest.venue_search import VenueSearch
from ibkr_depth_pipeline.model import Instrument
from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline.universe import SymbolSpec
from ibkr_depth_pipeline_tests.ingest.odd_gateway import OddGateway, connected


class Search:
    """A search among some symbols, and what it has found so far."""

    def __init__(self, gateway: OddGateway, *symbols: str) -> None:
        self.taken: list[Resolution] = []
        self.connected = asyncio.Event()
        self.venues = VenueSearch(gateway, map(SymbolSpec, symbols), connected=self.connected, take=self.taken.append)


async def test_each_symbol_is_handed_on_and_those_without_a_venue_are_remembered() -> None:
    async with connected(GatewayOptions()) as (_, client):
        search = Search(client, "SPY", "NOSUCH")
        assert await search.venues.look_for_all()
    assert [each.symbol for each in search.taken] == ["SPY", "NOSUCH"]
    assert search.venues.unresolved == {"NOSUCH": "the gateway knows no such contract (200)"}


async def test_it_says_where_no_symbol_has_a_venue() -> None:
    async with connected(GatewayOptions()) as (_, client):
        assert not await Search(client, "NOSUCH", "ZZTOP").venues.look_for_all()


async def test_a_symbol_that_got_a_venue_since_is_no_longer_unresolved() -> None:
    async with connected(GatewayOptions(), SPY=GatewayError("odd")) as (_, client):
        search = Search(client, "SPY")
        search.connected.set()
        assert not await search.venues.look_for_all()
        client.failures.clear()
        await search.venues.look_again("SPY")
    assert isinstance(search.taken[-1], Instrument)
    assert search.venues.unresolved == {}


async def test_a_symbol_is_looked_for_once_at_a_time_and_only_while_the_connection_stands() -> None:
    async with connected(GatewayOptions()) as (_, client):
        search = Search(client, "SPY")
        first = asyncio.ensure_future(search.venues.look_again("SPY"))
        await asyncio.sleep(0)
        await search.venues.look_again("SPY")
        assert search.taken == []
        search.connected.set()
        await first
        assert len(search.taken) == 1
        await search.venues.look_again("SPY")
        assert len(search.taken) == 2


async def test_a_search_that_was_cut_short_does_not_stand_in_the_way_of_the_next() -> None:
    async with connected(GatewayOptions()) as (_, client):
        search = Search(client, "SPY")
        first = asyncio.ensure_future(search.venues.look_again("SPY"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        search.connected.set()
        await search.venues.look_again("SPY")
    assert len(search.taken) == 1


async def test_a_gateway_that_goes_away_meanwhile_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venue_search, "RECHECK_PAUSE_SECS", 0.01)
    with structlog.testing.capture_logs() as logged:
        async with connected(GatewayOptions()) as (simulated, client):
            client.disconnect()
            search = Search(client, "SPY")
            search.connected.set()
            looking = asyncio.ensure_future(search.venues.look_again("SPY"))
            await simulated.wait_for(lambda: any(line["event"] == "recheck_failed" for line in logged))
            assert search.taken == []
            await client.connect([778])
            await looking
    assert isinstance(search.taken[-1], Instrument)
