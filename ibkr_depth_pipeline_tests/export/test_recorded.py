"""From the simulated gateway through recorder, Redis and archiver to exports: nothing lost, nothing made up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import databento
import databento_dbn as dbn
import pyarrow.parquet as pq
import redis.asyncio as redis

from ibkr_depth_pipeline.archive.archiver import run_archiver
from ibkr_depth_pipeline.archive.layout import day_of
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.export.formats import Content, ExportFormat
from ibkr_depth_pipeline.model import Level
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval
from ibkr_depth_pipeline.schema.rows import StoredRow
from ibkr_depth_pipeline.settings import load_settings
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline_tests.end_to_end.observed import intervals_of
from ibkr_depth_pipeline_tests.end_to_end.recording import Recording, Rows, recording, universe_of
from ibkr_depth_pipeline_tests.end_to_end.test_kept_rows import rows_of
from ibkr_depth_pipeline_tests.export.conftest import Source
from ibkr_depth_pipeline_tests.export.kept import Kept, books_by_price, settled_of
from ibkr_depth_pipeline_tests.export.test_dbn import book_of, has, is_clear
from ibkr_depth_pipeline_tests.export.test_tables import books_in

KEPT_ROWS = {"ibkr_stream_rows": True}
SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL")
FAST = {"ibkr_rotation_secs": 0.3, "ibkr_error309_cooldown_secs": 0.2, "ibkr_first_row_secs": 2}


@dataclass(frozen=True)
class Recorded:
    """What Redis holds of a symbol."""

    snapshots: list[Kept]
    intervals: list[SubscriptionInterval]
    rows: list[StoredRow]


def filled(rows: Rows) -> list[Level]:
    return [(price, size, name) for price, size, name in rows if price or size]


async def recorded(run: Recording, client: redis.Redis, symbol: str) -> Recorded:
    stored = [Kept(each.ts, each.seq, filled(each.bids), filled(each.asks)) for each in await run.stream(symbol)]
    return Recorded(stored, await intervals_of(client, symbol), await rows_of(client, symbol))


async def rotate(redis_url: str, turns: int) -> dict[str, Recorded]:
    """Record four symbols in three slots until each has had so many turns."""
    async with SimulatedGateway(GatewayOptions(rows_per_second=300)) as gateway:
        async with recording(gateway, redis_url, universe_of(*SYMBOLS), **FAST, **KEPT_ROWS) as run:

            async def has_turns() -> bool:
                return all([len(await intervals_of(run.redis, symbol)) >= turns for symbol in SYMBOLS])

            await run.until(has_turns)
            await run.stop()
            return {symbol: await recorded(run, run.redis, symbol) for symbol in SYMBOLS}


def assert_exported(source: Source, symbol: str, stored: Sequence[Kept]) -> None:
    day = day_of(stored[0].ts)
    of_day = [each for each in stored if day_of(each.ts) == day]
    expected = books_by_price(of_day)
    tidy = pq.read_table(source.export(ExportFormat.PARQUET, f"{symbol}.parquet", symbol=symbol, day=day).path)
    rows = tidy.to_pylist()
    assert books_in(rows) == expected
    settled = {each.seq for each in settled_of(stored, source.intervals)}
    assert [row["seq"] for row in rows if row["settled"]] == [each.seq for each in of_day if each.seq in settled]
    assert {row["subscription"] for row in rows} <= {each.subscription for each in source.intervals}

    path = source.export(ExportFormat.DBN, f"{symbol}.dbn", symbol=symbol, day=day).path
    records = list(databento.DBNStore.from_bytes(path.read_bytes()))
    assert [book_of(each) for each in records if not is_clear(each)] == expected
    assert {each.instrument_id for each in records} == {source.intervals[0].con_id}
    seen = [each for each in source.intervals if each.first_seq is not None and day_of(each.until or 0) == day]
    clears = [(each.sequence, each.ts_event // 1_000_000) for each in records if is_clear(each)]
    assert clears == [(each.last_seq, each.until) for each in seen]
    assert sum(has(each, dbn.F_SNAPSHOT) for each in records) <= len(seen) + 1


def assert_increments_exported(source: Source, symbol: str, stored: Sequence[StoredRow]) -> None:
    day = day_of(stored[0].ts)
    done = source.export(
        ExportFormat.PARQUET, f"{symbol}-rows.parquet", symbol=symbol, day=day, content=Content.INCREMENTS
    )
    rows = pq.read_table(done.path)
    rows = rows.set_column(rows.column_names.index("ts_recv"), "ts_recv", rows["ts_recv"].cast("int64"))
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        (
            *(datetime.fromtimestamp(each.ts / 1000, timezone.utc), each.seq, each.subscription),
            *(each.operation, each.side, each.position, each.price, each.size, each.mm or None, each.recv_ns),
        )
        for each in stored
        if day_of(each.ts) == day
    ]
    assert done.manifest["counts"]["rows"] == rows.num_rows


async def test_rotation_is_exported_as_it_was_recorded(shared_redis_url: str, tmp_path: Path) -> None:
    found = await rotate(shared_redis_url, turns=2)
    settings = load_settings(redis_url=shared_redis_url, archive_url=str(tmp_path / "archive"), archive_rows=True)
    await asyncio.to_thread(run_archiver, settings, once=True)
    store = ArchiveStore(settings.archive_url)
    for symbol, kept in found.items():
        source = Source(store, kept.snapshots, kept.intervals, tmp_path)
        await asyncio.to_thread(assert_exported, source, symbol, kept.snapshots)
        await asyncio.to_thread(assert_increments_exported, source, symbol, kept.rows)
    books = [each for kept in found.values() for each in kept.snapshots]
    assert any(len({price for price, *_ in each.bids}) < len(each.bids) for each in books), "no price shows two makers"
