"""Real order books through the simulated gateway, the real client, the recorder and a real Redis: nothing lost."""

from __future__ import annotations

import csv
import gzip
import json
from itertools import islice, pairwise
from pathlib import Path

from ibkr_depth_pipeline.simulation import GatewayOptions, ReplayOptions, ReplayPace, SimulatedGateway
from ibkr_depth_pipeline.simulation.replay import read_tape
from ibkr_depth_pipeline.simulation.rows import rows_of_change, snapshot_rows
from ibkr_depth_pipeline.universe import SymbolSpec
from ibkr_depth_pipeline_tests.end_to_end.recording import Rows, Snapshot, recording, universe_of

CHANGES = 6000


State = tuple[list[tuple[float, float]], list[tuple[float, float]]]


def states_of_file(path: Path, count: int) -> list[State]:
    """The first `count` states of the file: (bids, asks), each ten rows of (price in USD, shares)."""
    with gzip.open(path, "rt", newline="") as file:
        return [
            (
                [(int(line[f"bp{i}"]) / 10_000, float(line[f"bs{i}"])) for i in range(10)],
                [(int(line[f"ap{i}"]) / 10_000, float(line[f"as{i}"])) for i in range(10)],
            )
            for line in islice(csv.DictReader(file), count)
        ]


def levels(rows: Rows) -> list[tuple[float, float]]:
    return [(price, size) for price, size, _ in rows]


def assert_all_in_order(states: list[State], stream: list[Snapshot]) -> None:
    """Each state shows after the one before it. The file has no two equal states in a row, so each has its entry."""
    books = [(levels(snapshot.bids), levels(snapshot.asks)) for snapshot in stream]
    start = 0
    for number, state in enumerate(states):
        try:
            start = books.index(state, start) + 1
        except ValueError:
            raise AssertionError(f"state {number} is not in the stream after entry {start}") from None


async def test_every_state_of_the_real_book_is_in_the_stream_in_order_none_missing_none_twice(
    shared_data: Path, shared_redis_url: str
) -> None:
    path = shared_data / "aapl_2012-06-21_l10.csv.gz"
    states = states_of_file(path, 1 + CHANGES)
    replay = ReplayOptions(path=path, pace=ReplayPace.FAST, limit=CHANGES)
    books = read_tape(path, limit=CHANGES).books
    rows_of_tape = len(snapshot_rows(books[0])) + sum(len(rows_of_change(a, b)) for a, b in pairwise(books))
    async with SimulatedGateway(GatewayOptions(replays=(replay,))) as gateway:
        settings = {"ibkr_rotation_secs": 3600, "ibkr_depth_extra_rows": 0}
        async with recording(gateway, shared_redis_url, universe_of("AAPL"), **settings) as run:

            async def all_is_stored() -> bool:
                return await run.length("AAPL") == rows_of_tape

            await run.until(all_is_stored)
            stream = await run.stream("AAPL")

    assert [snapshot.seq for snapshot in stream] == list(range(1, len(stream) + 1))
    assert len(stream) == len(gateway.journal.rows()), "one snapshot per row that the gateway sent"
    assert_all_in_order(states, stream)
    assert (levels(stream[-1].bids), levels(stream[-1].asks)) == states[-1]


async def test_recorded_eurusd_rows_end_in_the_recorded_book(shared_data: Path, shared_redis_url: str) -> None:
    path = shared_data / "eurusd_idealpro_2022-02-21_rows.csv"
    final = json.loads((shared_data / "eurusd_idealpro_2022-02-21_final.json").read_text())["recorded_final_dom"]
    rows_recorded = len(path.read_text().splitlines()) - 1
    replay = ReplayOptions(path=path, symbol="EUR.USD", pace=ReplayPace.FAST)
    eurusd = SymbolSpec("EUR", exchange="IDEALPRO", sec_type="CASH", currency="USD")
    async with SimulatedGateway(GatewayOptions(replays=(replay,))) as gateway:
        settings = {"ibkr_rotation_secs": 3600, "ibkr_depth_rows": 5, "ibkr_depth_extra_rows": 0}
        async with recording(gateway, shared_redis_url, universe_of(eurusd), **settings) as run:

            async def all_is_stored() -> bool:
                return await run.length("EUR") == rows_recorded + 10  # and the ten that open the book

            await run.until(all_is_stored)
            last = await run.newest("EUR")
    assert len(gateway.journal.rows()) == rows_recorded + 10
    assert levels(last.bids) == [tuple(row) for row in final["bids"]] + [(0.0, 0.0)] * 5
    assert levels(last.asks) == [tuple(row) for row in final["asks"]] + [(0.0, 0.0)] * 5
    assert {venue for _, _, venue in last.bids[:5] + last.asks[:5]} == {"IDEALPRO"}
