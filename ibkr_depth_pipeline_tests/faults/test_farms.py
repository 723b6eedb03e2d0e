"""Farms, connectivity, competing sessions: each ends in live books; the log says for how long data was missing."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.ingest.composition import IngestTimings
from ibkr_depth_pipeline_tests.faults.recovery import stopwatch, trial


@pytest.mark.parametrize(
    ("scenario", "cause", "code"),
    [
        ("connectivity_data_lost", "connectivity_lost", 1100),
        ("connectivity_data_kept", "connectivity_lost", 1100),
        pytest.param("connectivity_silent_after", "connectivity_lost", 1100, marks=pytest.mark.faults),
        ("farm_blip_kills_feeds", "feed_degraded", 2103),
        pytest.param("servers_unreachable", "feed_degraded", 2110, marks=pytest.mark.faults),
        pytest.param("competing_session", "feed_degraded", 10197, marks=pytest.mark.faults),
    ],
)
async def test_trouble_ends_in_live_books_on_the_same_connection_and_the_gap_is_logged(
    shared_redis_url: str, scenario: str, cause: str, code: int
) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", "IWM", scenario=scenario) as run:
        steps = len(run.steps)
        await run.gateway.wait_for(lambda: len(run.faults()) >= steps, 60)

        async def all_back() -> bool:
            return {gap["symbol"] for gap in run.said("data_gap")} == {"SPY", "QQQ", "IWM"}

        with stopwatch(f"{scenario}, after the last of the scenario"):
            await run.run.until(all_back)
        await run.fresh()
        await run.right()
        await run.whole()
        assert (await run.run.stop()).connections == 1
    for gap in run.said("data_gap"):
        assert (gap["cause"], gap["code"]) == (cause, code)
        assert gap["secs"] >= 0
    assert min(gap["secs"] for gap in run.said("data_gap")) > 1.5, "the scenario takes 2 s at least"


@pytest.mark.parametrize(
    "scenario", ["farm_inactive", pytest.param("competing_session_kills_feeds", marks=pytest.mark.faults)]
)
async def test_feed_that_died_with_no_news_of_a_cure_is_requested_again_though_no_rotation_would(
    shared_redis_url: str, scenario: str
) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", scenario=scenario, timings=IngestTimings(ailing=3.0)) as run:
        await run.gateway.wait_for(lambda: len(run.faults()) == len(run.steps), 60)
        with stopwatch(f"{scenario}, with 3 s of patience instead of 30"):
            await run.fresh()
        await run.right()
        await run.whole()
        assert (await run.run.stop()).connections == 1
    asked = [request.detail["symbol"] for request in run.gateway.journal.requests("reqMktDepth")]
    assert sorted(asked) == ["QQQ", "QQQ", "SPY", "SPY"]


async def test_news_of_trouble_is_no_gap_for_a_line_whose_rows_never_pause(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", scenario="farm_blip") as run:
        await run.gateway.wait_for(lambda: len(run.faults()) == len(run.steps), 60)

        async def proven() -> bool:
            return bool(run.said("heartbeats") and run.said("heartbeats")[-1]["symbols"] == ["QQQ", "SPY"])

        await run.fresh()
        await run.run.until(proven)
        await run.right()
    assert run.said("feed_degraded")
    assert run.said("data_gap") == []


async def test_burst_of_one_error_is_logged_in_a_few_lines_and_rows_go_on(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ") as run:
        await run.fresh()
        run.gateway.repeat_error(10197, 240)

        async def counted() -> bool:
            return bool(run.said("lines_left_out"))

        await run.run.until(counted)
        await run.fresh()
        await run.run.stop()
    assert len(run.said("feed_degraded")) <= 20
    assert sum(line["lines"] for line in run.said("lines_left_out")) + len(run.said("feed_degraded")) == 240
    assert run.said("data_gap") == []


async def test_1300_is_followed_to_a_new_connection(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", scenario="port_reset") as run:
        await run.gateway.wait_for(run.faults)
        with stopwatch("port_reset"):
            await run.fresh()
        await run.right()
        assert (await run.run.stop()).connections == 2
    assert run.said("socket_port_reset")
    assert {gap["symbol"] for gap in run.said("data_gap")} == {"SPY", "QQQ"}


async def test_rows_after_a_1100_that_nothing_takes_back_end_the_suspension(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ") as run:
        await run.fresh()
        run.gateway.send_error(1100)

        async def resumed() -> bool:
            return bool(run.said("connectivity_restored"))

        await run.run.until(resumed)
        await run.fresh()
        await run.right()


async def test_1100_that_nothing_follows_is_ended_by_asking_again(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", scenario="connectivity_never_restored", ibkr_outage_secs=2) as run:
        await run.gateway.wait_for(run.faults)
        with stopwatch("connectivity_never_restored, with IBKR_OUTAGE_SECS=2"):
            await run.fresh()
        await run.right()
        await run.whole()
        assert (await run.run.stop()).connections == 1
    assert len(run.said("connectivity_unknown")) == 1


async def test_1100_that_only_a_new_connection_ends_costs_one(shared_redis_url: str) -> None:
    settings = {"ibkr_outage_secs": 1, "ibkr_first_row_secs": 10}
    async with trial(shared_redis_url, "SPY", "QQQ", scenario="connectivity_needs_reconnect", **settings) as run:
        await run.gateway.wait_for(run.faults)
        with stopwatch("connectivity_needs_reconnect, with IBKR_OUTAGE_SECS=1"):
            await run.fresh()
        await run.right()
        await run.whole()
        assert (await run.run.stop()).connections == 2


async def test_farm_that_is_connected_after_a_1100_has_every_line_asked_for_at_once(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", "QQQ", ibkr_outage_secs=3600) as run:
        await run.fresh()
        run.gateway.connectivity_lost(dead_lines=True)

        async def suspended() -> bool:
            return bool(run.said("connectivity_lost"))

        await run.run.until(suspended)
        run.gateway.send_error(2104)
        with stopwatch("1100, then 2104 and nothing more"):
            await run.fresh()
        await run.right()
        assert (await run.run.stop()).connections == 1


async def test_quiet_book_gets_no_heartbeat_while_its_farm_is_broken_and_one_when_it_is_proven_alive(
    shared_redis_url: str,
) -> None:
    async with trial(shared_redis_url, "SPY") as run:
        await run.fresh()
        run.gateway.set_rate(0.0)
        quiet_from = len(run.said("heartbeats")) + 4

        async def beaten() -> bool:
            return len(run.said("heartbeats")) > quiet_from

        await run.run.until(beaten)
        assert run.said("heartbeats")[-1]["symbols"] == ["SPY"], "a quiet market alone is no reason"
        run.gateway.send_error(2103)

        async def unproven() -> bool:
            return bool(run.said("heartbeats")[-1]["symbols"] == [])

        await run.run.until(unproven)
        run.gateway.send_error(2104)

        async def proven() -> bool:
            return bool(run.said("heartbeats")[-1]["symbols"] == ["SPY"])

        with stopwatch("a quiet book after 2103 and 2104, until it is proven"):
            await run.run.until(proven)
        assert len(run.gateway.journal.requests("reqMktDepth")) == 2
