"""Slots stolen, missing, freed late and leaked: bounded 309s, no subscription lost, every symbol keeps its turn."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.gateway.ib_client import ALLOWED_MESSAGES
from ibkr_depth_pipeline.ingest.composition import IngestTimings
from ibkr_depth_pipeline.rotation.slot_allocator import FIRST_TRIAL_TURNS
from ibkr_depth_pipeline.simulation import EarlyCancel, GatewayOptions
from ibkr_depth_pipeline_tests.faults.recovery import Trial, stopwatch, trial

MANY = ("SPY", "QQQ", "IWM", "AAPL", "MSFT", "GOOGL")
ROTATING = {"ibkr_rotation_secs": 0.3, "ibkr_error309_recovery_cycles": 2}
LIMITS = {"two_slots": 2, "one_slot": 1}


async def has_turns(run: Trial, turns: int) -> None:
    """Wait for so many more turns."""
    goal = len(run.said("rotation_ended")) + turns

    async def enough() -> bool:
        return len(run.said("rotation_ended")) >= goal

    await run.run.until(enough)


@pytest.mark.parametrize("scenario", ["two_slots", pytest.param("one_slot", marks=pytest.mark.faults)])
async def test_attempts_to_grow_under_a_permanent_limit_cost_one_309_each_and_become_rarer(
    shared_redis_url: str, scenario: str
) -> None:
    async with trial(shared_redis_url, *MANY, scenario=scenario, **ROTATING) as run:
        await run.fresh(10)
        await has_turns(run, 6)
        first = len(run.gateway.journal.errors(309))
        await has_turns(run, 16)
        later = len(run.gateway.journal.errors(309)) - first
        await run.fresh(10)
        assert run.open_lines() <= LIMITS[scenario]
        await run.whole()
    refused, grown = len(run.gateway.journal.errors(309)), len(run.said("batch_grown"))
    assert refused <= grown + 3, "one for each attempt, and those of the first batch"
    assert later <= 3, "after 2, 4, 8 and 16 turns"


async def test_slots_that_another_client_takes_and_gives_back_are_used_again(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, *MANY, **ROTATING) as run:
        await run.fresh(10)
        run.gateway.occupy_slots(2)
        await run.gateway.wait_for(lambda: run.gateway.journal.errors(309), 30)
        await run.fresh(10)
        run.gateway.occupy_slots(0)

        async def full_size() -> bool:
            grown = run.said("batch_grown")
            return bool(grown) and grown[-1]["size"] == 3

        with stopwatch("slots given back, until all are used (2 turns of 0.3 s for each)"):
            await run.run.until(full_size)
        await run.fresh(10)
        await run.whole()


@pytest.mark.faults
async def test_slots_freed_late_cost_one_batch_at_most(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, *MANY, scenario="slots_freed_late", **ROTATING) as run:
        await run.fresh(10)
        await has_turns(run, 8)
        await run.whole()
    assert len(run.gateway.journal.errors(309)) <= 3
    assert run.said("batch_shrunk") == []


async def test_early_cancel_that_is_ignored_until_the_first_row_is_said_again_and_frees_the_slot(
    shared_redis_url: str,
) -> None:
    options = GatewayOptions(early_cancel=EarlyCancel.LOST_UNTIL_FIRST_ROW, first_row_delay=1.0)
    async with trial(shared_redis_url, *MANY, options=options, **{**ROTATING, "ibkr_first_row_secs": 0.4}) as run:
        await has_turns(run, 4)
        run.gateway.options = GatewayOptions(early_cancel=EarlyCancel.LOST_UNTIL_FIRST_ROW)
        with stopwatch("early cancels ignored until the first row, until every symbol is recorded"):
            await run.fresh(10)
        await has_turns(run, 3)
        assert run.open_lines() <= 3


async def test_slot_that_an_ignored_early_cancel_holds_for_good_costs_one_reconnect_and_is_had_again(
    shared_redis_url: str,
) -> None:
    options = GatewayOptions(early_cancel=EarlyCancel.LOST, symbol_rates={}, silent_symbols=frozenset({"QQQ"}))
    settings = {**ROTATING, "ibkr_first_row_secs": 0.4}
    async with trial(shared_redis_url, *MANY, options=options, **settings) as run:

        async def leaked() -> bool:
            return bool(run.said("slots_leaked"))

        with stopwatch("a slot leaked by an ignored cancel, until the reconnect that frees it"):
            await run.run.until(leaked)
        others = [symbol for symbol in MANY if symbol != "QQQ"]
        for symbol in others:
            await run.run.grows(symbol, 10)
        assert run.said("slots_leaked")[0]["symbols"] == ["QQQ"]
        assert len(run.said("slots_leaked")) == 1, "once in a while only"
        assert run.open_lines() <= 3


async def test_rows_that_go_on_long_after_a_cancel_are_answered_with_another_cancel(shared_redis_url: str) -> None:
    options = GatewayOptions(rows_after_cancel=3600)
    async with trial(shared_redis_url, *MANY, options=options, **ROTATING, timings=IngestTimings(late_rows=1.0)) as run:
        await run.fresh(10)

        async def said_again() -> bool:
            cancels = [request.detail["reqId"] for request in run.gateway.journal.requests("cancelMktDepth")]
            return len(cancels) > len(set(cancels))

        await run.run.until(said_again)
        await run.fresh(10)
        summary = await run.run.stop()
    assert any(key.endswith("retired_request") for key in summary.dropped)


async def test_over_a_whole_run_with_faults_no_message_is_sent_that_is_not_on_the_short_list(
    shared_redis_url: str,
) -> None:
    async with trial(shared_redis_url, *MANY, **ROTATING) as run:
        await run.fresh(10)
        run.gateway.occupy_slots(2)
        await has_turns(run, 2)
        run.gateway.occupy_slots(0)
        run.gateway.connectivity_lost()
        run.gateway.connectivity_restored(data_lost=True)
        await run.fresh(10)
        run.gateway.drop_connections()
        await run.fresh(10)
    sent = {name for kind, name in run.gateway.journal.counts if kind == "request"}
    assert sent == {
        "startApi", "reqContractDetails", "reqMktDepthExchanges", "reqMktDepth", "cancelMktDepth", "reqCurrentTime"
    }  # fmt: skip
    assert sent <= set(ALLOWED_MESSAGES.values())


async def test_requests_stay_few_without_a_cooldown_and_without_a_slot(shared_redis_url: str) -> None:
    options = GatewayOptions(slots=0)
    async with trial(shared_redis_url, *MANY, options=options, **{**ROTATING, "ibkr_error309_cooldown_secs": 0}) as run:
        questions = run.gateway.journal.requests
        await run.gateway.wait_for(lambda: len(questions("reqCurrentTime")) >= 20, 60)  # four a second at most
        assert len(run.gateway.journal.errors(309)) <= 3 + 20
        run.gateway.set_slots(3)
        await run.fresh(10)


@pytest.mark.faults
async def test_gateway_that_freed_slots_late_once_is_tried_with_a_shorter_pause(shared_redis_url: str) -> None:
    options = GatewayOptions(slot_free_delay=0.3)
    async with trial(shared_redis_url, *MANY, options=options, **{**ROTATING, "ibkr_rotation_secs": 0.1}) as run:
        await has_turns(run, 2)
        assert run.said("slot_released_late")
        run.gateway.set_slot_free_delay(0.0)
        await has_turns(run, 1)
        refused, begun = len(run.gateway.journal.errors(309)), len(run.said("rotation_started"))
        await has_turns(run, 2 * FIRST_TRIAL_TURNS + 6)
        turns = run.said("rotation_started")[begun:]
        trials = [len(turn["symbols"]) == 1 for turn in turns]
        assert any(trials), "a trial goes alone"
        assert not any(trials[-1:]), "and once there is no pause any more there is nothing to try"
        assert len(run.gateway.journal.errors(309)) == refused
        assert run.said("batch_shrunk") == []
