"""A book out of step with the gateway's: found, no heartbeat meanwhile, asked for again; its neighbours are not."""

from __future__ import annotations

from typing import Any

import pytest

from ibkr_depth_pipeline.schema.keys import heartbeat_key
from ibkr_depth_pipeline_tests.end_to_end.recording import dropped_in_a_turn
from ibkr_depth_pipeline_tests.faults.recovery import Trial, stopwatch, trial
from ibkr_depth_pipeline_tests.faults.test_silent_lines import asked


async def found(run: Trial, symbol: str = "SPY") -> None:
    async def named() -> bool:
        return any(line["symbol"] == symbol for line in run.said("book_out_of_step"))

    await run.run.until(named)


@pytest.mark.parametrize(
    ("fault", "arguments"),
    [
        ("double_side", {"side": "bid"}),
        ("double_side", {"side": "ask"}),
        ("extra_delete", {}),
        ("cross", {}),
        ("unsort", {}),
        ("updates_past_end", {"count": 20}),
        ("unreadable_row", {"operation": "insert", "how": "bad_size"}),
        ("unreadable_row", {"operation": "insert", "how": "bad_price"}),
        ("unreadable_row", {"operation": "insert", "how": "unset_size"}),
        ("unreadable_row", {"operation": "delete", "how": "unset_side"}),
    ],
)
async def test_book_out_of_step_is_found_and_right_again_and_its_neighbour_is_left_alone(
    shared_redis_url: str, fault: str, arguments: dict[str, Any]
) -> None:
    # Venues of NASDAQ's send inserts and deletes; where each move is a cascade of updates, a lost row heals by itself.
    async with trial(shared_redis_url, "AAPL", "MSFT") as run:
        await run.fresh(300)  # what its book shows in its first second is taken for the venue's way
        if fault == "extra_delete":  # such a book heals within some 130 rows: at this pace not before it is found
            run.gateway.set_rate(8.0, "AAPL")
        getattr(run.gateway, fault)("AAPL", **arguments)
        with stopwatch(f"{fault} {arguments}"):
            await found(run, "AAPL")
            run.gateway.set_rate(200.0)
            await run.fresh()
        await run.right()
        await run.whole()
        summary = await run.run.stop()
    assert summary.connections == 1
    assert {line["symbol"] for line in run.said("book_out_of_step")} == {"AAPL"}
    assert asked(run, "AAPL") == 2
    assert asked(run, "MSFT") == 1


async def test_name_that_is_no_utf8_is_stored_with_a_replacement_and_nothing_is_out_of_step(
    shared_redis_url: str,
) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ") as run:
        await run.fresh()
        run.gateway.unreadable_row("SPY", "insert", "latin1_name")
        await run.fresh(200)
        await run.right()
        summary = await run.run.stop()
    assert (dropped_in_a_turn(summary), run.said("book_out_of_step"), asked(run, "SPY")) == ({}, [], 1)


async def test_venue_that_always_looks_wrong_makes_no_storm_and_has_no_heartbeat_while_it_does(
    shared_redis_url: str,
) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", ibkr_crossed_book_secs=0.5) as run:
        await run.fresh()
        for _ in range(3):
            run.gateway.cross("SPY", times=3)
        await found(run)

        async def marked_only() -> bool:
            return any(not line["asked_again"] for line in run.said("book_out_of_step"))

        await run.run.until(marked_only)
        await run.run.redis.delete(heartbeat_key("SPY"))
        await run.fresh()
        assert await run.run.redis.exists(heartbeat_key("QQQ"))
        assert not await run.run.redis.exists(heartbeat_key("SPY"))
    assert asked(run, "SPY") <= 3
