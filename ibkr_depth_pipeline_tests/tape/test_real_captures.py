"""Rows of real order books, recorded by the tap and played again: the same books as live, ending in the real one.

The captures have no licence that would let a tape of them stand in corpus/, so it is made here, at test time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.simulation import GatewayOptions, ReplayOptions, ReplayPace, SimulatedGateway
from ibkr_depth_pipeline.simulation.replay import read_tape
from ibkr_depth_pipeline.tape.player import TapePlayer
from ibkr_depth_pipeline.tape.script import read_scripts
from ibkr_depth_pipeline.universe import SymbolSpec
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, Rows, recording, universe_of
from ibkr_depth_pipeline_tests.tape.tapping import tapped

CHANGES = 500
Levels = tuple[list[tuple[float, float]], list[tuple[float, float]]]


@dataclass(frozen=True)
class Capture:
    """A file of real depth, the universe's entry that records it, and the book that it ends in, by its folder."""

    file: str
    entry: SymbolSpec
    rows_a_side: int
    ends_in: Callable[[Path], Levels]
    limit: int | None = None


def last_state(folder: Path) -> Levels:
    book = read_tape(folder / "aapl_2012-06-21_l10.csv.gz", limit=CHANGES).books[-1]
    bids, asks = ([(level.price, level.size) for level in side] for side in (book.bids, book.asks))
    return bids, asks


def recorded_end(folder: Path) -> Levels:
    final = json.loads((folder / "eurusd_idealpro_2022-02-21_final.json").read_text())["recorded_final_dom"]
    bids, asks = ([(price, size) for price, size in final[side]] for side in ("bids", "asks"))
    return bids, asks


CAPTURES = [
    Capture("aapl_2012-06-21_l10.csv.gz", SymbolSpec("AAPL", hours="always"), 10, last_state, CHANGES),
    Capture(
        "eurusd_idealpro_2022-02-21_rows.csv",
        SymbolSpec("EUR", exchange="IDEALPRO", sec_type="CASH", currency="USD", hours="always"),
        5,
        recorded_end,
    ),
]


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda capture: capture.entry.name)
async def test_tape_of_a_real_book_gives_the_books_that_were_recorded_live_and_ends_in_the_real_one(
    shared_data: Path, redis_url: str, tmp_path: Path, capture: Capture
) -> None:
    symbol, wanted = capture.entry.name, capture.ends_in(shared_data)
    how = {"ibkr_rotation_secs": 3600, "ibkr_depth_rows": capture.rows_a_side, "ibkr_depth_extra_rows": 0}
    replayed = "EUR.USD" if symbol == "EUR" else None
    replay = ReplayOptions(path=shared_data / capture.file, symbol=replayed, pace=ReplayPace.FAST, limit=capture.limit)
    async with SimulatedGateway(GatewayOptions(replays=(replay,))) as gateway:
        async with tapped(gateway.host, gateway.port, tmp_path / "real") as tap:
            async with recording(tap, redis_url, universe_of(capture.entry), **how) as run:  # type: ignore[arg-type]
                await run.until(lambda: all_are_stored(gateway, run, symbol))
                await run.stop()
                live = await books_of(run, symbol)
                await run.redis.flushall()
    assert (named(live[-1][0]), named(live[-1][1])) == wanted
    async with TapePlayer(read_scripts(tmp_path / "real"), "127.0.0.1", 0, speed=0) as player:
        async with recording(player, redis_url, universe_of(capture.entry), **how) as run:  # type: ignore[arg-type]
            await run.until(lambda: holds(run, symbol, len(live)))
            await run.stop()
            assert await books_of(run, symbol) == live


async def all_are_stored(gateway: SimulatedGateway, run: Recording, symbol: str) -> bool:
    is_over = bool(gateway.journal.entries("replay_ended"))
    return is_over and await run.length(symbol) == len(gateway.journal.rows())


async def holds(run: Recording, symbol: str, count: int) -> bool:
    return await run.length(symbol) >= count


async def books_of(run: Recording, symbol: str) -> list[tuple[Any, Any]]:
    return [(snapshot.bids, snapshot.asks) for snapshot in await run.stream(symbol)]


def named(side: Rows) -> list[tuple[float, float]]:
    """The levels that there are."""
    return [(price, size) for price, size, _ in side if size]
