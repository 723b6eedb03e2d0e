"""Faults of the gateway while a run starts: between the connection and the first subscription."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline_tests.faults.recovery import Trial, trial

SLOW = GatewayOptions(latency=0.2)  # so that there is time for something between a question and its answer


async def venues_are_looked_for(run: Trial) -> None:
    await run.gateway.wait_for(lambda: run.gateway.journal.requests("reqMktDepthExchanges"))


async def test_depth_is_not_requested_while_connectivity_is_lost_from_the_start(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", options=replace(SLOW, details_delay=2.0)) as run:
        await venues_are_looked_for(run)
        run.gateway.connectivity_lost()
        await run.gateway.wait_for(lambda: len(run.said("symbol_resolved")) == 2 and run.said("connectivity_lost"))
        await asyncio.sleep(0.5)
        assert not run.gateway.journal.requests("reqMktDepth")
        run.gateway.connectivity_restored(data_lost=False)
        await run.fresh()


async def test_connection_lost_during_the_venue_search_is_made_again(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", options=SLOW) as run:
        for times in (1, 2):
            await run.gateway.wait_for(
                lambda times=times: len(run.gateway.journal.requests("reqMktDepthExchanges")) == times  # type: ignore[misc]
            )
            run.gateway.drop_connections()
        await run.fresh()
        assert len(run.said("reconnected")) == 2
        assert {line["symbol"] for line in run.said("symbol_resolved")} == {"SPY", "QQQ"}
