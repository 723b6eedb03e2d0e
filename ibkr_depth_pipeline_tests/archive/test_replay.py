"""Recorded, archived, played back, recorded again: the same sequence of books, snapshot by snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import redis

from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.reading import all_gaps, days, read_day, symbols
from ibkr_depth_pipeline.simulation import GatewayOptions, ReplayOptions, ReplayPace, SimulatedGateway
from ibkr_depth_pipeline.simulation.archive_tape import read_archived
from ibkr_depth_pipeline.simulation.background import gateway_process
from ibkr_depth_pipeline_tests.archive.conftest import Desk
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, universe_of

CHANGES = 2500
HELD: dict[str, Any] = {"ibkr_rotation_secs": 3600}
Books = list[tuple[Any, ...]]


def books_of(desk: Desk) -> dict[str, Books]:
    """The sequence of books that an archive holds, by symbol."""
    store = desk.store
    (day,) = days(store)
    return {symbol: _books(read_day(store, day, symbol)) for symbol in symbols(store, day)}


def _books(table: Any) -> Books:
    names = [f"{side}_{what}" for side in ("bid", "ask") for what in ("price", "size", "venue")]
    return list(zip(*(map(tuple, table[name].to_pylist()) for name in names), strict=True))


@contextmanager
def second(desk: Desk) -> Iterator[Desk]:
    """A second archive, of the same Redis, which is empty by now."""
    with redis.Redis.from_url(desk.settings.redis_url) as store:
        store.flushdb()
    yield replace(desk, settings=desk.settings.model_copy(update={"archive_url": f"{desk.settings.archive_url}-again"}))


def played_back(desk: Desk, **how: Any) -> tuple[ReplayOptions, ...]:
    """Every symbol of the archive's one day."""
    (day,) = days(desk.store)
    folder = Path(desk.settings.archive_url)
    return tuple(
        ReplayOptions(path=folder, symbol=symbol, day=day, pace=ReplayPace.FAST, **how)
        for symbol in symbols(desk.store, day)
    )


async def record(gateway: SimulatedGateway, desk: Desk, counts: Mapping[str, int], **settings: Any) -> None:
    """Record until each symbol has so many snapshots, and keep them."""
    async with recording(gateway, desk.settings.redis_url, universe_of(*counts), **settings) as run:

        async def all_there() -> bool:
            return all([await run.length(symbol) >= count for symbol, count in counts.items()])

        await run.until(all_there)
    await asyncio.to_thread(desk.keep)


async def record_again(desk: Desk, **settings: Any) -> dict[str, Books]:
    """The archive played back, recorded and archived anew; its books."""
    counts = {symbol: len(books) for symbol, books in books_of(desk).items()}
    options = GatewayOptions(replays=played_back(desk), slots=len(counts))
    with second(desk) as again:
        async with SimulatedGateway(options) as gateway:
            held = {**HELD, "ibkr_max_concurrent_depth": len(counts), **settings}
            await record(gateway, again, counts, **held)
        return await asyncio.to_thread(books_of, again)


async def test_real_aapl_book_comes_back_snapshot_by_snapshot(shared_data: Path, desk: Desk) -> None:
    replay = ReplayOptions(path=shared_data / "aapl_2012-06-21_l10.csv.gz", pace=ReplayPace.FAST, limit=CHANGES)
    with second(desk) as first:
        async with SimulatedGateway(GatewayOptions(replays=(replay,))) as gateway:
            async with recording(
                gateway, first.settings.redis_url, universe_of("AAPL"), ibkr_depth_extra_rows=0, **HELD
            ) as run:
                await until_over(gateway, run)
        await asyncio.to_thread(first.keep)
        kept = await asyncio.to_thread(books_of, first)
        assert len(kept["AAPL"]) > CHANGES
        (day,) = await asyncio.to_thread(days, first.store)
        await asyncio.to_thread(compact_day, first.store, day)
        assert await record_again(first, ibkr_depth_extra_rows=0) == kept


