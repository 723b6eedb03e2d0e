"""Hundreds of symbols at a gateway that counts messages, through the whole recorder and the probe.

The quick tests run at ten times the real pace: 500 messages a second allowed, 200 sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import islice, product
from typing import Any

import pytest

from ibkr_depth_pipeline.probe.session import ProbeSession
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.options import Pacing
from ibkr_depth_pipeline.sink.status import read_health
from ibkr_depth_pipeline_tests.end_to_end.recording import settings_for, universe_of
from ibkr_depth_pipeline_tests.faults.recovery import Trial, stopwatch, trial

SYMBOLS = tuple("".join(letters) for letters in islice(product("ABCDEFG", repeat=4), 300))
LIMITED = GatewayOptions(messages_per_second=500, pacing=Pacing.DISCONNECT)
QUICK: dict[str, Any] = {"ibkr_messages_per_second": 200}


async def all_resolved(run: Trial) -> None:
    async def known() -> bool:
        return len(run.said("symbol_resolved")) >= len(run.symbols)

    await run.run.until(known)


def asked(gateway: SimulatedGateway) -> Counter[str]:
    """How often each symbol's contract details were asked for."""
    return Counter(str(request.detail["symbol"]) for request in gateway.journal.requests("reqContractDetails"))


async def test_300_symbols_are_no_violation_and_are_asked_about_once(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, *SYMBOLS, options=LIMITED, **QUICK) as run:
        await all_resolved(run)
        await run.run.grows(SYMBOLS[0], 10)
        assert run.gateway.journal.errors(100) == []
        assert asked(run.gateway) == Counter(SYMBOLS)
        assert len(run.gateway.journal.requests("reqMktDepthExchanges")) == 1
        assert len(run.said("connected")) == 1


async def test_rotation_begins_with_the_first_symbols_and_not_after_the_last(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, *SYMBOLS, options=LIMITED, **QUICK) as run:
        await all_resolved(run)
        names = [request.name for request in run.gateway.journal.requests()]
        before = names[: names.index("reqMktDepth")]
        assert before.count("reqContractDetails") < len(SYMBOLS) / 3


async def test_no_violation_while_others_use_two_fifths_of_what_the_account_may_send(shared_redis_url: str) -> None:
    # 250 of our own may come in a second; the rest is for what a busy machine pushes together on its way
    options = GatewayOptions(messages_per_second=500, other_messages_per_second=200, pacing=Pacing.DISCONNECT)
    async with trial(shared_redis_url, *SYMBOLS, options=options, **QUICK) as run:
        await all_resolved(run)
        assert run.gateway.journal.errors(100) == []


async def test_message_rate_left_by_busy_clients_suffices_and_violations_stay_few(shared_redis_url: str) -> None:
    options = GatewayOptions(messages_per_second=500, other_messages_per_second=430)
    async with trial(shared_redis_url, *SYMBOLS[:150], options=options, **QUICK) as run:
        await all_resolved(run)
        await run.run.grows(SYMBOLS[0], 10)
        violations = len(run.gateway.journal.errors(100))
        slowed = run.said("sending_slowed")
        figures = await read_health(settings_for(run.gateway, shared_redis_url).redis_url, "default", SYMBOLS[:1])
    assert 1 <= len(slowed) <= 3
    assert violations <= 60
    assert isinstance(figures.feed.figures, FeedFigures)


async def test_gateway_that_ends_connections_for_violations_costs_no_answer_twice(shared_redis_url: str) -> None:
    options = GatewayOptions(messages_per_second=500, other_messages_per_second=430, pacing=Pacing.DISCONNECT)
    async with trial(shared_redis_url, *SYMBOLS[:150], options=options, **QUICK) as run:
        await all_resolved(run)
        answered = Counter(
            str(reply.detail["symbol"]) for reply in run.gateway.journal.entries("reply", "contractDetails")
        )
        assert len(run.said("connected")) <= 3
        await run.run.grows(SYMBOLS[0], 10)
    again = [symbol for symbol, count in answered.items() if count > 1]
    assert len(again) <= 2 * len(run.said("connected")), "at most answers that were on their way as it broke"


