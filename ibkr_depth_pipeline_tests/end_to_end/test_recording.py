"""The recorder beside a simulated gateway and a real Redis: slots, rotation, refusals, outages, the end of a run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ibkr_depth_pipeline.errors import ClientIdsExhausted, GatewayUnavailable, NothingToRecord, SinkUnavailable
from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.distortions import MALFORMED_ROWS
from ibkr_depth_pipeline_tests.end_to_end.recording import (
    Recording,
    dropped_in_a_turn,
    recording,
    settings_for,
    universe_of,
)

FAST: dict[str, Any] = {"ibkr_rotation_secs": 0.3, "ibkr_error309_cooldown_secs": 0.2, "ibkr_first_row_secs": 2}
EMPTY = [[0.0, 0.0, ""]] * 10


def most_at_once(gateway: SimulatedGateway, start: int = 0) -> int:
    """The most subscriptions that were open at any time since journal entry `start`, refused ones not counted."""
    on: set[int] = set()
    most = 0
    for entry in gateway.journal.entries()[start:]:
        if entry.name == "reqMktDepth":
            on.add(int(entry.detail["reqId"]))
        elif entry.name == "cancelMktDepth":
            on.discard(int(entry.detail["reqId"]))
        elif entry.kind == "error" and entry.detail["code"] == 309:
            on.discard(int(entry.detail["request_id"]))
        else:  # answers follow their requests, so a refused one is never counted by the time anything else happens
            most = max(most, len(on))
    return most


def subscribed(gateway: SimulatedGateway) -> list[dict[str, Any]]:
    return [request.detail for request in gateway.journal.requests("reqMktDepth")]


def cancelled(gateway: SimulatedGateway) -> list[int]:
    return [int(request.detail["reqId"]) for request in gateway.journal.requests("cancelMktDepth")]


def is_contiguous(numbers: list[int]) -> bool:
    return numbers == list(range(1, len(numbers) + 1))


async def has_all(run: Recording, symbols: list[str]) -> bool:
    return all([await run.length(symbol) for symbol in symbols])


async def test_every_symbol_gets_its_turn_within_three_slots_and_without_a_309(shared_redis_url: str) -> None:
    symbols = ["SPY", "QQQ", "IWM", "AAPL", "MSFT", "GOOGL", "AMZN"]
    async with SimulatedGateway() as gateway:
        async with recording(gateway, shared_redis_url, universe_of(*symbols), **FAST) as run:
            await run.until(lambda: has_all(run, symbols))
            for symbol in symbols:
                await run.grows(symbol)
            summary = await run.stop()
            streams = {symbol: await run.stream(symbol) for symbol in symbols}
        assert gateway.journal.errors(309) == []
        assert most_at_once(gateway) == 3
        assert sorted(cancelled(gateway)) == [int(request["reqId"]) for request in subscribed(gateway)]
        assert {request["isSmartDepth"] for request in subscribed(gateway)} == {"0"}
        assert {request["numRows"] for request in subscribed(gateway)} == {"15"}
        assert "SMART" not in {request["exchange"] for request in subscribed(gateway)}
    assert all(is_contiguous([snapshot.seq for snapshot in stream]) for stream in streams.values())
    assert summary.snapshots == {symbol: len(stream) for symbol, stream in streams.items()}
    assert dropped_in_a_turn(summary) == {}


async def test_rows_after_a_cancel_never_reach_a_book(shared_redis_url: str) -> None:
    symbols = ["SPY", "QQQ", "IWM", "AAPL"]
    options = GatewayOptions(rows_after_cancel=0.2, rows_per_second=1000)
    async with SimulatedGateway(options) as gateway:
        async with recording(gateway, shared_redis_url, universe_of(*symbols), **FAST) as run:
            await gateway.wait_for(lambda: len(cancelled(gateway)) > 6, 30)
            summary = await run.stop()
            for symbol in symbols:
                for snapshot in await run.stream(symbol):
                    bids = [price for price, _, _ in snapshot.bids if price]
                    assert bids == sorted(bids, reverse=True)
    assert any(key.endswith("retired_request") for key in summary.dropped)


async def test_lower_limit_shrinks_the_batch_and_the_refused_symbol_comes_next(shared_redis_url: str) -> None:
    symbols = ["SPY", "QQQ", "IWM", "AAPL", "MSFT"]
    async with SimulatedGateway(GatewayOptions(slots=2)) as gateway:
        settings = {**FAST, "ibkr_error309_recovery_cycles": 1000}
        async with recording(gateway, shared_redis_url, universe_of(*symbols), **settings) as run:
            await run.until(lambda: has_all(run, symbols))
        assert len(gateway.journal.errors(309)) == 1
        asked = [request["symbol"] for request in subscribed(gateway)]
        assert asked[:5] == ["SPY", "QQQ", "IWM", "IWM", "AAPL"]
        refused = gateway.journal.errors(309)[0].detail["request_id"]
        assert refused not in cancelled(gateway), "a refused request holds no slot"


async def test_batch_grows_back_once_the_slots_are_given_back(shared_redis_url: str) -> None:
    symbols = ["SPY", "QQQ", "IWM", "AAPL", "MSFT"]
    async with SimulatedGateway() as gateway:
        gateway.occupy_slots(2)
        settings = {**FAST, "ibkr_error309_recovery_cycles": 2}
        async with recording(gateway, shared_redis_url, universe_of(*symbols), **settings):
            await gateway.wait_for(lambda: len(gateway.journal.errors(309)) >= 2, 20)
            gateway.occupy_slots(0)
            start = len(gateway.journal.entries())
            await gateway.wait_for(lambda: most_at_once(gateway, start) == 3, 30)


async def test_gateway_that_frees_slots_late_costs_at_most_one_refused_batch(shared_redis_url: str) -> None:
    symbols = ["SPY", "QQQ", "IWM", "AAPL", "MSFT", "GOOGL", "AMZN"]
    async with SimulatedGateway(GatewayOptions(slot_free_delay=0.3)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of(*symbols), **FAST) as run:
            await gateway.wait_for(lambda: len(cancelled(gateway)) >= 15, 60)
            summary = await run.stop()
        assert 1 <= len(gateway.journal.errors(309)) <= 3
        assert most_at_once(gateway) == 3
    assert summary.refused_309 <= 3


async def test_symbol_without_permission_is_marked_and_its_slot_goes_to_the_next_at_once(
    shared_redis_url: str,
) -> None:
    symbols = ["SPY", "QQQ", "IWM", "AAPL"]
    async with SimulatedGateway(GatewayOptions(refusals={"QQQ": 354})) as gateway:
        settings = {**FAST, "ibkr_rotation_secs": 3600}
        async with recording(gateway, shared_redis_url, universe_of(*symbols), **settings) as run:
            await run.until(lambda: has_all(run, ["SPY", "IWM", "AAPL"]))

            async def venue_is_marked() -> bool:
                return await run.redis.hget("raw:ibkr:depth:venue:QQQ", "depth_supported") == b"0"

            await run.until(venue_is_marked)
            assert b"354" in await run.redis.hget("raw:ibkr:depth:venue:QQQ", "reason")


async def test_unsupported_symbol_is_tried_again_after_a_while(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(refusals={"QQQ": 10090})) as gateway:
        settings = {**FAST, "ibkr_unsupported_retry_secs": 1}
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ"), **settings) as run:
            await gateway.wait_for(lambda: len(gateway.journal.errors(10090)) >= 2, 20)
            gateway.allow("QQQ")
            await run.until(lambda: has_all(run, ["QQQ"]))
            assert await run.redis.hget("raw:ibkr:depth:venue:QQQ", "depth_supported") == b"1"


async def test_unknown_symbol_is_skipped_and_the_rest_recorded(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        async with recording(gateway, shared_redis_url, universe_of("NOSUCH", "SPX", "SPY"), **FAST) as run:
            await run.grows("SPY", 50)
            assert await run.redis.hget("raw:ibkr:depth:venue:NOSUCH", "depth_supported") == b"0"
            assert await run.redis.hget("raw:ibkr:depth:venue:SPX", "depth_supported") == b"0"
            summary = await run.stop()
    assert set(summary.snapshots) == {"SPY"}
    assert set(summary.unresolved) == {"NOSUCH"}


async def test_run_in_which_nothing_resolves_fails_and_says_why_for_each(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        settings = settings_for(gateway, shared_redis_url, ibkr_start_timeout_secs=2)
        session = IngestSession(settings, universe_of("NOSUCH", "ZZTOP"))
        with pytest.raises(NothingToRecord) as failure:
            await session.run()
    assert set(failure.value.reasons) == {"NOSUCH", "ZZTOP"}


async def test_317_publishes_the_empty_book_and_the_rows_after_it_fill_a_new_one(shared_redis_url: str) -> None:
    settings = {**FAST, "ibkr_rotation_secs": 3600}
    async with SimulatedGateway() as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **settings) as run:
            await run.grows("SPY", 100)
            gateway.reset_book("SPY")
            await run.grows("SPY", 100)
            stream = await run.stream("SPY")
        assert len(subscribed(gateway)) == 1, "the subscription is kept"
    empty = [number for number, snapshot in enumerate(stream) if snapshot.bids == snapshot.asks == EMPTY]
    assert len(empty) == 1
    rows_after = stream[empty[0] + 1]
    assert sum(bool(price) for price, _, _ in rows_after.bids + rows_after.asks) == 1


async def test_316_subscribes_again_under_a_new_id(shared_redis_url: str) -> None:
    settings = {**FAST, "ibkr_rotation_secs": 3600}
    async with SimulatedGateway() as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **settings) as run:
            await run.grows("SPY", 50)
            gateway.halt("SPY")
            await gateway.wait_for(lambda: len(subscribed(gateway)) == 2, 20)
            await run.grows("SPY", 50)
        first, second = (int(request["reqId"]) for request in subscribed(gateway))
        assert first != second


@pytest.mark.parametrize("data_lost", [True, False], ids=["1101", "1102"])
async def test_books_are_live_again_after_1100(shared_redis_url: str, data_lost: bool) -> None:
    settings = {**FAST, "ibkr_rotation_secs": 3600}
    async with SimulatedGateway() as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ"), **settings) as run:
            await run.grows("SPY", 50)
            gateway.connectivity_lost()
            gateway.connectivity_restored(data_lost=data_lost)
            await run.grows("SPY", 50)
            await run.grows("QQQ", 50)
            summary = await run.stop()
        assert summary.connections == 1
        assert len(subscribed(gateway)) == (4 if data_lost else 2)


async def test_symbol_without_rows_after_1102_is_requested_again(shared_redis_url: str) -> None:
    settings = {**FAST, "ibkr_rotation_secs": 3600}
    async with SimulatedGateway() as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **settings) as run:
            await run.grows("SPY", 50)
            gateway.connectivity_lost()
            gateway.connectivity_restored(data_lost=False, rows_follow=False)
            await gateway.wait_for(lambda: len(subscribed(gateway)) == 2, 30)
            await run.grows("SPY", 50)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_lost_socket_costs_a_reconnect_and_the_numbering_goes_on(shared_redis_url: str, reset: bool) -> None:
    async with SimulatedGateway() as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ"), **FAST) as run:
            await run.grows("SPY", 50)
            gateway.drop_connections(reset=reset)
            await run.grows("SPY", 50)
            summary = await run.stop()
            assert is_contiguous([snapshot.seq for snapshot in await run.stream("SPY")])
    assert summary.connections == 2


async def test_1300_costs_a_reconnect(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **FAST) as run:
            await run.grows("SPY", 50)
            gateway.send_error(1300)
            await run.grows("SPY", 50)
            assert (await run.stop()).connections == 2


async def test_malformed_rows_are_dropped_and_counted_and_the_book_stays_right(shared_redis_url: str) -> None:
    settings = {**FAST, "ibkr_rotation_secs": 3600}
    async with SimulatedGateway(GatewayOptions(rows_per_second=0)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **settings) as run:

            async def opened() -> bool:
                return await run.length("SPY") >= 20

            await run.until(opened)
            before = await run.newest("SPY")
            gateway.malformed_rows(symbol="SPY")
            gateway.push_row("SPY", operation=1, side=1, position=0, price=before.bids[0][0], size=7777)
            await run.grows("SPY", 1)
            after = await run.newest("SPY")
            summary = await run.stop()
    assert after.bids[0][1] == 7777
    assert after.bids[1:] == before.bids[1:]
    assert after.asks == before.asks
    assert sum(dropped_in_a_turn(summary).values()) == len(MALFORMED_ROWS), summary.dropped


async def test_taken_client_id_is_passed_over(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        gateway.hold_client_id(777, 3600)
        gateway.hold_client_id(778, 3600)
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **FAST) as run:
            await run.grows("SPY", 10)
        assert "779" in {request.detail["clientId"] for request in gateway.journal.requests("startApi")}


async def test_run_fails_with_the_reason_if_every_client_id_is_taken(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        for client_id in (777, 778):
            gateway.hold_client_id(client_id, 3600)
        settings = settings_for(gateway, shared_redis_url, ibkr_client_id_max_offset=1, ibkr_start_timeout_secs=0.5)
        with pytest.raises(ClientIdsExhausted, match="777 to 778"):
            await IngestSession(settings, universe_of("SPY")).run()


async def test_gateway_that_accepts_and_never_answers_is_unavailable(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        gateway.mute_new_connections()
        settings = settings_for(gateway, shared_redis_url, ibkr_connect_timeout_secs=0.3, ibkr_start_timeout_secs=1)
        with pytest.raises(GatewayUnavailable, match="no answer"):
            await IngestSession(settings, universe_of("SPY")).run()


async def test_run_without_redis_fails_before_it_connects() -> None:
    async with SimulatedGateway() as gateway:
        settings = settings_for(gateway, "redis://:secret@127.0.0.1:1/0")
        with pytest.raises(SinkUnavailable) as failure:
            await IngestSession(settings, universe_of("SPY")).run()
        assert "secret" not in str(failure.value)
        assert gateway.journal.requests() == []


async def test_quiet_but_live_book_keeps_its_heartbeat(shared_redis_url: str) -> None:
    settings = {**FAST, "ibkr_rotation_secs": 3600}
    async with SimulatedGateway(GatewayOptions(rows_per_second=0)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **settings) as run:

            async def beats() -> bool:
                return bool(await run.redis.exists("raw:ibkr:depth:hb:SPY"))

            await run.until(beats)
            ts = await run.redis.get("raw:ibkr:depth:hb:SPY")
            await run.redis.delete("raw:ibkr:depth:hb:SPY")
            await run.until(beats)
            assert await run.redis.get("raw:ibkr:depth:hb:SPY") == ts, "the time of the last row, not of the heartbeat"


async def test_second_run_goes_on_with_the_numbering(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        for _ in range(2):
            async with recording(gateway, shared_redis_url, universe_of("SPY"), **FAST) as run:
                await run.grows("SPY", 50)
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **FAST) as run:
            await run.grows("SPY", 50)
            stream = await run.stream("SPY")
    assert is_contiguous([snapshot.seq for snapshot in stream])
    assert [snapshot.ts for snapshot in stream] == sorted(snapshot.ts for snapshot in stream)


async def test_stopping_cancels_every_subscription_and_flushes_everything(shared_redis_url: str) -> None:
    settings = {**FAST, "ibkr_rotation_secs": 3600}
    async with SimulatedGateway(GatewayOptions(rows_per_second=2000)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ", "IWM"), **settings) as run:
            await run.grows("SPY", 500)
            summary = await run.stop()
            lengths = {symbol: await run.length(symbol) for symbol in ("SPY", "QQQ", "IWM")}
        assert sorted(cancelled(gateway)) == sorted(int(request["reqId"]) for request in subscribed(gateway))
    assert summary.drained
    assert lengths == summary.snapshots == summary.rows


async def test_stop_while_the_gateway_is_silent_ends_the_run(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        gateway.mute_new_connections()
        session = IngestSession(
            settings_for(gateway, shared_redis_url, ibkr_connect_timeout_secs=300), universe_of("SPY")
        )
        task = asyncio.ensure_future(session.run())
        await gateway.wait_for(lambda: gateway.journal.entries(), 20)
        session.stop()
        assert (await task).rows == {}