async def until_over(gateway: SimulatedGateway, run: Recording) -> None:
    """Wait until the replay has ended and all its rows are in Redis."""

    async def over() -> bool:
        sent = len(gateway.journal.rows())
        return bool(gateway.journal.entries("replay_ended")) and await run.length("AAPL") == sent

    await run.until(over)


async def test_books_with_rows_below_the_tenth_level_come_back_snapshot_by_snapshot(desk: Desk) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=2000)) as gateway:
        await record(gateway, desk, {"AAPL": 3000, "SPY": 3000}, **HELD)
    kept = await asyncio.to_thread(books_of, desk)
    assert await record_again(desk) == kept


async def test_rotating_recording_with_a_reset_comes_back_snapshot_by_snapshot(desk: Desk) -> None:
    names = ("AAPL", "SPY", "MSFT", "IBM")
    fast = {"ibkr_rotation_secs": 0.3, "ibkr_first_row_secs": 2}
    async with SimulatedGateway(GatewayOptions(rows_per_second=500)) as gateway:
        async with recording(gateway, desk.settings.redis_url, universe_of(*names), **fast) as run:
            for _ in range(2):
                for symbol in names:
                    await run.grows(symbol, 50)
            gateway.reset_book("SPY")
            for symbol in names:
                await run.grows(symbol, 50)
    await asyncio.to_thread(desk.keep)
    kept = await asyncio.to_thread(books_of, desk)
    assert set(kept) == set(names)
    assert await record_again(desk) == kept


async def test_client_of_another_depth_gets_the_same_books_some_of_them_twice(desk: Desk) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=2000)) as gateway:
        await record(gateway, desk, {"AAPL": 2000}, **HELD)
    kept = await asyncio.to_thread(books_of, desk)
    again = await record_again(desk, ibkr_depth_extra_rows=2)
    wanted = distinct(kept["AAPL"])
    assert distinct(again["AAPL"]) == wanted[: len(distinct(again["AAPL"]))]


def distinct(books: Books) -> Books:
    """Without those that repeat the one before."""
    return [book for at, book in enumerate(books) if at == 0 or book != books[at - 1]]


async def test_console_script_plays_every_symbol_of_the_day(desk: Desk) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=1000)) as gateway:
        await record(gateway, desk, {"AAPL": 300, "BRK B": 300}, **HELD)
    kept = await asyncio.to_thread(books_of, desk)
    (day,) = await asyncio.to_thread(days, desk.store)
    tapes = [await asyncio.to_thread(read_archived, Path(desk.settings.archive_url), day, name) for name in kept]
    assert [tape.jumps for tape in tapes] == [0, 0]
    arguments = ["--replay-archive", desk.settings.archive_url, "--date", str(day), "--speed", "1000"]
    with second(desk) as again, gateway_process(*arguments) as (host, port):
        where = {"ibkr_host": host, "ibkr_port": port, **HELD}
        counts = {symbol: len(books) for symbol, books in kept.items()}
        async with recording(SimulatedGateway(), again.settings.redis_url, universe_of(*kept), **where) as run:

            async def all_there() -> bool:
                return all([await run.length(symbol) >= count for symbol, count in counts.items()])

            await run.until(all_there)
        await asyncio.to_thread(again.keep)
        assert await asyncio.to_thread(books_of, again) == kept
        assert all_gaps(again.store) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--replay-archive", "."], "give both or neither"),
        (["--date", "2026-01-05"], "give both or neither"),
        (["--replay-archive", ".", "--date", "2026-01-05"], "no snapshots of 2026-01-05"),
    ],
)
def test_unplayable_archive_is_an_error_before_the_gateway_listens(arguments: list[str], told: str) -> None:
    with pytest.raises(RuntimeError, match=told), gateway_process(*arguments):
        pass


def test_day_that_was_never_recorded_is_no_tape(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no snapshots"):
        read_archived(tmp_path, date(2026, 1, 5), "SPY")
