"""Depth on a real socket, seen by a client of nothing but bytes."""

import asyncio

from ibkr_depth_pipeline.simulation import EarlyCancel, GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.simulation.rows import Book, WireRow, apply_rows
from ibkr_depth_pipeline_tests.simulation.wire_client import STILL, WireClient, connected, row_of, rows


async def test_subscription_opens_with_the_book_as_inserts() -> None:
    async with connected() as (gateway, client):
        client.subscribe(1, "IBM", "NYSE", rows=10)
        opening = await rows(client, 20)
        book = apply_rows(Book(), opening)
        assert len(book.bids) == len(book.asks) == 10
        assert gateway.journal.rows("IBM") == opening


async def test_number_of_rows_asked_for_is_honoured() -> None:
    async with connected(rows_per_second=2000.0) as (_, client):
        client.subscribe(1, "AAPL", "ISLAND", rows=4)
        received = await rows(client, 500)
        assert {row.position for row in received} == {0, 1, 2, 3}
        state = Book()
        for row in received:
            state = apply_rows(state, [row])
            assert max(map(len, state)) <= 4


async def test_rows_received_are_those_in_the_journal() -> None:
    async with connected(rows_per_second=5000.0) as (gateway, client):
        client.subscribe(1, "SPY", "ARCA")
        client.subscribe(2, "IBM", "NYSE")
        await rows(client, 2000)
        for request_id, name in (("1", "SPY"), ("2", "IBM")):
            received = [
                row_of(fields) for fields in client.received if fields[0] in ("12", "13") and fields[2] == request_id
            ]
            sent = [row if name == "SPY" else row._replace(market_maker="") for row in gateway.journal.rows(name)]
            assert received == sent[: len(received)]
            assert len(received) > 100


async def test_two_followers_of_one_book_get_the_same_rows() -> None:
    async with connected(rows_per_second=2000.0) as (gateway, first):
        first.subscribe(1, "IBM", "NYSE")
        await rows(first, 300)
        async with WireClient(gateway.host, gateway.port, client_id=2) as second:
            second.subscribe(1, "IBM", "NYSE")
            await rows(second, 300)
            gateway.set_rate(0.0)
            books = [apply_rows(Book(), entry_rows(gateway, number)) for number in (1, 2)]
        assert books[0] == books[1]


def entry_rows(gateway: SimulatedGateway, connection: int) -> list[WireRow]:
    return [row for entry in gateway.journal.entries("rows", connection=connection) for row in entry.rows]


async def test_rows_end_with_the_cancel() -> None:
    async with connected(rows_per_second=5000.0) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        await rows(client, 100)
        client.cancel(1)
        await gateway.wait_for(lambda: gateway.journal.entries("unsubscribed"))
        sent = gateway.journal.row_counts["IBM"]
        client.send(49, 1)
        await client.until(49)
        assert gateway.journal.row_counts["IBM"] == sent


async def opened_again(gateway: SimulatedGateway, client: WireClient) -> tuple[Book, Book]:
    """The book that a client held when it cancelled, and the one that it is shown some 100 rows later."""
    client.subscribe(1, "IBM", "NYSE", rows=10)
    await rows(client, 100)
    client.cancel(1)
    await gateway.wait_for(lambda: gateway.journal.entries("unsubscribed"))
    held = apply_rows(Book(), gateway.journal.rows("IBM"))
    left, sent = asyncio.get_running_loop().time(), gateway.journal.row_counts["IBM"]
    await gateway.wait_for(lambda: asyncio.get_running_loop().time() > left + 0.1)
    client.subscribe(2, "IBM", "NYSE", rows=10)
    await gateway.wait_for(lambda: gateway.journal.row_counts["IBM"] >= sent + 20)
    return held, apply_rows(Book(), gateway.journal.rows("IBM")[sent : sent + 20])


async def test_market_goes_on_while_nobody_is_subscribed() -> None:
    async with connected(rows_per_second=1000.0) as (gateway, client):
        held, opening = await opened_again(gateway, client)
        assert held != opening


async def test_market_stands_still_while_nobody_is_subscribed_if_asked_to() -> None:
    async with connected(rows_per_second=1000.0, markets_stand_still=True) as (gateway, client):
        held, opening = await opened_again(gateway, client)
        assert held == opening


async def test_rows_may_go_on_for_a_while_after_a_cancel() -> None:
    async with connected(rows_per_second=5000.0, rows_after_cancel=0.2) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        await rows(client, 20)
        client.cancel(1)
        await gateway.wait_for(lambda: gateway.journal.entries("unsubscribed"))
        sent = gateway.journal.row_counts["IBM"]
        await gateway.wait_for(lambda: gateway.journal.row_counts["IBM"] > sent)


async def test_early_cancel_is_lost_over_the_wire_too() -> None:
    async with connected(first_row_delay=0.1, early_cancel=EarlyCancel.LOST) as (_, client):
        client.subscribe(1, "IBM", "NYSE", rows=1)
        client.cancel(1)
        await rows(client, 2)
        client.cancel(1)
        assert (await client.until_error(310))[2] == "1"


async def test_silent_symbol_is_accepted_and_gets_no_row() -> None:
    async with connected(silent_symbols=frozenset({"IBM"})) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        client.subscribe(2, "SPY", "ARCA", rows=1)
        await rows(client, 2)
        assert gateway.journal.row_counts == {"SPY": 2}
        client.cancel(1)
        client.cancel(1)
        await client.until_error(310)


async def test_latency_holds_back_everything_in_order() -> None:
    async with connected(latency=0.05, rows_per_second=500.0) as (_, client):
        client.subscribe(1, "IBM", "NYSE", rows=2)
        client.send(49, 1)
        received = await rows(client, 100)
        assert apply_rows(Book(), received[:4])
        assert any(fields[0] == "49" for fields in client.received)


async def test_older_clients_are_spoken_to_in_their_version() -> None:
    async with (
        SimulatedGateway(GatewayOptions(**STILL)) as gateway,  # type: ignore[arg-type]
        WireClient(gateway.host, gateway.port, versions="v100..145") as client,
    ):
        assert client.version == 145
        assert len(await client.until_error(2104)) == 5


async def test_connection_that_is_no_api_client_is_hung_up_on() -> None:
    async with (
        SimulatedGateway() as gateway,
        WireClient(gateway.host, gateway.port, client_id=None) as stranger,
    ):
        stranger.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
        assert await stranger.until_closed() == b""


async def test_slots_are_changed_stolen_and_given_back_at_run_time() -> None:
    async with connected() as (gateway, client):
        gateway.set_slots(1)
        gateway.occupy_slots(1)
        client.subscribe(1, "IBM", "NYSE")
        assert (await client.until_error(309))[2] == "1"
        gateway.occupy_slots(0)
        client.subscribe(2, "IBM", "NYSE")
        await rows(client, 20)


async def test_held_client_id_is_refused_and_closed() -> None:
    async with connected() as (gateway, _):
        gateway.hold_client_id(9, seconds=60)
        async with WireClient(gateway.host, gateway.port, client_id=9) as refused:
            await refused.until_error(326)
            assert await refused.until_closed() == b""


async def test_permissions_come_and_go_at_run_time() -> None:
    async with connected() as (gateway, client):
        gateway.refuse("IBM", 354)
        client.subscribe(1, "IBM", "NYSE")
        await client.until_error(354)
        gateway.allow("IBM")
        client.subscribe(2, "IBM", "NYSE")
        await rows(client, 20)