async def test_reconnect_in_the_middle_keeps_what_was_answered(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, *SYMBOLS, options=LIMITED, **QUICK) as run:
        await run.gateway.wait_for(lambda: len(run.said("symbol_resolved")) > 100, 30)
        known = [line["symbol"] for line in run.said("symbol_resolved")]
        run.gateway.drop_connections()
        with stopwatch("connection lost among 300 questions, until the rest is known (at ten times the pace)"):
            await all_resolved(run)
        assert len(run.said("connected")) == 2
        assert all(asked(run.gateway)[symbol] == 1 for symbol in known)
        await run.run.grows(SYMBOLS[0], 10)
        assert run.gateway.journal.errors(100) == []


async def test_answers_that_never_come_are_asked_for_again_within_seconds(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", "IWM", scenario="unanswered_details", ibkr_rotation_secs=1) as run:
        with stopwatch("two answers of each symbol lost, until every symbol has 50 rows"):
            await run.fresh()
        assert run.said("symbol_skipped") == []
        assert set(asked(run.gateway).values()) == {3}


async def test_silent_question_holds_no_other_symbol_up(shared_redis_url: str) -> None:
    options = GatewayOptions(unanswered_details={"QQQ": 1_000_000})
    async with trial(shared_redis_url, "SPY", "QQQ", "IWM", options=options, ibkr_rotation_secs=1) as run:
        await run.run.grows("SPY", 10)
        await run.run.grows("IWM", 10)
        assert run.said("symbol_skipped") == []


async def test_violations_are_counted_and_shown(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY") as run:
        await run.run.grows("SPY", 10)
        for _ in range(3):
            run.gateway.send_error(100)

        async def counted() -> bool:
            figures = (await read_health(shared_redis_url, "default", ["SPY"])).feed.figures
            return figures is not None and figures.pacing_violations == 3

        await run.run.until(counted)
        await run.run.grows("SPY", 10)
        assert len(run.said("pacing_violation")) == 3
        assert [line["messages_per_second"] for line in run.said("sending_slowed")] == [10]


async def test_subscription_lost_to_a_violation_is_made_within_seconds(shared_redis_url: str) -> None:
    options = GatewayOptions(messages_per_second=50)
    async with trial(shared_redis_url, "SPY", "QQQ", options=options, ibkr_first_row_secs=60) as run:
        await run.run.grows("SPY", 1)
        run.gateway.halt("SPY")
        run.gateway.occupy_messages(1_000_000, seconds=1.2)
        with stopwatch("a depth request lost to a 100, until its symbol has 50 rows"):
            await run.run.grows("SPY", 50)
        assert run.gateway.journal.errors(100)
        assert run.said("request_id_rejected") == []


async def test_probe_of_300_symbols_is_no_violation(shared_redis_url: str) -> None:
    async with SimulatedGateway(LIMITED) as gateway:
        settings = settings_for(gateway, shared_redis_url, ibkr_messages_per_second=200)
        probe = ProbeSession(settings, universe_of(*SYMBOLS), record=False)
        resolved: list[Any] = []
        unlisten = gateway.journal.listen(
            lambda entry: resolved.append(entry) if entry.name == "contractDetailsEnd" else None
        )
        running = asyncio.ensure_future(probe.run())
        await gateway.wait_for(lambda: len(resolved) >= len(SYMBOLS), 30)
        probe.stop()
        await running
        unlisten()
        assert gateway.journal.errors(100) == []
        assert asked(gateway) == Counter(SYMBOLS)


@pytest.mark.faults
@pytest.mark.parametrize("scenario", ["pacing_disconnect", "pacing_shared"])
async def test_300_symbols_at_the_real_pace(shared_redis_url: str, scenario: str) -> None:
    async with trial(shared_redis_url, *SYMBOLS, scenario=scenario, ibkr_rotation_secs=15) as run:
        with stopwatch(f"{scenario}, until the first symbol has 50 rows"):
            await run.run.grows(SYMBOLS[0], 50)
        with stopwatch(f"{scenario}, from then until all 300 symbols are known"):
            await all_resolved(run)
        assert len(run.said("connected")) == 1
        assert len(run.gateway.journal.errors(100)) <= (0 if scenario == "pacing_disconnect" else 10)
