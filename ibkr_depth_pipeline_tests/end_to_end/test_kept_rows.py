"""Rows that are kept beside the snapshots: every one, and books that are rebuilt from them equal the stored ones."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import redis.asyncio as redis

from ibkr_depth_pipeline.book.rebuild import rebuild
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.schema.keys import rows_stream, stream_key
from ibkr_depth_pipeline.schema.rows import StoredRow, row_of_entry
from ibkr_depth_pipeline.simulation import GatewayOptions, ReplayOptions, ReplayPace, SimulatedGateway
from ibkr_depth_pipeline_tests.end_to_end.observed import intervals_of
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, universe_of

KEPT: dict[str, Any] = {"ibkr_stream_rows": True, "ibkr_stream_recv_ns": True}
EMPTY = [0.0, 0.0, ""]


async def rows_of(client: redis.Redis, symbol: str) -> list[StoredRow]:
    found = []
    for stream_id, fields in await client.xrange(rows_stream(symbol)):
        words = [word for pair in fields.items() for word in pair]
        row = row_of_entry(symbol, [stream_id, words])
        assert stream_id == f"{row.ts}-{row.seq}".encode()
        found.append(row)
    return found


async def snapshots_of(client: redis.Redis, symbol: str) -> list[dict[bytes, bytes]]:
    return [fields for _, fields in await client.xrange(stream_key(symbol))]


def as_stored(side: tuple[Any, ...]) -> list[list[Any]]:
    return [list(level) for level in side] + [EMPTY] * (SNAPSHOT_LEVELS - len(side))


def assert_rebuilt(rows: list[StoredRow], snapshots: list[dict[bytes, bytes]], requested: int = 15) -> None:
    """Each stored snapshot is the book rebuilt from the rows up to its own."""
    books = list(rebuild(rows, requested=requested))
    assert len(books) == len(snapshots)
    for book, stored in zip(books, snapshots, strict=True):
        assert (book.row.ts, book.row.seq) == (int(stored[b"ts"]), int(stored[b"seq"]))
        assert book.row.recv_ns == int(stored[b"recv_ns"])
        assert [as_stored(book.bids), as_stored(book.asks)] == [
            orjson.loads(stored[b"bids"]),
            orjson.loads(stored[b"asks"]),
        ]


async def test_books_of_a_real_day_are_rebuilt_from_their_rows(shared_data: Path, shared_redis_url: str) -> None:
    path = shared_data / "aapl_2012-06-21_l10.csv.gz"
    replay = ReplayOptions(path=path, pace=ReplayPace.FAST, limit=2000)
    async with SimulatedGateway(GatewayOptions(replays=(replay,))) as gateway:
        settings = {"ibkr_rotation_secs": 3600, "ibkr_depth_extra_rows": 0, **KEPT}
        async with recording(gateway, shared_redis_url, universe_of("AAPL"), **settings) as run:

            async def all_is_stored() -> bool:
                sent = gateway.journal.entries("replay_ended")
                return bool(sent) and await run.length("AAPL") == len(gateway.journal.rows())

            await run.until(all_is_stored)
            await run.stop()
            rows, snapshots = await rows_of(run.redis, "AAPL"), await snapshots_of(run.redis, "AAPL")
    assert_rebuilt(rows, snapshots, requested=10)
    assert [(row.position, row.operation, row.price, row.size) for row in rows[:20]] == [
        (sent.position, "insert", sent.price, sent.size) for sent in gateway.journal.rows()[:20]
    ]


async def test_books_are_rebuilt_across_turns_and_resets(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=300)) as gateway:
        fast = {"ibkr_rotation_secs": 0.4, "ibkr_first_row_secs": 2, "ibkr_max_concurrent_depth": 1, **KEPT}
        async with recording(gateway, shared_redis_url, universe_of("SPY", "QQQ"), **fast) as run:

            async def has_turns() -> bool:
                return all([len(await intervals_of(run.redis, symbol)) >= 3 for symbol in ("SPY", "QQQ")])

            await run.grows("SPY", 30)
            gateway.reset_book("SPY")
            await run.until(has_turns)
            await run.stop()
            resets = 0
            for symbol in ("SPY", "QQQ"):
                rows, snapshots = await rows_of(run.redis, symbol), await snapshots_of(run.redis, symbol)
                assert_rebuilt(rows, snapshots)
                ends = {each.first_seq: each.subscription for each in await intervals_of(run.redis, symbol)}
                assert {row.subscription for row in rows} == {number for first, number in ends.items() if first}
                resets += sum(row.operation == "reset" for row in rows)
                reads = defaultdict(set)
                for row in rows:
                    reads[row.recv_ns].add(row.ts)
                    assert row.recv_ns // 1_000_000 == row.ts
                assert all(len(ts) == 1 for ts in reads.values())
                assert len(reads) < len(rows), "the rows of an opening image come in one read"
            assert resets


async def test_neither_is_stored_unless_asked_for(shared_redis_url: str) -> None:
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with recording(gateway, shared_redis_url, universe_of("SPY")) as run:
            await run.grows("SPY", 30)
            await run.stop()
            assert not await run.redis.exists(rows_stream("SPY"))
            assert all(
                set(each) == {b"ts", b"bids", b"asks", b"seq", b"venue"}
                for each in await snapshots_of(run.redis, "SPY")
            )
