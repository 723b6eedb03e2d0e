"""The reader and the examples beside a real recording: simulated gateway, ib_insync, ingest, Redis."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ibkr_depth_pipeline.reader import After, AsyncDepthReader, At, DepthSnapshot, IntervalEnded, IntervalStarted
from ibkr_depth_pipeline.simulation import SimulatedGateway
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, recording, universe_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
async def run(shared_redis_url: str) -> AsyncIterator[Recording]:
    async with SimulatedGateway() as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ"), ibkr_rotation_secs=1) as run:
            await run.grows("SPY")
            await run.grows("QQQ")
            yield run


@pytest.fixture
async def rotation(shared_redis_url: str) -> AsyncIterator[Recording]:
    """Four symbols, which take turns in three slots."""
    async with SimulatedGateway() as gateway:
        universe = universe_of("SPY", "QQQ", "AAPL", "MSFT")
        async with recording(gateway, shared_redis_url, universe, ibkr_rotation_secs=0.3) as run:
            for symbol in ("SPY", "QQQ", "AAPL", "MSFT"):
                await run.grows(symbol)
            yield run


@asynccontextmanager
async def example(name: str, redis_url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {**os.environ, "REDIS_URL": redis_url, "PYTHONWARNINGS": "error"}
    # as a script starts it in the background
    words = ["/bin/sh", "-c", "trap '' INT QUIT; exec \"$@\"", "sh", sys.executable, str(EXAMPLES / name), "SPY", "QQQ"]
    process = await asyncio.create_subprocess_exec(*words, env=env, stdout=-1, stderr=-1)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_followed_is_what_was_stored_none_missing_none_twice(run: Recording, shared_redis_url: str) -> None:
    async with AsyncDepthReader(shared_redis_url) as reader:
        found: dict[str, list[DepthSnapshot]] = {"SPY": [], "QQQ": []}
        async for item in reader.follow("SPY", "QQQ", start=At(0)):
            assert isinstance(item, DepthSnapshot), f"nothing is lost here, but: {item}"
            found[item.symbol].append(item)
            if min(map(len, found.values())) >= 300:
                break
        for symbol, books in found.items():
            stored = (await run.stream(symbol))[: len(books)]
            assert [book.seq for book in books] == list(range(1, len(books) + 1))
            assert [[list(level) for level in book.bids] for book in books] == [each.bids for each in stored]
            assert [[list(level) for level in book.asks] for book in books] == [each.asks for each in stored]
            assert [(book.ts, book.venue) for book in books] == [(each.ts, each.venue) for each in stored]
            assert (await reader.follow(symbol, start=After(100)).read())[0] == books[100]


async def test_recorded_symbol_has_its_venue_and_its_heartbeat(run: Recording, shared_redis_url: str) -> None:
    async with AsyncDepthReader(shared_redis_url) as reader:

        async def beats() -> object:
            return await reader.heartbeat("SPY")

        await run.until(beats)
        venue = await reader.venue("SPY")
        assert venue is not None
        assert (venue.exchange, venue.depth_supported) == ("ARCA", True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_imbalance_example_prints_it_live(run: Recording, shared_redis_url: str, number: signal.Signals) -> None:
    line = re.compile(r"\d\d:\d\d:\d\d\.\d{6} (SPY|QQQ) +[\d.]+ x [\d.]+ +[\d.]+ x [\d.]+ +([+-][01]\.\d\d)\n")
    async with example("imbalance.py", shared_redis_url) as process:
        assert process.stdout is not None
        seen: set[str] = set()
        while seen != {"SPY", "QQQ"}:
            text = (await process.stdout.readline()).decode()
            match = line.fullmatch(text)
            assert match, text or (await process.communicate())[1].decode()
            assert -1 <= float(match[2]) <= 1
            seen.add(match[1])
        process.send_signal(number)
        _, errors = await process.communicate()
        assert errors == b""
        assert process.returncode == 0


async def test_last_minutes_example_prints_two_frames(run: Recording, shared_redis_url: str) -> None:
    pytest.importorskip("polars")
    async with example("last_minutes.py", shared_redis_url) as process:
        output, errors = await process.communicate()
        assert errors == b""
        assert process.returncode == 0
        text = output.decode()
        assert "shape: (" in text
        assert "spread" in text
        assert "SPY" in text
        assert "QQQ" in text


@pytest.mark.parametrize("name", ["imbalance.py", "last_minutes.py"])
async def test_example_without_a_redis_names_the_setting(name: str) -> None:
    if name == "last_minutes.py":
        pytest.importorskip("polars")
    async with example(name, "redis://127.0.0.1:1/0") as process:
        _, errors = await process.communicate()
        assert process.returncode == 1
        assert re.fullmatch(
            r"Redis at 127\.0\.0\.1:1: .*: set REDIS_URL to the one that `make run` prints\n", errors.decode()
        )


async def test_recorded_turns_are_followed_in_their_order_and_cover_every_snapshot(
    rotation: Recording, shared_redis_url: str
) -> None:
    async with AsyncDepthReader(shared_redis_url) as reader:
        open_one: dict[str, int | None] = dict.fromkeys(await reader.symbols())
        ended: dict[str, list[int]] = {symbol: [] for symbol in open_one}
        async for item in reader.follow(start=1, intervals=True):
            match item:
                case IntervalStarted(interval):
                    assert open_one[item.symbol] is None
                    open_one[item.symbol] = interval.subscription
                case IntervalEnded(interval):
                    assert open_one[item.symbol] == interval.subscription
                    open_one[item.symbol] = None
                    ended[item.symbol].append(interval.subscription)
                case DepthSnapshot():
                    assert (item.subscription, item.observed) == (open_one[item.symbol], True)
                case _:
                    raise AssertionError(f"nothing is lost here, but: {item}")
            if all(len(numbers) >= 2 for numbers in ended.values()):
                break
        assert all(numbers == sorted(set(numbers)) for numbers in ended.values())
        books, intervals = await reader.range("SPY"), await reader.intervals("SPY")
        for interval in intervals:
            of_turn = [book for book in books if book.subscription == interval.subscription]
            if not interval.open:
                assert [book.seq for book in of_turn] == list(
                    range(interval.first_seq or 0, (interval.last_seq or 0) + 1)
                )
                assert not any(book.settled for book in of_turn if book.ts < (interval.complete or book.ts + 1))


async def test_recorded_turns_make_bars_that_are_null_between_them(rotation: Recording, shared_redis_url: str) -> None:
    pytest.importorskip("pyarrow")
    async with AsyncDepthReader(shared_redis_url) as reader:

        async def three_turns() -> bool:
            return len([each for each in await reader.intervals("SPY") if not each.open]) >= 3

        await rotation.until(three_turns)
        bars = (await reader.resample("100ms", "SPY", form="arrow")).to_pylist()
    between = [bar for bar in bars if bar["observed"] == 0]
    assert between
    assert {bar["close"] for bar in between} == {None}
    assert any(bar["close"] is not None and bar["observed"] == 1 for bar in bars)
