"""Bad rows and bad bytes: dropped, counted and logged, or one reconnect; no crash, no wrong book, no endless growth."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.simulation import GatewayOptions
from ibkr_depth_pipeline.simulation.distortions import BAD_FRAMES, MALFORMED_ROWS
from ibkr_depth_pipeline_tests.end_to_end.recording import dropped_in_a_turn
from ibkr_depth_pipeline_tests.faults.recovery import stopwatch, trial

DROPPED = [kind for kind in BAD_FRAMES if kind != "absurd_length"]


@pytest.mark.parametrize("kind", sorted(MALFORMED_ROWS))
async def test_malformed_row_is_dropped_counted_and_logged_and_the_book_stays_right(
    shared_redis_url: str, kind: str
) -> None:
    async with trial(shared_redis_url, "SPY") as run:
        await run.fresh(20)
        assert run.gateway.malformed_rows([kind]) == 1
        await run.fresh(20)
        await run.right()
        summary = await run.run.stop()
    assert list(dropped_in_a_turn(summary).values()) == [1], summary.dropped
    assert summary.connections == 1
    found = [line["rows"] for line in run.said("rows_dropped") if line["reason"] != "retired_request"]
    assert found == [1]


@pytest.mark.parametrize("kind", DROPPED)
async def test_bad_frame_is_dropped_and_counted_and_the_stream_goes_on(shared_redis_url: str, kind: str) -> None:
    async with trial(shared_redis_url, "SPY") as run:
        await run.fresh(20)
        run.gateway.bad_frame(kind)
        await run.fresh(20)
        await run.right()
        await run.whole()
        summary = await run.run.stop()
    assert list(dropped_in_a_turn(summary).values()) == [1], summary.dropped
    assert summary.connections == 1


async def test_absurd_frame_length_costs_one_reconnect_at_once_and_no_memory(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", scenario="absurd_length", ibkr_stall_secs=3600) as run:
        await run.gateway.wait_for(run.faults)
        with stopwatch("absurd_length"):
            await run.fresh()
        await run.right()
        await run.whole()
        assert (await run.run.stop()).connections == 2
    assert "2147483647 bytes" in run.said("connection_lost")[0]["text"]


async def test_wrong_but_allowed_frame_length_is_a_stall_and_costs_one_reconnect(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY") as run:
        await run.fresh()
        run.gateway.send_raw("00fffffe")  # nearly 16 MiB are announced; what follows are rows
        with stopwatch("a wrong length, with IBKR_STALL_SECS=1"):
            await run.fresh()
        await run.right()
        assert (await run.run.stop()).connections == 2


async def test_gateway_that_greets_with_garbage_counts_as_unavailable_and_is_tried_again(
    shared_redis_url: str,
) -> None:
    async with trial(shared_redis_url, "SPY") as run:
        await run.fresh()
        run.gateway.mute_new_connections()
        run.gateway.drop_connections()
        await run.gateway.wait_for(lambda: [n for n in run.gateway.clients if n > 1])
        run.gateway.send_raw("0000000d 48545450 2f312e31 20343030 00")
        run.gateway.send_raw("0000000d 48545450 2f312e31 20343030 00")
        run.gateway.answer_new_connections()
        await run.fresh()
        await run.right()


async def test_messages_in_single_bytes_make_the_same_books(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", options=GatewayOptions(rows_per_second=50)) as run:
        await run.fresh(5)
        run.gateway.dribble()
        await run.fresh(30)
        await run.right()
        await run.complete()
        await run.whole()
        assert dropped_in_a_turn(await run.run.stop()) == {}


async def test_burst_of_50000_rows_is_in_the_stream_row_by_row(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY") as run:
        await run.fresh()
        run.gateway.set_rate(0.0)
        with stopwatch("a burst of 50,000 rows, stored"):
            await run.gateway.burst("SPY", 50_000)
            await run.complete()
        await run.right()
        summary = await run.run.stop()
    assert dropped_in_a_turn(summary) == {}
    assert summary.snapshots["SPY"] >= 50_000


async def test_flood_of_bad_rows_is_logged_in_one_line_per_cycle_and_reason(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", options=GatewayOptions(rows_per_second=50, keep_rows=False)) as run:
        await run.fresh(20)
        bad = 0
        for _ in range(1500):
            bad += run.gateway.malformed_rows(symbol="SPY")
            for kind in DROPPED:
                run.gateway.bad_frame(kind)

        async def counted() -> bool:
            return sum(line["rows"] for line in run.said("rows_dropped")) >= bad

        await run.fresh(20)
        await run.run.until(counted)
        await run.right()
        summary = await run.run.stop()
    assert sum(summary.dropped.values()) >= bad
    assert len(run.said("rows_dropped")) <= 10 * len(summary.dropped)
    assert [line for line in run.logged if line["event"] == "gateway_notice"] == []
    assert summary.connections == 1
