"""Replays on a real socket, against the files they play."""

from pathlib import Path

import pytest

from ibkr_depth_pipeline.simulation import (
    AtEnd,
    GatewayOptions,
    ReplayOptions,
    ReplayPace,
    SimulatedGateway,
    TapeError,
    read_tape,
)
from ibkr_depth_pipeline.simulation.rows import Book, apply_rows
from ibkr_depth_pipeline_tests.simulation.wire_client import connected, rows


def fast(path: Path, **options: object) -> tuple[ReplayOptions, ...]:
    return (ReplayOptions(path=path, pace=ReplayPace.FAST, **options),)  # type: ignore[arg-type]


async def test_replay_sends_every_state_of_the_file_in_order(shared_data: Path) -> None:
    path = shared_data / "aapl_2012-06-21_l10.csv.gz"
    async with connected(replays=fast(path, limit=3000)) as (gateway, client):
        client.subscribe(1, "AAPL", "ISLAND", rows=15)
        await gateway.wait_for(lambda: gateway.journal.entries("replay_ended"))
        state, books = Book(), read_tape(path, "NSDQ", limit=3000).books
        sent = gateway.journal.rows("AAPL")
        place = -1
        for row in await rows(client, len(sent)):
            state = apply_rows(state, [row])
            if place + 1 < len(books) and state == books[place + 1]:
                place += 1
        assert place == len(books) - 1 == 3000


async def test_replay_waits_for_its_next_follower_and_goes_on_from_there(shared_data: Path) -> None:
    path = shared_data / "aapl_2012-06-21_l10.csv.gz"
    books = read_tape(path, "NSDQ", limit=400).books
    options = ReplayOptions(path=path, pace=ReplayPace.RATE, rate=1000.0, limit=400)
    async with connected(replays=(options,)) as (gateway, client):
        client.subscribe(1, "AAPL", "ISLAND")
        await rows(client, 100)
        client.cancel(1)
        await gateway.wait_for(lambda: gateway.journal.entries("unsubscribed"))
        first = apply_rows(Book(), gateway.journal.rows(request_id=1))
        assert first in books
        client.subscribe(2, "AAPL", "ISLAND")
        await gateway.wait_for(lambda: gateway.journal.entries("replay_ended"))
        again = gateway.journal.rows(request_id=2)
        assert apply_rows(Book(), again[:20]) == first
        assert apply_rows(Book(), again) == books[-1]


async def test_recorded_rows_go_out_batch_by_batch_as_they_were(shared_data: Path) -> None:
    path = shared_data / "eurusd_idealpro_2022-02-21_rows.csv"
    async with connected(replays=fast(path)) as (gateway, client):
        client.subscribe(1, "EUR", "IDEALPRO", rows=5, sec_type="CASH")
        await gateway.wait_for(lambda: gateway.journal.entries("replay_ended"))
        tape = read_tape(path)
        batches = [entry.rows for entry in gateway.journal.entries("rows")]
        assert batches[1:] == [moment.rows for moment in tape.moments]
        assert apply_rows(Book(), await rows(client, 281)) == tape.books[-1]
        client.send(49, 1)
        await client.until(49)


async def test_replay_may_start_over(shared_data: Path) -> None:
    path = shared_data / "eurusd_idealpro_2022-02-21_rows.csv"
    async with connected(replays=fast(path, at_end=AtEnd.LOOP)) as (_, client):
        client.subscribe(1, "EUR", "IDEALPRO", rows=5, sec_type="CASH")
        apply_rows(Book(), await rows(client, 1000))


async def test_file_that_cannot_be_played_keeps_the_gateway_from_starting(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match="no such file"):
        async with SimulatedGateway(GatewayOptions(replays=fast(tmp_path / "spy_x.csv"))):
            pass
    nameless = tmp_path / "nosuch_x.csv"
    nameless.write_text("batch")
    with pytest.raises(TapeError, match="no contract is called nosuch"):
        async with SimulatedGateway(GatewayOptions(replays=fast(nameless))):
            pass
