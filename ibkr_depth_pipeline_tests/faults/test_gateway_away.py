"""The gateway away: however it goes, the recording resumes by itself once it answers again, with fresh books.

The 3 s of the promise are measured, not asserted: run with -s to see the figures of docs/faults.md.
"""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline_tests.faults.recovery import stopwatch, trial


@pytest.mark.parametrize("scenario", ["clean_close", "half_a_message"])
async def test_connection_that_ends_costs_one_reconnect_and_the_books_are_fresh(
    shared_redis_url: str, scenario: str
) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", "IWM", scenario=scenario) as run:
        await run.gateway.wait_for(run.faults)
        with stopwatch(scenario):
            await run.fresh()
        await run.right()
        await run.whole()
        summary = await run.run.stop()
    assert summary.connections == 2
    gaps = run.said("data_gap")
    assert {gap["symbol"] for gap in gaps} == {"SPY", "QQQ", "IWM"}
    assert {gap["cause"] for gap in gaps} == {"connection_lost"}


async def test_three_resets_cost_three_reconnects(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ") as run:
        for _ in range(3):
            await run.fresh()
            run.gateway.drop_connections(reset=True)
            with stopwatch("connection_reset"):
                await run.fresh()
        await run.right()
        await run.whole()
        assert (await run.run.stop()).connections == 4


@pytest.mark.parametrize("attempts", [3])
async def test_gateway_that_refuses_for_a_while_is_found_again(shared_redis_url: str, attempts: int) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ") as run:
        await run.fresh()
        run.gateway.refuse_connections()
        run.gateway.drop_connections()

        async def tried() -> bool:
            return len(run.said("connect_failed")) >= attempts

        await run.run.until(tried)
        await run.gateway.listen()
        with stopwatch("refused_for_a_while"):
            await run.fresh()
        await run.right()
        await run.whole()
    pauses = [line["pause_secs"] for line in run.said("connect_failed")]
    assert all(pause <= 2 for pause in pauses)


async def test_gateway_that_accepts_and_never_answers_costs_nothing_once_it_answers(shared_redis_url: str) -> None:
    """The connect timeout is 5 minutes here: a connection begun against the mute gateway must not be waited for."""
    async with trial(shared_redis_url, "SPY", "QQQ", ibkr_connect_timeout_secs=300) as run:
        await run.fresh()
        run.gateway.mute_new_connections()
        run.gateway.drop_connections()
        await run.gateway.wait_for(lambda: len(run.gateway.clients) >= 2, 30)
        run.gateway.answer_new_connections()
        with stopwatch("accepted_never_answered"):
            await run.fresh()
        await run.right()
        await run.gateway.wait_for(lambda: len(run.gateway.clients) == 1)


async def test_silent_stall_is_given_up_though_the_socket_stays_open(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ") as run:
        await run.fresh()
        run.gateway.stall()
        with stopwatch("silent_stall, with IBKR_STALL_SECS=1"):
            await run.fresh()
        await run.right()
        await run.whole()
        assert (await run.run.stop()).connections == 2
    (stalled,) = run.said("gateway_stalled")
    assert stalled["without_row_secs"] >= 1
    assert stalled["unanswered_secs"] > 0


async def test_short_stall_is_sat_out(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", scenario="short_stall", ibkr_stall_secs=60) as run:
        await run.gateway.wait_for(run.faults)
        await run.fresh()
        await run.right()
        assert (await run.run.stop()).connections == 1


async def test_quiet_market_alone_is_no_stall(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY") as run:
        await run.fresh()
        run.gateway.set_rate(0.0)
        answers = run.gateway.journal.counts["reply", "currentTime"]
        # The limit is 1 s and the gateway is asked four times a second: this is several limits without a row.
        await run.gateway.wait_for(lambda: run.gateway.journal.counts["reply", "currentTime"] >= answers + 16)
        run.gateway.set_rate(200.0)
        await run.fresh()
        assert (await run.run.stop()).connections == 1
    assert run.said("gateway_stalled") == []


async def test_client_id_that_is_still_taken_after_a_drop_is_passed_over(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", scenario="client_id_still_taken") as run:
        await run.gateway.wait_for(run.faults)
        with stopwatch("client_id_still_taken"):
            await run.fresh()
        await run.right()
    assert [line["client_id"] for line in run.said("connected")] == [777, 778]
    assert [line["client_id"] for line in run.said("client_id_in_use")] == [777]


async def test_client_ids_that_are_all_taken_are_tried_until_one_is_free(shared_redis_url: str) -> None:
    options = GatewayOptions(client_id_held_after_drop=3600)
    async with trial(shared_redis_url, "SPY", options=options, ibkr_client_id_max_offset=0) as run:
        await run.fresh()
        run.gateway.drop_connections()

        async def refused() -> bool:
            return len(run.said("client_id_in_use")) >= 2

        await run.run.until(refused)
        run.gateway.hold_client_id(777, 0)
        with stopwatch("every client id taken (326)"):
            await run.fresh()
        await run.right()


async def test_slots_that_are_still_taken_after_a_drop_are_waited_for_and_the_batch_stays_whole(
    shared_redis_url: str,
) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", "IWM") as run:
        await run.fresh()
        run.gateway.occupy_slots(3)
        run.gateway.drop_connections()
        await run.gateway.wait_for(lambda: len(run.gateway.journal.errors(309)) >= 5, 30)
        run.gateway.occupy_slots(0)
        with stopwatch("slots_still_taken"):
            await run.fresh()
        await run.right()
        summary = await run.run.stop()
    assert run.said("batch_shrunk") == []
    assert summary.refused_309 <= 3 + 3, "one batch, then one request at a time"


async def test_connections_lost_in_quick_succession_are_survived(shared_redis_url: str) -> None:
    """Each new connection is cut as soon as it stands, or before."""
    async with trial(shared_redis_url, "SPY", "QQQ") as run:
        await run.fresh()
        for kind, name in [("reply", "nextValidId"), ("request", "startApi"), ("opened", ""), ("subscribed", "SPY")]:
            seen = run.gateway.journal.counts[kind, name]
            unlisten = run.gateway.journal.listen(
                lambda entry, kind=kind, name=name: (  # type: ignore[misc]
                    run.gateway.drop_connections() if (entry.kind, entry.name) == (kind, name) else None
                )
            )
            run.gateway.drop_connections()
            await run.gateway.wait_for(
                lambda kind=kind, name=name, seen=seen: run.gateway.journal.counts[kind, name] >= seen + 2,
                60,  # type: ignore[misc]
            )
            unlisten()
        await run.fresh()
        await run.right()
        await run.whole()
