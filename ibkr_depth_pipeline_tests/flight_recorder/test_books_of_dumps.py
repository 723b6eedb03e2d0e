"""Whenever a tape is dumped, the rows on it make exactly the books that were stored: by the reference book."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.book.order_book import OrderBook
from ibkr_depth_pipeline.gateway.wire import read_depth
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.sink.dump_requests import ask_for_dump
from ibkr_depth_pipeline.tape.files import LinkEvent, Read, read_entries
from ibkr_depth_pipeline.tape.messages import message_of
from ibkr_depth_pipeline_tests.flight_recorder.dumping import flown

SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "MSFT")
CON_IDS = {"756733": "SPY", "320227571": "QQQ", "9579970": "IWM", "265598": "AAPL", "272093": "MSFT"}
DEPTH_ROWS = 15
Stored = dict[str, list[tuple[Any, Any]]]


class TapedBooks:
    """The books that the entries of a tape make; `stored` are those that the recorder stored, by symbol."""

    def __init__(self, entries: Iterator[Any]) -> None:
        self.made: dict[str, list[tuple[Any, Any]]] = {symbol: [] for symbol in SYMBOLS}
        self.seeded: dict[str, int] = {}
        self._books: dict[str, tuple[str, OrderBook]] = {}
        for entry in entries:
            if isinstance(entry, LinkEvent) and entry.name == "resumed":
                self.seeded = {line["symbol"]: line["seq"] for line in entry.detail["lines"]}
            elif isinstance(entry, Read):
                for message in entry.messages:
                    self._take(message, is_made_up=not entry.size)

    def _take(self, message: Any, *, is_made_up: bool) -> None:
        kind = message[0] if isinstance(message, list) else ""
        if kind == "10" and message[3] in CON_IDS and message[1] == "5":
            self._books[message[2]] = CON_IDS[message[3]], OrderBook(DEPTH_ROWS, message[10])
        elif kind == "11":
            self._books.pop(message[2], None)
        elif kind in ("12", "13") and message[2] in self._books:
            symbol, book = self._books[message[2]]
            read = read_depth(message_of(message))
            assert isinstance(read, tuple)
            assert book.apply(read[1]) is None
            if not is_made_up:
                self.made[symbol].append((shown(book.bids), shown(book.asks)))


def shown(side: Any) -> list[list[Any]]:
    levels = [list(level) for level in side[:SNAPSHOT_LEVELS]]
    return levels + [[0.0, 0.0, ""]] * (SNAPSHOT_LEVELS - len(levels))


def check(tape: Path, live: Stored) -> int:
    """The books of a tape are a stretch of those that were stored, from where they were seeded. Returns how many."""
    taped = TapedBooks(read_entries(tape))
    for symbol, made in taped.made.items():
        if made and symbol in taped.seeded:
            begin = taped.seeded[symbol]
            assert made == live[symbol][begin : begin + len(made)], symbol
        elif made:
            assert any(made == live[symbol][at : at + len(made)] for at in range(len(live[symbol]))), symbol
    return sum(map(len, taped.made.values()))


async def dumped_meanwhile(redis_url: str, folder: Path, rate: float, dumps: int, **settings: Any) -> tuple[int, int]:
    """Records five symbols in turns while tapes are dumped, and checks each. Returns rows on tapes and seeded lines."""
    async with SimulatedGateway(GatewayOptions(rows_per_second=rate)) as gateway:
        async with flown(gateway, redis_url, folder, *SYMBOLS, ibkr_rotation_secs=0.7, **settings) as run:
            for symbol in SYMBOLS:
                await run.grows(symbol, 50)
            tapes = []
            for _ in range(dumps):
                tapes.append(Path((await ask_for_dump(redis_url, "default", "a test")).path))
                await asyncio.sleep(0.3)  # another place in the turn
            await run.stop()
            live = {symbol: [(each.bids, each.asks) for each in await run.stream(symbol)] for symbol in SYMBOLS}
    seeded = sum(len(TapedBooks(read_entries(tape)).seeded) for tape in tapes)
    return sum(check(tape, live) for tape in tapes), seeded


async def test_books_of_tapes_of_a_rotation_are_those_that_were_stored(redis_url: str, tmp_path: Path) -> None:
    rows, seeded = await dumped_meanwhile(redis_url, tmp_path, 300.0, 2)
    assert rows > 200
    assert seeded


@pytest.mark.faults
@pytest.mark.parametrize(("bound", "minutes"), [(1 << 20, 1.0), (1 << 26, 0.05)], ids=["by bytes", "by time"])
async def test_books_of_many_tapes_of_a_busy_rotation_are_those_that_were_stored(
    redis_url: str, tmp_path: Path, bound: int, minutes: float
) -> None:
    settings = {"ibkr_flight_recorder_bytes": bound, "ibkr_flight_recorder_minutes": minutes}
    rows, seeded = await dumped_meanwhile(redis_url, tmp_path, 1500.0, 6, **settings)
    assert rows > 10_000
    assert seeded >= 6
