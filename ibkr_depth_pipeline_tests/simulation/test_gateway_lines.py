"""Lines that die without a word or get out of step, over a real socket, and the sound lines after them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ib_insync import IB, Stock
from ib_insync.client import Client
from ib_insync.wrapper import Wrapper

from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline.simulation.distortions import UNREADABLE_ROWS
from ibkr_depth_pipeline.simulation.rows import DELETE, INSERT, UPDATE, Book, BookLevel, WireRow, apply_rows
from ibkr_depth_pipeline_tests.simulation.wire_client import WireClient, connected, rows

VENUES = pytest.mark.parametrize("venue", ["NYSE", "ARCA", "ISLAND"])
"""One that sends shifting rows without names, one that sends updates in place, one that names market makers."""


def held(sent: list[WireRow], depth: int = 10) -> Book:
    """What a client holds after the rows, if it drops those that do not fit."""
    book = Book()
    for row in sent:
        try:
            book = apply_rows(book, [row]).clipped(depth)
        except IndexError:
            continue
    return book


def own_book(gateway: SimulatedGateway, symbol: str, venue: str) -> Book:
    return gateway.feeds[symbol, venue].book.clipped(10)


async def subscribed(gateway: SimulatedGateway, client: WireClient, venue: str, request_id: int = 1) -> None:
    client.subscribe(request_id, "IBM", venue)
    await gateway.wait_for(lambda: gateway.journal.rows("IBM", request_id))


async def some_rows(gateway: SimulatedGateway, count: int = 200) -> None:
    await gateway.burst("IBM", count)


async def resubscribed(gateway: SimulatedGateway, client: WireClient, venue: str) -> list[WireRow]:
    """The rows of a second line, after some changes of the book."""
    client.cancel(1)
    await subscribed(gateway, client, venue, request_id=2)
    await some_rows(gateway)
    return gateway.journal.rows("IBM", 2)


async def test_line_dies_without_a_word_and_holds_its_slot() -> None:
    async with connected(slots=1) as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        before = gateway.journal.row_counts["IBM"]
        gateway.die("IBM")
        await some_rows(gateway)
        assert gateway.journal.row_counts["IBM"] == before
        client.subscribe(9, "JPM", "NYSE")
        await client.until_error(309)
        assert len(await resubscribed(gateway, client, "NYSE")) > 100


async def test_line_may_die_more_than_once() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        gateway.die("IBM", times=2)
        assert len(await resubscribed(gateway, client, "NYSE")) == 20  # its opening book alone
        client.cancel(2)
        await subscribed(gateway, client, "NYSE", request_id=3)
        await some_rows(gateway)
        assert len(gateway.journal.rows("IBM", 3)) > 100


async def test_next_subscriptions_are_accepted_and_never_get_a_row() -> None:
    async with connected(slots=9, dead_subscriptions={"JPM": 1}) as (gateway, client):
        gateway.die_on_subscribe("IBM", times=2)
        for request_id, symbol in enumerate(["IBM", "IBM", "JPM"], start=1):
            client.subscribe(request_id, symbol, "NYSE")
        client.subscribe(4, "IBM", "NYSE")
        client.subscribe(5, "JPM", "NYSE")
        await gateway.wait_for(lambda: gateway.journal.rows("IBM", 4) and gateway.journal.rows("JPM", 5))
        assert {entry.detail["request_id"] for entry in gateway.journal.entries("rows")} == {4, 5}
        assert len(gateway.journal.entries("dead")) == 3


def is_doubled(book: Book, own: Book) -> bool:
    return book.bids == own.bids[:5] * 2 and book.asks == own.asks


def is_crossed(book: Book, own: Book) -> bool:
    return book.bids[0].price > book.asks[0].price and book.bids[1:] == own.bids[1:]


def is_unsorted(book: Book, own: Book) -> bool:
    return all(
        shown[0] == sound[0]
        and sorted(shown) == sorted(sound)
        and [level.price for level in shown] != [level.price for level in sound]
        for shown, sound in zip(book, own, strict=True)
    )


@VENUES
@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        (lambda gateway: gateway.double_side("IBM"), is_doubled),
        (lambda gateway: gateway.cross("IBM"), is_crossed),
        (lambda gateway: gateway.unsort("IBM"), is_unsorted),
    ],
    ids=["double_side", "cross", "unsort"],
)
async def test_book_out_of_step_stays_so_until_the_line_is_asked_for_again(
    venue: str, fault: Callable[[SimulatedGateway], None], shown: Callable[[Book, Book], bool]
) -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, venue)
        fault(gateway)
        assert shown(held(gateway.journal.rows("IBM")), own_book(gateway, "IBM", venue))
        await some_rows(gateway)
        assert shown(held(gateway.journal.rows("IBM")), own_book(gateway, "IBM", venue))
        assert held(await resubscribed(gateway, client, venue)) == own_book(gateway, "IBM", venue)
        (entry,) = gateway.journal.entries("out_of_step", "IBM")
        assert entry.detail["request_id"] == 1


async def test_doubled_side_comes_as_inserts() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        before = len(gateway.journal.rows())
        gateway.double_side("IBM", "ask")
        extra = gateway.journal.rows()[before:]
        assert [(row.position, row.operation, row.side) for row in extra] == [(i, INSERT, 0) for i in range(5)]
        assert await rows(client, before + 5) == gateway.journal.rows()


async def test_crossed_book_is_sound_again_after_its_time() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        gateway.cross("IBM", seconds=0.05)
        await gateway.wait_for(lambda: held(gateway.journal.rows("IBM")) == own_book(gateway, "IBM", "NYSE"))
        await some_rows(gateway)
        assert held(gateway.journal.rows("IBM")) == own_book(gateway, "IBM", "NYSE")


async def test_extra_delete_leaves_the_side_short() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        gateway.extra_delete("IBM", "ask")
        own = own_book(gateway, "IBM", "NYSE")
        assert held(gateway.journal.rows("IBM")) == Book(own.bids, own.asks[1:])
        assert held(await resubscribed(gateway, client, "NYSE")) == own_book(gateway, "IBM", "NYSE")


@VENUES
async def test_lost_row_leaves_the_book_wrong(venue: str) -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, venue)
        gateway.lose_row("IBM")
        distortion = gateway.feeds["IBM", venue].followers[0].distortion
        assert distortion is not None
        while not distortion.over:
            assert held(gateway.journal.rows("IBM")) == own_book(gateway, "IBM", venue)
            await some_rows(gateway, 1)
        assert held(gateway.journal.rows("IBM")) != own_book(gateway, "IBM", venue)
        assert held(await resubscribed(gateway, client, venue)) == own_book(gateway, "IBM", venue)


async def test_book_stands_still_while_rows_go_on() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        gateway.freeze_book("IBM")
        still, before = own_book(gateway, "IBM", "NYSE"), gateway.journal.row_counts["IBM"]
        await some_rows(gateway)
        assert held(gateway.journal.rows("IBM")) == still != own_book(gateway, "IBM", "NYSE")
        assert gateway.journal.row_counts["IBM"] > before + 50


async def test_updates_past_the_end_come_as_often_as_requested() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        before = len(gateway.journal.rows())
        gateway.updates_past_end("IBM", count=3)
        extra = gateway.journal.rows()[before:]
        assert [(row.position, row.operation, row.side) for row in extra] == [(10, UPDATE, 1)] * 3
        await some_rows(gateway)
        assert held(gateway.journal.rows("IBM")) == own_book(gateway, "IBM", "NYSE")


async def test_reset_makes_a_line_sound() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        gateway.unsort("IBM")
        before = len(gateway.journal.rows())
        gateway.reset_book("IBM")
        await some_rows(gateway)
        assert held(gateway.journal.rows()[before:]) == own_book(gateway, "IBM", "NYSE")


async def test_fault_waits_for_the_next_line_if_there_is_none() -> None:
    async with connected() as (gateway, client):
        gateway.unsort("IBM")
        await subscribed(gateway, client, "NYSE")
        assert is_unsorted(held(gateway.journal.rows("IBM")), own_book(gateway, "IBM", "NYSE"))


@pytest.mark.parametrize("operation", ["insert", "update", "delete"])
@pytest.mark.parametrize("how", sorted(UNREADABLE_ROWS))
async def test_row_of_the_book_is_sent_unreadable(operation: str, how: str) -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "ARCA")
        gateway.unreadable_row("IBM", operation, how)
        await some_rows(gateway, 300)
        (spoiled,) = gateway.journal.entries("raw_row")
        assert {name: spoiled.detail[name] for name in UNREADABLE_ROWS[how]} == UNREADABLE_ROWS[how]
        if "operation" not in UNREADABLE_ROWS[how]:
            assert spoiled.detail["operation"] == str({"insert": INSERT, "update": UPDATE, "delete": DELETE}[operation])


async def test_name_in_latin_1_arrives_as_such_bytes() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        await rows(client, 20)
        gateway.unreadable_row("IBM", "update", "latin1_name")
        await some_rows(gateway)
        with pytest.raises(UnicodeDecodeError) as undecodable:
            await client.until("never")
        assert b"\0M\xdcLL\0" in undecodable.value.object


async def test_unknown_way_of_being_unreadable_is_refused() -> None:
    async with connected() as (gateway, _):
        with pytest.raises(KeyError, match="upside_down"):
            gateway.unreadable_row("IBM", "insert", "upside_down")


async def test_size_of_2147483647_is_a_size() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "ISLAND")
        gateway.push_row("IBM", size=2147483647)
        assert (await rows(client, 21))[-1].size == 2147483647.0


async def test_dead_lines_after_1100_are_cured_by_a_request() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        gateway.connectivity_lost(dead_lines=True)
        await client.until_error(1100)
        before = gateway.journal.row_counts["IBM"]
        await some_rows(gateway)
        assert gateway.journal.row_counts["IBM"] == before
        assert len(await resubscribed(gateway, client, "NYSE")) > 100


async def test_dead_lines_after_1100_may_be_cured_by_a_new_connection_alone() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        gateway.connectivity_lost(dead_lines=True, requests_help=False)
        client.subscribe(2, "IBM", "NYSE")
        await gateway.wait_for(lambda: gateway.journal.counts["subscribed", "IBM"] == 2)
        async with WireClient(gateway.host, gateway.port, client_id=2) as other:
            await subscribed(gateway, other, "NYSE", request_id=3)
        assert not gateway.journal.rows("IBM", 2)


async def test_error_is_repeated() -> None:
    async with connected() as (gateway, client):
        assert gateway.repeat_error(10197, times=240) == 240
        for _ in range(240):
            await client.until_error(10197)


async def test_permissions_are_sent_with_the_id_of_the_request() -> None:
    async with connected(venue_refusals={"*@ISLAND": 354}) as (gateway, client):
        assert gateway.notify_permissions() == 1
        assert (await client.until_error(2152))[2] == "-1"
        await subscribed(gateway, client, "NYSE", request_id=7)
        gateway.notify_permissions()
        fields = await client.until_error(2152)
        assert fields[2] == "7"
        assert fields[4].startswith("Exchanges - Depth: IEX; BATS; ARCA; BEX; NYSE; Top: BYX; ")
        assert "Need additional market data permissions - Depth: NASDAQ; " in fields[4]


async def test_ib_insync_reads_a_line_out_of_step_as_it_was_sent() -> None:
    async with connected() as (gateway, _):
        received: list[WireRow] = []

        class Recorder(Wrapper):
            def updateMktDepth(
                self, reqId: int, position: int, operation: int, side: int, price: float, size: float
            ) -> None:
                received.append(WireRow(position, operation, side, price, size))

        client = Client(Recorder(IB()))
        await client.connectAsync(gateway.host, gateway.port, 5)
        client.reqMktDepth(1, Stock("IBM", "NYSE", "USD"), 10, False, [])
        await gateway.wait_for(lambda: received)
        gateway.unsort("IBM")
        gateway.extra_delete("IBM")
        await some_rows(gateway)
        await gateway.wait_for(lambda: len(received) == len(gateway.journal.rows("IBM")))
        assert received == gateway.journal.rows("IBM")
        assert [BookLevel(row.price, row.size) for row in received[:1]] == [BookLevel(*gateway.journal.rows()[0][3:5])]
        client.disconnect()
        await gateway.wait_for(lambda: len(gateway.clients) == 1)


async def test_rows_of_a_cancelled_line_go_on_for_a_while() -> None:
    async with connected() as (gateway, client):
        await subscribed(gateway, client, "NYSE")
        gateway.set_rows_after_cancel(60.0)
        client.cancel(1)
        await gateway.wait_for(lambda: gateway.journal.entries("unsubscribed"))
        before = gateway.journal.row_counts["IBM"]
        await some_rows(gateway)
        assert gateway.journal.row_counts["IBM"] > before
