"""Faults on a real socket, seen by a client of nothing but bytes."""

import asyncio

import pytest

from ibkr_depth_pipeline.simulation.distortions import MALFORMED_ROWS
from ibkr_depth_pipeline.simulation.rows import Book, apply_rows
from ibkr_depth_pipeline_tests.simulation.wire_client import WireClient, connected, row_of, rows


async def test_reset_is_a_reset_and_a_close_is_a_close() -> None:
    async with connected() as (gateway, client):
        async with WireClient(gateway.host, gateway.port, client_id=2) as second:
            await second.until_error(2158)
            assert gateway.drop_connections(reset=False, client_id=2) == 1
            assert await second.until_closed() == b""
        assert gateway.drop_connections() == 1
        with pytest.raises(ConnectionResetError):
            await client.until_closed()
        await gateway.wait_for(lambda: not gateway.clients)


async def test_port_refuses_for_a_while_and_listens_again() -> None:
    async with connected() as (gateway, client):
        gateway.refuse_connections(seconds=0.2)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(gateway.host, gateway.port)
        client.send(49, 1)
        await client.until(49)
        await gateway.wait_for(lambda: gateway.journal.counts["listening", ""] == 2)
        async with WireClient(gateway.host, gateway.port, client_id=2) as second:
            await second.until_error(2158)


async def test_muted_connection_is_accepted_and_never_answered() -> None:
    async with connected() as (gateway, _):
        gateway.mute_new_connections()
        async with WireClient(gateway.host, gateway.port, client_id=None) as muted:
            muted.send_bytes(b"API\0\x00\x00\x00\x09v157..176")
            await gateway.wait_for(lambda: len(gateway.clients) == 2)
            gateway.answer_new_connections()
            async with WireClient(gateway.host, gateway.port, client_id=3) as heard:
                await heard.until_error(2158)
            gateway.drop_connections(reset=False)
            assert await muted.until_closed() == b""


async def test_stall_withholds_everything_and_delivers_it_later() -> None:
    async with connected() as (gateway, client):
        gateway.stall()
        client.send(49, 1)
        await gateway.wait_for(lambda: gateway.journal.entries("reply", "currentTime"))
        assert gateway.clients[1].congested
        gateway.resume()
        await client.until(49)
        assert not gateway.clients[1].congested


async def test_books_are_whole_after_a_stall() -> None:
    async with connected(rows_per_second=5000.0) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        await rows(client, 50)
        gateway.stall(seconds=0.1)
        await rows(client, 500)
        state = Book()
        for row in (row_of(fields) for fields in client.received if fields[0] == "12"):
            state = apply_rows(state, [row])


@pytest.mark.parametrize("reset", [False, True])
async def test_message_may_be_cut_in_half_before_the_end(reset: bool) -> None:
    async with connected() as (gateway, client):
        gateway.cut_message(reset=reset)
        if reset:
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await client.until("never")
        else:
            with pytest.raises(asyncio.IncompleteReadError) as cut:
                await client.next()
            assert cut.value.partial


async def test_messages_may_come_in_single_bytes() -> None:
    async with connected() as (gateway, client):
        gateway.dribble()
        client.subscribe(1, "IBM", "NYSE", rows=3)
        assert len(apply_rows(Book(), await rows(client, 6)).bids) == 3


@pytest.mark.parametrize("code", [1100, 1101, 1102, 1300, 2103, 2104, 2105, 2108, 2110, 2152, 10197])
async def test_notices_are_sent_to_everyone_with_request_id_minus_one(code: int) -> None:
    async with connected() as (gateway, client):
        assert gateway.send_error(code) == 1
        assert (await client.until_error(code))[2] == "-1"


async def test_errors_about_a_symbol_carry_the_id_of_its_subscription() -> None:
    async with connected() as (gateway, client):
        client.subscribe(5, "IBM", "NYSE", rows=1)
        await rows(client, 2)
        assert gateway.send_error(10197, "IBM") == 1
        assert (await client.until_error(10197))[2] == "5"


async def test_reset_book_is_317_and_the_book_again() -> None:
    async with connected() as (gateway, client):
        client.subscribe(5, "IBM", "NYSE", rows=2)
        opening = await rows(client, 4)
        gateway.reset_book("IBM")
        await client.until_error(317)
        assert await rows(client, 4) == opening


async def test_halted_symbol_is_316_and_its_slot_is_free() -> None:
    async with connected(slots=1) as (gateway, client):
        client.subscribe(5, "IBM", "NYSE", rows=2)
        await rows(client, 4)
        gateway.halt("IBM")
        await client.until_error(316)
        client.cancel(5)
        await client.until_error(310)
        client.subscribe(6, "IBM", "NYSE", rows=2)
        await rows(client, 4)


