"""Two ingests, a gateway each and one Redis: a contract that both come to is recorded once, and both are named."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as redis

from ibkr_depth_pipeline.schema.keys import contract_claim_key, lease_key, venue_key
from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.universe import SymbolSpec
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, universe_of

FAST: dict[str, Any] = {"ibkr_rotation_secs": 0.3, "ibkr_first_row_secs": 2}
WEST, EAST = {**FAST, "ibkr_gateway_name": "west"}, {**FAST, "ibkr_gateway_name": "east"}


async def reason(run: Recording, symbol: str) -> str:
    found = await run.redis.hget(venue_key(symbol), "reason")
    return (found or b"").decode()


@pytest.mark.parametrize(
    "other",
    [
        SymbolSpec("", name="APPLE", con_id=265598),
        SymbolSpec("AAPL", name="APPLE", exchange="NASDAQ"),
    ],
)
async def test_contract_of_another_ingest_is_refused_with_both_names_until_that_one_ends(
    shared_redis_url: str, other: SymbolSpec
) -> None:
    async with SimulatedGateway() as one, SimulatedGateway() as two:
        async with recording(two, shared_redis_url, universe_of("SPY", other), **EAST) as east:
            async with recording(one, shared_redis_url, universe_of("AAPL", "QQQ"), **WEST) as west:
                # whichever came first has it
                await west.grows("QQQ", 3)
                await east.grows("SPY", 3)
                assert await east.redis.exists(lease_key("west"), lease_key("east")) == 2

                async def is_named() -> bool:
                    reasons = [await reason(west, "AAPL"), await reason(east, "APPLE")]
                    return any("'AAPL'" in each and "'APPLE'" in each and "265598" in each for each in reasons)

                await east.until(is_named)
                loser, winner = ("APPLE", "AAPL") if await reason(east, "APPLE") else ("AAPL", "APPLE")
                assert ("'west'" if loser == "APPLE" else "'east'") in await reason(east, loser)
                assert await east.length(loser) == 0
                await east.until(lambda: east.length(winner))
            if loser == "APPLE":
                await east.grows("APPLE", 3)
    assert await east_is_free(shared_redis_url)


async def east_is_free(url: str) -> bool:
    """Whether no claim is left after both have ended."""
    async with redis.Redis.from_url(url) as client:
        found = await client.exists(contract_claim_key(265598, "ISLAND"))
    return int(found) == 0


async def test_contract_goes_over_to_the_other_ingest_as_the_first_one_drops_it(shared_redis_url: str) -> None:
    async with SimulatedGateway() as one, SimulatedGateway() as two:
        async with recording(one, shared_redis_url, universe_of("AAPL", "QQQ"), **WEST) as west:
            await west.grows("AAPL", 3)
            apple = SymbolSpec("AAPL", name="APPLE", exchange="ISLAND")
            async with recording(two, shared_redis_url, universe_of("SPY", apple), **EAST) as east:
                await east.grows("SPY", 3)

                async def is_refused() -> bool:
                    return "'AAPL' of the gateway 'west' and 'APPLE'" in await reason(east, "APPLE")

                await east.until(is_refused)
                await west.stop()
                await east.grows("APPLE", 3)
                assert await reason(east, "APPLE") == ""
