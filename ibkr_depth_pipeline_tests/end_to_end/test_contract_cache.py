"""Contracts of the last day: a start records at once with what the run before has found, and checks it meanwhile."""

from __future__ import annotations

import redis.asyncio as redis

from ibkr_depth_pipeline.schema.keys import contract_key
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.universe import SymbolSpec, Universe
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, universe_of

QUICK = {"ibkr_rotation_secs": 0.4, "ibkr_first_row_secs": 5}


async def record_once(redis_url: str, universe: Universe, options: GatewayOptions | None = None) -> SimulatedGateway:
    """A run that has rows of every symbol, and has kept what it resolved."""
    async with SimulatedGateway(options or GatewayOptions()) as gateway:
        async with recording(gateway, redis_url, universe, **QUICK) as run:
            for symbol in universe.symbols:
                await run.grows(symbol, 3)

            async def is_kept() -> bool:
                return bool(await run.redis.exists(*(contract_key(symbol) for symbol in universe.symbols)))

            await run.until(is_kept)
    return gateway


async def test_second_start_records_before_any_contract_is_answered(shared_redis_url: str) -> None:
    universe = universe_of("SPY", "AAPL")
    await record_once(shared_redis_url, universe)
    mute = GatewayOptions(unanswered_details={"SPY": 1000, "AAPL": 1000})
    async with SimulatedGateway(mute) as gateway:
        async with recording(gateway, shared_redis_url, universe, **QUICK) as run:
            await run.grows("SPY", 5)
            await run.grows("AAPL", 5)
            assert gateway.journal.requests("reqContractDetails"), "they are checked in the background"
            assert (await run.newest("AAPL")).venue == "ISLAND"


async def test_contract_of_another_entry_is_not_taken(shared_redis_url: str) -> None:
    await record_once(shared_redis_url, universe_of("AAPL"))
    moved = universe_of(SymbolSpec("AAPL", exchange="ARCA"))
    async with SimulatedGateway(GatewayOptions()) as gateway:
        async with recording(gateway, shared_redis_url, moved, **QUICK) as run:
            await run.grows("AAPL", 5)
        subscribed = [entry.detail for entry in gateway.journal.requests("reqMktDepth")]
        assert {detail["exchange"] for detail in subscribed} == {"ARCA"}


async def test_contract_that_has_changed_takes_the_place_of_the_kept_one(shared_redis_url: str) -> None:
    universe = universe_of("AAPL")
    await record_once(shared_redis_url, universe)
    async with redis.Redis.from_url(shared_redis_url) as client:
        kept = await client.get(contract_key("AAPL"))
        await client.set(contract_key("AAPL"), kept.replace(b'"con_id":265598', b'"con_id":756733'))  # SPY's
    async with SimulatedGateway(GatewayOptions()) as gateway:
        async with recording(gateway, shared_redis_url, universe, **QUICK) as run:

            async def is_replaced() -> bool:
                asked = gateway.journal.requests("reqMktDepth")
                return bool(asked) and str(asked[-1].detail["conId"]) == "265598"

            await run.until(is_replaced)
            await run.grows("AAPL", 3)


async def test_text_that_is_no_contract_is_passed_over(shared_redis_url: str) -> None:
    async with redis.Redis.from_url(shared_redis_url) as client:
        await client.set(contract_key("SPY"), b"{")
        await client.rpush(contract_key("AAPL"), "a list")
    await record_once(shared_redis_url, universe_of("SPY", "QQQ"))
