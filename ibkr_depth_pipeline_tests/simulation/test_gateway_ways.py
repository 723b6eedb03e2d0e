"""What gateways differ in: how rows are worded, what slots are counted by, texts, delays, units of sizes."""

from __future__ import annotations

import pytest

from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.listings import DEPTH_VENUES, KNOWN
from ibkr_depth_pipeline.simulation.market import SyntheticMarket
from ibkr_depth_pipeline.simulation.options import SlotsCount
from ibkr_depth_pipeline.simulation.rows import BID, DELETE, INSERT, UPDATE, Book, BookLevel, RowStyle, rows_of_change
from ibkr_depth_pipeline_tests.simulation.wire_client import WireClient

SPY = next(each for each in KNOWN if each.name == "SPY")


def test_overwriting_insert_replaces_the_row_at_its_position() -> None:
    before = Book((BookLevel(10.1, 1.0), BookLevel(10.0, 2.0)), ())
    after = Book((BookLevel(10.2, 3.0), BookLevel(10.0, 5.0), BookLevel(9.9, 1.0)), ())
    rows = rows_of_change(before, after, RowStyle.OVERWRITE)
    assert [(row.position, row.operation, row.price) for row in rows] == [
        *((1, UPDATE, 10.0), (0, INSERT, 10.2), (2, INSERT, 9.9)),
    ]
    assert [row.operation for row in rows_of_change(after, before, RowStyle.OVERWRITE)] == [UPDATE, INSERT, DELETE]
    assert {row.side for row in rows} == {BID}


def test_sizes_in_lots_are_a_hundredth_of_those_in_shares_and_never_nothing() -> None:
    venue = DEPTH_VENUES["ARCA", "STK"]
    shares = [level.size for level in SyntheticMarket(1, SPY, venue).book.bids]
    lots = [level.size for level in SyntheticMarket(1, SPY, venue, in_lots=True).book.bids]
    assert lots == [max(1, size // 100) for size in shares]


async def test_gateway_words_a_venue_as_the_options_have_it() -> None:
    options = GatewayOptions(row_styles={"*": RowStyle.SHIFT, "NASDAQ": RowStyle.CASCADE}, rows_per_second=2000.0)
    async with SimulatedGateway(options) as gateway, WireClient(gateway.host, gateway.port) as client:
        client.subscribe(1, "SPY", "ARCA")
        client.subscribe(2, "AAPL", "ISLAND")
        await gateway.wait_for(lambda: min(gateway.journal.row_counts[name] for name in ("SPY", "AAPL")) > 400)
    later = {name: {row.operation for row in gateway.journal.rows(name)[20:]} for name in ("SPY", "AAPL")}
    assert later["SPY"] >= {INSERT, DELETE}
    assert later["AAPL"] == {UPDATE}


@pytest.mark.parametrize(("count", "granted"), [(SlotsCount.CONTRACTS, 2), (SlotsCount.SUBSCRIPTIONS, 1)])
async def test_second_subscription_of_a_contract_costs_a_slot_if_slots_count_subscriptions(
    count: SlotsCount, granted: int
) -> None:
    options = GatewayOptions(slots=1, slots_count=count)
    async with SimulatedGateway(options) as gateway, WireClient(gateway.host, gateway.port) as client:
        client.subscribe(1, "SPY", "ARCA")
        client.subscribe(2, "SPY", "BATS")
        await gateway.wait_for(lambda: len(gateway.journal.requests("reqMktDepth")) == 2)
        assert len(gateway.journal.entries("subscribed")) == granted


async def test_error_has_the_text_of_the_options_with_the_id_of_the_request() -> None:
    options = GatewayOptions(texts={310: "no such {request_id}"})
    async with SimulatedGateway(options) as gateway, WireClient(gateway.host, gateway.port) as client:
        client.cancel(7)
        error = await client.until_error(310)
    assert "no such 7" in error


async def test_first_rows_come_as_late_as_their_venue_has_it_and_never_from_a_silent_one() -> None:
    options = GatewayOptions(
        first_row_delay=0.0,
        venue_first_row_delays={"*@ARCA": 0.3, "SPY@ARCA": 0.1},
        silent_symbols=frozenset({"SPY@NASDAQ"}),
        rows_per_second=0.0,
    )
    async with SimulatedGateway(options) as gateway, WireClient(gateway.host, gateway.port) as client:
        client.subscribe(1, "SPY", "ISLAND")
        client.subscribe(2, "IWM", "ARCA")
        client.subscribe(3, "SPY", "ARCA")
        await gateway.wait_for(lambda: gateway.journal.row_counts["IWM"])
        assert gateway.journal.rows(request_id=1) == []
        assert gateway.journal.rows(request_id=3)
    asked = next(entry.at for entry in gateway.journal.requests("reqMktDepth") if entry.detail["reqId"] == "2")
    first = gateway.journal.entries("rows", "IWM")[0].at
    assert first - asked >= 0.3


def test_delay_of_a_place_without_a_venue_is_refused() -> None:
    with pytest.raises(ValueError, match="venue_first_row_delays has 'ARCA'; allowed: SYMBOL@VENUE"):
        GatewayOptions(venue_first_row_delays={"ARCA": 1.0})
