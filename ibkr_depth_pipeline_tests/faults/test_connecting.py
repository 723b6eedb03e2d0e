"""Connecting to gateways that are slow, mute about one client id, away or not ready, at the start and after a loss.

Run with -s to see the figures of docs/faults.md.
"""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from ibkr_depth_pipeline.errors import GatewayUnavailable, NothingToRecord
from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.probe.session import ProbeSession
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.options import Unready
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, settings_for, universe_of
from ibkr_depth_pipeline_tests.faults.recovery import FAST, Trial, stopwatch, trial


def opened(run: Trial) -> int:
    """How many connections were made so far."""
    return len(run.gateway.journal.entries("opened"))


def ids_sent(run: Trial) -> list[str]:
    """The client id of each connection that came so far."""
    return [str(request.detail["clientId"]) for request in run.gateway.journal.requests("startApi")]


@pytest.mark.parametrize("delay", [1.5, pytest.param(3.0, marks=pytest.mark.faults)])
async def test_slow_greeting_is_waited_for_on_one_connection_at_the_start_and_after_a_loss(
    shared_redis_url: str, delay: float
) -> None:
    async with trial(shared_redis_url, "SPY", options=GatewayOptions(greeting_delay=delay)) as run:
        with stopwatch(f"greeting after {delay:g} s, at the start"):
            await run.fresh()
        assert (opened(run), ids_sent(run)) == (1, ["777"])
        run.gateway.drop_connections()
        with stopwatch(f"greeting after {delay:g} s, after a loss"):
            await run.fresh()
        assert (opened(run), ids_sent(run)) == (2, ["777", "777"])
        await run.right()
    assert not run.said("client_id_in_use")


@pytest.mark.parametrize("at_start", [True, False])
async def test_client_id_that_hangs_is_given_up_for_the_next_and_tried_last_from_then_on(
    shared_redis_url: str, at_start: bool
) -> None:
    async with trial(shared_redis_url, "SPY", ibkr_connect_timeout_secs=1) as run:
        if not at_start:
            await run.fresh()
        run.gateway.hang_client_id(777)
        run.gateway.drop_connections()
        with stopwatch("client id hangs, with IBKR_CONNECT_TIMEOUT_SECS=1"):
            await run.fresh()
        run.gateway.drop_connections()
        await run.fresh()
        assert ids_sent(run)[-3:] == ["777", "778", "778"]
        await run.right()
    assert any("IBKR_CLIENT_ID" in str(line) for line in run.said("client_id_unanswered"))


