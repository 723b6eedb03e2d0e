"""The probe against a simulated gateway, over a real socket, with a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from ibkr_depth_pipeline.errors import ClientIdsExhausted, GatewayUnavailable
from ibkr_depth_pipeline.ingest.session import IngestSession
from ibkr_depth_pipeline.probe.report import Outcome, ProbeReport, RedisUse, SymbolReport
from ibkr_depth_pipeline.probe.session import ProbeSession, Progress, run_probe
from ibkr_depth_pipeline.schema.keys import heartbeat_key, lease_key
from ibkr_depth_pipeline.settings import Settings, load_settings
from ibkr_depth_pipeline.simulation import EarlyCancel, GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.background import GatewayThread
from ibkr_depth_pipeline.simulation.options import Unready
from ibkr_depth_pipeline.sink.status import read_hours_of
from ibkr_depth_pipeline.universe import SymbolSpec, Universe

AWAY = "redis://:sesame@127.0.0.1:1/0"
SPX = SymbolSpec("SPX", sec_type="IND", exchange="CBOE")


@pytest.fixture
def store(shared_redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(shared_redis_url, decode_responses=True) as client:
        yield client


def settings_for(gateway: SimulatedGateway | GatewayThread, redis_url: str, **given: object) -> Settings:
    quick = {"ibkr_error309_cooldown_secs": 0.1, "ibkr_first_row_secs": 10.0}
    return load_settings(ibkr_host=gateway.host, ibkr_port=gateway.port, redis_url=redis_url, **{**quick, **given})


def universe_of(*symbols: str | SymbolSpec) -> Universe:
    return Universe(tuple(each if isinstance(each, SymbolSpec) else SymbolSpec(each) for each in symbols))


async def probe(
    gateway: SimulatedGateway, redis_url: str | None, *symbols: str | SymbolSpec, **given: object
) -> ProbeReport:
    settings = settings_for(gateway, redis_url or AWAY, **given)
    return await ProbeSession(settings, universe_of(*symbols), record=redis_url is not None).run()


def of(report: ProbeReport, symbol: str) -> SymbolReport:
    return next(each for each in report.symbols if each.symbol == symbol)


def live_subscriptions(gateway: SimulatedGateway) -> int:
    return len(gateway.journal.entries("subscribed")) - len(gateway.journal.entries("unsubscribed"))


def cancels(gateway: SimulatedGateway) -> list[int]:
    return [int(entry.detail["reqId"]) for entry in gateway.journal.requests("cancelMktDepth")]


async def test_symbol_with_depth_passes_with_its_book_and_its_venue_is_recorded(
    shared_redis_url: str, store: redis.Redis
) -> None:
    async with SimulatedGateway() as gateway:
        report = await probe(gateway, shared_redis_url, "SPY", "AAPL", "MSFT", "IBM", "QQQ")
    assert report.passed
    assert [each.symbol for each in report.symbols] == ["SPY", "AAPL", "MSFT", "IBM", "QQQ"]
    spy = of(report, "SPY")
    assert (spy.venue_requested, spy.venues_granted, spy.l2) == ("ARCA", ("ARCA",), True)
    assert (len(spy.bids), len(spy.asks)) == (10, 10)
    assert spy.bids[0][0] < spy.asks[0][0]
    assert report.redis is RedisUse.RECORDED
    venue = store.hgetall("raw:ibkr:depth:venue:SPY")
    assert (venue["exchange"], venue["depth_supported"], venue["reason"]) == ("ARCA", "1", "")


async def test_extra_rows_are_requested_at_the_venue_itself_and_every_id_is_used_once(
    shared_redis_url: str,
) -> None:
    async with SimulatedGateway() as gateway:
        await probe(gateway, shared_redis_url, "SPY", "AAPL")
        requests = [entry.detail for entry in gateway.journal.requests("reqMktDepth")]
    assert {(int(each["numRows"]), int(each["isSmartDepth"])) for each in requests} == {(15, 0)}
    ids = [each["reqId"] for each in requests]
    assert len(set(ids)) == len(ids) == 2


async def test_slots_of_the_account_suffice_for_any_number_of_symbols(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(slots=3)) as gateway:
        report = await probe(gateway, shared_redis_url, "SPY", "QQQ", "IWM", "AAPL", "MSFT", "IBM", "JPM")
        assert gateway.journal.errors(309) == []
        assert sorted(cancels(gateway)) == sorted(
            int(e.detail["reqId"]) for e in gateway.journal.requests("reqMktDepth")
        )
    assert report.passed


async def test_fewer_slots_than_set_cost_time_and_no_symbol(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(slots=1, slot_free_delay=0.3)) as gateway:
        report = await probe(gateway, shared_redis_url, "SPY", "AAPL", "MSFT")
        refused = {entry.detail["request_id"] for entry in gateway.journal.errors(309)}
        assert refused.isdisjoint(cancels(gateway))
    assert report.passed
    assert any(309 in each.codes for each in report.symbols)


async def test_unknown_symbol_fails_with_200_and_the_others_pass(shared_redis_url: str, store: redis.Redis) -> None:
    async with SimulatedGateway() as gateway:
        report = await probe(gateway, shared_redis_url, "NOSUCH", "AAPL")
    nosuch = of(report, "NOSUCH")
    assert (nosuch.outcome, nosuch.codes, nosuch.l2) == (Outcome.UNRESOLVED, (200,), False)
    assert of(report, "AAPL").passed
    assert not report.passed
    assert store.hget("raw:ibkr:depth:venue:NOSUCH", "depth_supported") == "0"


async def test_symbol_whose_venues_have_no_depth_is_not_subscribed_to(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        report = await probe(gateway, shared_redis_url, "OTCX")
        assert gateway.journal.requests("reqMktDepth") == []
    assert of(report, "OTCX").outcome is Outcome.UNRESOLVED


async def test_index_without_a_book_fails_with_10092(shared_redis_url: str, store: redis.Redis) -> None:
    async with SimulatedGateway() as gateway:
        report = await probe(gateway, shared_redis_url, SPX)
    assert (of(report, "SPX").outcome, of(report, "SPX").codes) == (Outcome.REFUSED, (10092,))
    venue = store.hgetall("raw:ibkr:depth:venue:SPX")
    assert (venue["exchange"], venue["depth_supported"]) == ("CBOE", "0")
    assert "10092" in venue["reason"]


@pytest.mark.parametrize("code", [200, 354, 478, 10089, 10168])
async def test_refusal_at_a_configured_venue_is_reported_with_its_code(shared_redis_url: str, code: int) -> None:
    named = SymbolSpec("AAPL", exchange="ISLAND")
    async with SimulatedGateway(GatewayOptions(refusals={"AAPL": code})) as gateway:
        report = await probe(gateway, shared_redis_url, named, "MSFT")
        assert len(cancels(gateway)) == 2
        assert not gateway.journal.errors(309)
    assert (of(report, "AAPL").outcome, of(report, "AAPL").codes) == (Outcome.REFUSED, (code,))
    assert str(code) in of(report, "AAPL").verdict
    assert of(report, "MSFT").passed


async def test_another_venue_with_depth_is_found_reported_and_recorded(
    shared_redis_url: str, store: redis.Redis
) -> None:
    refusals = {"AAPL@ISLAND": 354, "AAPL@ARCA": 10168, "AAPL@NYSE": 10092}
    async with SimulatedGateway(GatewayOptions(venue_refusals=refusals)) as gateway:
        report = await probe(gateway, shared_redis_url, "AAPL", "MSFT")
    found = of(report, "AAPL")
    assert found.passed
    assert found.venue_requested not in ("ISLAND", "ARCA", "NYSE")
    assert "ISLAND 354" in found.reason
    venue = store.hgetall("raw:ibkr:depth:venue:AAPL")
    assert (venue["exchange"], venue["depth_supported"], venue["reason"]) == (found.venue_requested, "1", "")


async def test_symbol_that_every_venue_refuses_fails_with_every_reason(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(refusals={"AAPL": 478})) as gateway:
        report = await probe(gateway, shared_redis_url, "AAPL", "MSFT")
    assert of(report, "AAPL").outcome is Outcome.REFUSED
    assert "ISLAND 478" in of(report, "AAPL").reason
    assert "ARCA 478" in of(report, "AAPL").reason
    assert of(report, "MSFT").passed


async def test_symbols_pass_at_a_gateway_that_refuses_all_until_its_farms_are_connected(
    shared_redis_url: str,
) -> None:
    async with SimulatedGateway(GatewayOptions(ready_after=2.0, unready=Unready.NOT_SUBSCRIBED)) as gateway:
        report = await probe(gateway, shared_redis_url, "AAPL", "MSFT")
    assert report.passed


async def test_slots_that_other_clients_keep_are_awaited_and_then_reported(
    shared_redis_url: str, store: redis.Redis
) -> None:
    async with SimulatedGateway() as gateway:
        gateway.occupy_slots(3)
        report = await probe(gateway, shared_redis_url, "AAPL", "MSFT")
        assert len(gateway.journal.errors(309)) > 2
        assert cancels(gateway) == []
    assert {each.outcome for each in report.symbols} == {Outcome.NO_SLOT}
    assert not store.exists("raw:ibkr:depth:venue:AAPL")


async def test_slots_that_other_clients_give_back_are_taken(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        gateway.occupy_slots(3)
        waiting = asyncio.ensure_future(
            probe(gateway, shared_redis_url, "AAPL", "MSFT", ibkr_error309_cooldown_secs=2.0)
        )
        await gateway.wait_for(lambda: gateway.journal.errors(309))
        gateway.occupy_slots(0)
        report = await waiting
    assert report.passed


async def test_slots_of_other_clients_are_not_requested_twice_without_redis(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(slots=1)) as gateway:
        gateway.occupy_slots(1)
        report = await probe(gateway, None, "AAPL", ibkr_max_concurrent_depth=1)
        assert len(gateway.journal.requests("reqMktDepth")) == 1
    assert of(report, "AAPL").outcome is Outcome.NO_SLOT


async def test_probe_beside_an_ingest_checks_contracts_and_venues_and_requests_no_slot(
    shared_redis_url: str, store: redis.Redis
) -> None:
    store.set("raw:ibkr:depth:hb:AAPL", 1_700_000_000_000, ex=60)
    async with SimulatedGateway() as gateway:
        report = await probe(gateway, shared_redis_url, "AAPL", "MSFT")
        assert gateway.journal.requests("reqMktDepth") == []
    assert report.ingest is not None
    assert report.passed
    assert {each.outcome for each in report.symbols} == {Outcome.VENUE_ONLY}
    assert (of(report, "AAPL").l2, of(report, "MSFT").l2) == (True, None)
    assert report.redis is RedisUse.READ_ONLY
    assert not store.exists("raw:ibkr:depth:venue:AAPL")


async def test_ingest_goes_on_undisturbed_beside_a_probe(shared_redis_url: str, store: redis.Redis) -> None:
    async with SimulatedGateway() as gateway:
        settings = settings_for(gateway, shared_redis_url)
        ingest = IngestSession(settings, universe_of("AAPL", "MSFT", "SPY"))
        ingesting = asyncio.ensure_future(ingest.run())
        await gateway.wait_for(lambda: len(store.keys("raw:ibkr:depth:hb:*")) == 3)
        report = await probe(gateway, shared_redis_url, "AAPL", "IBM")
        assert not ingesting.done()
        ingest.stop()
        await ingesting
        assert gateway.journal.errors(309) == []
        assert len(gateway.journal.requests("reqMktDepth")) == 3
    assert [each.outcome for each in report.symbols] == [Outcome.VENUE_ONLY, Outcome.VENUE_ONLY]
    assert "the running ingest has its book" in of(report, "AAPL").reason


async def test_ingest_without_rows_is_detected_by_its_lease(shared_redis_url: str, store: redis.Redis) -> None:
    async with SimulatedGateway(GatewayOptions(silent_symbols=frozenset({"AAPL", "MSFT"}))) as gateway:
        ingest = IngestSession(settings_for(gateway, shared_redis_url), universe_of("AAPL", "MSFT"))
        ingesting = asyncio.ensure_future(ingest.run())
        await gateway.wait_for(lambda: len(gateway.journal.requests("reqMktDepth")) == 2)
        report = await probe(gateway, shared_redis_url, "AAPL", "IBM")
        assert not ingesting.done()
        ingest.stop()
        await ingesting
        assert len(gateway.journal.requests("reqMktDepth")) == 2
    assert {each.outcome for each in report.symbols} == {Outcome.VENUE_ONLY}
    assert report.ingest is not None
    assert "holds the lease" in report.ingest.text
    assert report.redis is RedisUse.READ_ONLY
    assert not store.exists("raw:ibkr:depth:venue:IBM")


async def test_unknown_symbol_and_recorded_refusal_fail_beside_an_ingest(
    shared_redis_url: str, store: redis.Redis
) -> None:
    store.set("raw:ibkr:depth:hb:AAPL", 1_700_000_000_000, ex=60)
    store.hset("raw:ibkr:depth:venue:IBM", mapping={"depth_supported": 0, "reason": "no permission (354)"})
    async with SimulatedGateway() as gateway:
        report = await probe(gateway, shared_redis_url, "AAPL", "IBM", "NOSUCH")
    assert [each.outcome for each in report.symbols] == [Outcome.VENUE_ONLY, Outcome.REFUSED, Outcome.UNRESOLVED]
    assert "no permission (354)" in of(report, "IBM").reason
    assert not report.passed


async def test_probe_yields_to_an_ingest_that_takes_the_slots(shared_redis_url: str, store: redis.Redis) -> None:
    async with SimulatedGateway() as gateway:
        gateway.occupy_slots(3)
        waiting = asyncio.ensure_future(
            probe(gateway, shared_redis_url, "AAPL", ibkr_error309_cooldown_secs=1.0, ibkr_max_concurrent_depth=1)
        )
        await gateway.wait_for(lambda: gateway.journal.errors(309))
        store.set("raw:ibkr:depth:hb:SPY", 1_700_000_000_000, ex=60)
        report = await waiting
    assert of(report, "AAPL").outcome is Outcome.VENUE_ONLY
    assert report.ingest is not None


async def test_unavailable_redis_is_a_warning_without_its_password() -> None:
    async with SimulatedGateway() as gateway:
        settings = settings_for(gateway, AWAY)
        report = await ProbeSession(settings, universe_of("AAPL")).run()
    assert report.passed
    assert report.redis is RedisUse.UNAVAILABLE
    assert report.redis_error
    assert "sesame" not in report.redis_error


async def test_silent_symbol_leaves_its_venue_hash_unchanged(shared_redis_url: str, store: redis.Redis) -> None:
    store.hset("raw:ibkr:depth:venue:AAPL", mapping={"depth_supported": 1, "exchange": "ISLAND"})
    async with SimulatedGateway(GatewayOptions(silent_symbols=frozenset({"AAPL"}))) as gateway:
        report = await probe(gateway, shared_redis_url, "AAPL", ibkr_first_row_secs=0.3)
        await gateway.wait_for(lambda: live_subscriptions(gateway) == 0)
    assert (of(report, "AAPL").outcome, of(report, "AAPL").l2) == (Outcome.SILENT, None)
    assert store.hgetall("raw:ibkr:depth:venue:AAPL") == {"depth_supported": "1", "exchange": "ISLAND"}


async def test_silent_symbol_whose_cancel_is_ignored_leaves_the_slot_to_the_others(
    shared_redis_url: str,
) -> None:
    options = GatewayOptions(slots=1, silent_symbols=frozenset({"AAPL"}), early_cancel=EarlyCancel.LOST)
    async with SimulatedGateway(options) as gateway:
        report = await probe(gateway, shared_redis_url, "AAPL", "MSFT", ibkr_first_row_secs=3.0)
    assert [each.outcome for each in report.symbols] == [Outcome.SILENT, Outcome.DEPTH]


@pytest.mark.parametrize("name", ["ISLAND", "NASDAQ"])
async def test_nasdaq_is_requested_under_the_name_that_the_gateway_lists(shared_redis_url: str, name: str) -> None:
    async with SimulatedGateway(GatewayOptions(nasdaq_name=name)) as gateway:
        report = await probe(gateway, shared_redis_url, "AAPL")
    assert report.passed
    assert (of(report, "AAPL").venue_requested, of(report, "AAPL").primary_exchange) == (name, "NASDAQ")


async def test_symbol_has_no_answer_after_a_broken_connection_and_nothing_is_recorded(
    shared_redis_url: str, store: redis.Redis
) -> None:
    async with SimulatedGateway(GatewayOptions(silent_symbols=frozenset({"AAPL"}))) as gateway:
        probing = asyncio.ensure_future(probe(gateway, shared_redis_url, "AAPL"))
        await gateway.wait_for(lambda: gateway.journal.entries("subscribed"))
        gateway.drop_connections()
        report = await probing
    assert of(report, "AAPL").outcome is Outcome.NO_ANSWER
    assert store.keys("*") == []


async def test_stop_cancels_subscriptions_by_id_and_reports_the_symbols_so_far(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(silent_symbols=frozenset({"AAPL"}))) as gateway:
        session = ProbeSession(settings_for(gateway, shared_redis_url), universe_of("AAPL"))
        probing = asyncio.ensure_future(session.run())
        await gateway.wait_for(lambda: gateway.journal.entries("subscribed"))
        session.stop("SIGINT")
        report = await probing
        await gateway.wait_for(lambda: gateway.journal.entries("closed"))
        assert len(cancels(gateway)) == 1
        assert live_subscriptions(gateway) == 0
    assert report.interrupted_by == "SIGINT"
    assert of(report, "AAPL").outcome is Outcome.INTERRUPTED
    assert not report.passed


async def test_probe_has_its_own_client_id_and_takes_the_next_if_it_is_in_use(
    shared_redis_url: str,
) -> None:
    async with SimulatedGateway() as gateway:
        gateway.hold_client_id(787, 60)
        report = await probe(gateway, shared_redis_url, "AAPL")
    assert report.client_id == 788
    assert report.passed


async def test_error_of_exhausted_client_ids_names_the_setting_of_the_probe(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        gateway.hold_client_id(787, 60)
        with pytest.raises(ClientIdsExhausted, match="IBKR_PROBE_CLIENT_ID"):
            await probe(gateway, shared_redis_url, "AAPL", ibkr_client_id_max_offset=0)


async def test_unreachable_gateway_raises(shared_redis_url: str) -> None:
    async with SimulatedGateway() as gateway:
        settings = settings_for(gateway, shared_redis_url)
    with pytest.raises(GatewayUnavailable):
        await ProbeSession(settings, universe_of("AAPL")).run()


async def test_progress_has_every_symbol_from_the_start_to_its_verdict(shared_redis_url: str) -> None:
    seen: list[Progress] = []
    async with SimulatedGateway() as gateway:
        settings = settings_for(gateway, shared_redis_url)
        report = await ProbeSession(settings, universe_of("AAPL", "MSFT"), on_progress=seen.append).run()
    assert [each.outcome for each in seen[0].symbols] == [Outcome.PENDING, Outcome.PENDING]
    assert seen[-1].symbols == report.symbols


def test_run_probe_works_outside_an_event_loop_and_its_report_is_a_table(shared_redis_url: str) -> None:
    with GatewayThread() as gateway:
        report = run_probe(settings_for(gateway, shared_redis_url), universe_of("AAPL", "NOSUCH"))
    lines = report.as_markdown().splitlines()
    assert lines[0].startswith("| symbol | venue |")
    assert lines[2].startswith("| AAPL | ISLAND | yes | 10 / 10 |")
    assert "FAIL" in lines[3]


async def test_probe_of_the_whole_universe_publishes_its_hours_and_one_of_a_part_does_not(
    shared_redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "symbols.yaml"
    file.write_text("symbols: [SPY, {symbol: QQQ, hours: always}]")
    hours = {"SPY": "20261127:0930-20261127:1300;20261130:CLOSED"}
    async with SimulatedGateway(GatewayOptions(hours=hours)) as gateway:
        await probe(gateway, shared_redis_url, "SPY", symbol_config_path=file)
        assert (await read_hours_of(shared_redis_url, "default")).by_symbol() == {}
        await probe(gateway, shared_redis_url, "SPY", SymbolSpec("QQQ", hours="always"), symbol_config_path=file)
    known = (await read_hours_of(shared_redis_url, "default")).by_symbol()
    assert {symbol: each.label for symbol, each in known.items()} == {"SPY": "liquid", "QQQ": "always"}
    assert known["SPY"].spans == ((1_795_789_800_000, 1_795_802_400_000),)


async def test_probe_publishes_hours_beside_the_heartbeats_of_a_run_that_is_over_and_not_beside_a_held_lease(
    shared_redis_url: str, store: redis.Redis, tmp_path: Path
) -> None:
    file = tmp_path / "symbols.yaml"
    file.write_text("symbols: [SPY]")
    store.set(heartbeat_key("SPY"), 1_700_000_000_000, ex=60)
    options = GatewayOptions(hours={"SPY": "20261127:CLOSED;20261128:0000-20261129:0000"})
    async with SimulatedGateway(options) as gateway:
        report = await probe(gateway, shared_redis_url, "SPY", symbol_config_path=file)
        closed = (await read_hours_of(shared_redis_url, "default")).by_symbol()["SPY"]
        assert report.redis is RedisUse.READ_ONLY
        gateway.close_markets()
        store.set(lease_key("default"), "a run", ex=60)
        await probe(gateway, shared_redis_url, "SPY", symbol_config_path=file)
        assert (await read_hours_of(shared_redis_url, "default")).by_symbol()["SPY"] == closed
        store.delete(lease_key("default"))
        gateway.open_markets()
        options.hours["SPY"] = "20261127:0000-20261129:0000"
        await probe(gateway, shared_redis_url, "SPY", symbol_config_path=file)
    opened = (await read_hours_of(shared_redis_url, "default")).by_symbol()["SPY"]
    assert opened.spans[0][0] < closed.spans[0][0]