async def test_lost_data_ends_every_subscription() -> None:
    async with connected(rows_per_second=2000.0) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        await rows(client, 50)
        gateway.connectivity_lost()
        await client.until_error(1100)
        gateway.connectivity_restored(data_lost=True)
        await client.until_error(1101)
        client.cancel(1)
        await client.until_error(310)
        client.subscribe(2, "IBM", "NYSE")
        await rows(client, 50)


async def test_maintained_data_goes_on_where_it_was() -> None:
    async with connected(rows_per_second=2000.0) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        await rows(client, 50)
        gateway.connectivity_lost()
        await client.until_error(1100)
        client.subscribe(2, "SPY", "ARCA")
        client.send(49, 1)
        await client.until(49)
        gateway.connectivity_restored()
        await client.until_error(1102)
        await client.until(12, 1, 1)
        await client.until(13, 1, 2)


async def test_maintained_data_may_be_silent_until_subscribed_again() -> None:
    async with connected(rows_per_second=2000.0) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        await rows(client, 50)
        gateway.connectivity_lost()
        gateway.connectivity_restored(rows_follow=False)
        await client.until_error(1102)
        client.cancel(1)
        client.subscribe(2, "IBM", "NYSE")
        assert (await client.until(12))[2] == "2"


async def test_quiet_market_answers_requests_and_sends_no_row() -> None:
    async with connected(rows_per_second=2000.0) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        await rows(client, 50)
        gateway.set_rate(0.0, "IBM")
        sent = gateway.journal.row_counts["IBM"]
        for _ in range(100):
            client.send(49, 1)
            await client.until(49)
        assert gateway.journal.row_counts["IBM"] == sent
        gateway.set_rate(2000.0, "IBM")
        await rows(client, 50)
        assert gateway.journal.row_counts["IBM"] > sent


async def test_pushed_row_arrives_as_it_was_written() -> None:
    async with connected() as (gateway, client):
        client.subscribe(5, "IBM", "NYSE", rows=1)
        await rows(client, 2)
        assert gateway.push_row("IBM", position=3, operation=7, side=2, price="nan", size=-5) == 1
        assert await client.until(12, 1, 5, 3) == ["12", "1", "5", "3", "7", "2", "nan", "-5"]
        assert gateway.journal.entries("raw_row")[0].detail["price"] == "nan"


async def test_every_malformed_row_is_sent_to_every_subscription() -> None:
    async with connected() as (gateway, client):
        client.subscribe(5, "AAPL", "ISLAND", rows=1)
        await rows(client, 2)
        assert gateway.malformed_rows() == 1
        sent = [await client.next() for _ in MALFORMED_ROWS]
        assert {tuple(fields[3:9]) for fields in sent} == {
            (row["position"], row["market_maker"], row["operation"], row["side"], row["price"], row["size"])
            for row in MALFORMED_ROWS.values()
        }


async def test_raw_bytes_and_bad_frames_are_sent_as_they_are() -> None:
    async with connected() as (gateway, client):
        client.subscribe(5, "AAPL", "ISLAND", rows=1)
        await rows(client, 2)
        gateway.send_raw("00000002 3900")
        assert await client.next() == ["9"]
        gateway.bad_frame("too_few_fields")
        assert await client.next() == ["12", "1", "5", "0"]
        gateway.bad_frame("absurd_length")
        gateway.drop_connections(reset=False)
        assert await client.until_closed() == b"\x7f\xff\xff\xff"


async def test_burst_of_50000_rows_arrives_whole_and_exact() -> None:
    async with connected() as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        await rows(client, 20)
        burst = asyncio.ensure_future(gateway.burst("IBM", 50_000))
        received = await rows(client, 50_000)
        await burst
        state = apply_rows(Book(), gateway.journal.rows("IBM"))
        assert received == gateway.journal.rows("IBM")[20:50_020]
        assert state.bids[0].price < state.asks[0].price


async def test_client_that_does_not_read_gets_the_sum_of_the_rows_later() -> None:
    async with connected(largest_backlog=20_000, keep_rows=True) as (gateway, client):
        client.subscribe(1, "IBM", "NYSE")
        await rows(client, 20)
        gateway.stall()
        await gateway.burst("IBM", 2_000)
        held = gateway.journal.row_counts["IBM"]
        gateway.resume()
        await gateway.burst("IBM", 1)
        sent = gateway.journal.rows("IBM")
        assert held < 2_000 < 3_000 > len(sent)
        received = await rows(client, len(sent) - 20)
        assert received == sent[20:]
        apply_rows(Book(), sent)