async def test_gateway_that_answers_no_client_id_gets_one_connection_after_the_other(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", ibkr_connect_timeout_secs=0.5) as run:
        await run.fresh()
        run.gateway.become_unready(Unready.SILENT)
        run.gateway.drop_connections()
        most = 0
        while opened(run) < 6:
            most = max(most, len(run.gateway.clients))
            await asyncio.sleep(0.02)
        run.gateway.become_ready()
        await run.fresh()
        assert most == 1
    assert {"778", "779"} & set(ids_sent(run)), "it cycles over the ids"


async def test_mute_gateway_gets_two_connections_at_once_at_most_and_ever_fewer(shared_redis_url: str) -> None:
    async with trial(shared_redis_url, "SPY", ibkr_connect_timeout_secs=300) as run:
        await run.fresh()
        run.gateway.mute_new_connections()
        run.gateway.drop_connections()
        before, most = opened(run), 0
        for _ in range(80):
            await asyncio.sleep(0.1)
            most = max(most, len(run.gateway.clients))
        assert most == 2
        assert opened(run) - before <= 10
        run.gateway.answer_new_connections()
        with stopwatch("mute for 8 s, answers new connections alone"):
            await run.fresh()
        await run.right()
        await run.gateway.wait_for(lambda: len(run.gateway.clients) == 1)


@pytest.mark.parametrize(
    ("unready", "asked"),
    [
        (Unready.NO_EXCHANGES, "reqMktDepthExchanges"),
        (Unready.UNKNOWN_CONTRACTS, "reqContractDetails"),
        (Unready.SILENT, "startApi"),
    ],
)
async def test_gateway_that_is_not_ready_at_the_start_is_recorded_once_it_is(
    shared_redis_url: str, unready: Unready, asked: str
) -> None:
    async with SimulatedGateway() as gateway:
        gateway.become_unready(unready)
        async with recording(gateway, shared_redis_url, universe_of("SPY"), **FAST) as run:
            await gateway.wait_for(lambda: len(gateway.journal.requests(asked)) >= 2, 60)
            assert not run.task.done()
            gateway.become_ready()
            with stopwatch(f"not ready at the start: {unready.value}"):
                await run.grows("SPY", 50)


async def test_start_without_anything_that_listens_goes_on_once_something_does(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        gateway.refuse_connections()
        with capture_logs() as logged:
            async with recording(gateway, shared_redis_url, universe_of("SPY"), **FAST) as run:

                async def tried_in_vain() -> bool:
                    return len([line for line in logged if line["event"] == "connect_failed"]) >= 2

                await run.until(tried_in_vain)
                await gateway.listen()
                with stopwatch("nothing listens at the start"):
                    await run.grows("SPY", 50)


@pytest.mark.parametrize("once", [True, False])
async def test_start_that_is_limited_gives_up_with_the_reason(shared_redis_url: str, once: bool) -> None:
    limit = {"ibkr_connect_timeout_secs": 2} if once else {"ibkr_start_timeout_secs": 2}
    async with SimulatedGateway() as gateway:
        settings = settings_for(gateway, shared_redis_url, **limit)
        with pytest.raises(NothingToRecord, match="NOSUCH"):
            await IngestSession(settings, universe_of("NOSUCH"), once=once).run()
        gateway.mute_new_connections()
        with pytest.raises(GatewayUnavailable, match="dialog"):
            await IngestSession(settings, universe_of("SPY"), once=once).run()
        gateway.refuse_connections()
        with pytest.raises(GatewayUnavailable, match="IBKR_PORT"):
            await IngestSession(settings, universe_of("SPY"), once=once).run()


async def test_start_that_is_limited_gives_up_where_depth_of_every_symbol_is_refused(shared_redis_url: str) -> None:
    refusals = {"SPY": 354, "QQQ": 10092}
    async with SimulatedGateway(GatewayOptions(refusals=refusals)) as gateway:
        settings = settings_for(gateway, shared_redis_url, **{**FAST, "ibkr_start_timeout_secs": 2})
        with pytest.raises(NothingToRecord, match="354"):
            await IngestSession(settings, universe_of("SPY", "QQQ")).run()
        gateway.allow("QQQ")
        session = IngestSession(settings, universe_of("SPY", "QQQ"))
        assert (await session.run(duration=6)).rows["QQQ"] > 0


async def test_run_whose_duration_is_over_before_it_could_connect_fails_with_the_reason(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        settings = settings_for(gateway, shared_redis_url)
        gateway.refuse_connections()
        with pytest.raises(GatewayUnavailable, match="nothing listens"):
            await IngestSession(settings, universe_of("SPY")).run(duration=1)


async def test_probe_names_its_own_client_id_where_it_is_never_answered(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        gateway.hang_client_id(787)
        settings = settings_for(gateway, shared_redis_url, ibkr_connect_timeout_secs=0.3, ibkr_client_id_max_offset=0)
        with pytest.raises(GatewayUnavailable, match="IBKR_PROBE_CLIENT_ID"):
            await ProbeSession(settings, universe_of("AAPL")).run()
        gateway.refuse_connections()
        with pytest.raises(GatewayUnavailable, match="7496"):
            await ProbeSession(settings, universe_of("AAPL")).run()
