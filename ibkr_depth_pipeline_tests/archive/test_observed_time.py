"""Observed time, rows and units of a small recording in the archive; the gateway's journal is the truth."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ibkr_depth_pipeline.archive.archived_day import open_day
from ibkr_depth_pipeline.archive.archiver import Archiver
from ibkr_depth_pipeline.archive.audit import audit_day
from ibkr_depth_pipeline.archive.checks import LIVE_MS, CheckResult
from ibkr_depth_pipeline.archive.intervals import intervals_of
from ibkr_depth_pipeline.archive.layout import BOOKS, INTERVALS, ROWS, day_of
from ibkr_depth_pipeline.archive.maintenance import compact_day
from ibkr_depth_pipeline.archive.parquet_schema import ENDED_INTERVALS
from ibkr_depth_pipeline.archive.reading import days, read_day
from ibkr_depth_pipeline.archive.rebuilding import stored_rows
from ibkr_depth_pipeline.schema.intervals import INTERVAL_FIELDS
from ibkr_depth_pipeline.schema.keys import rows_stream
from ibkr_depth_pipeline.schema.rows import row_of_entry
from ibkr_depth_pipeline.schema.size_units import UNIT_FIELDS
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline_tests.archive.conftest import Desk, compacted_of, ids_of
from ibkr_depth_pipeline_tests.end_to_end.observed import SentLine, lines_of
from ibkr_depth_pipeline_tests.end_to_end.observed import intervals_of as ended_in_redis
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, universe_of

SYMBOLS = ("SPY", "QQQ", "AAPL")
FAST: dict[str, Any] = {
    "ibkr_rotation_secs": 0.2,
    "ibkr_first_row_secs": 2,
    "ibkr_max_concurrent_depth": 1,
    "ibkr_stream_rows": True,
    "ibkr_stream_recv_ns": True,
}


@dataclass(frozen=True)
class Recorded:
    """A recording with one slot for three symbols, in an archive: what the gateway saw, and what Redis holds."""

    desk: Desk
    day: date
    lines: list[SentLine]
    intervals: dict[str, list[Any]]
    rows: dict[str, list[Any]]

    def check(self, symbol: str, name: str, **how: Any) -> CheckResult:
        audits = audit_day(self.desk.settings, self.day, calendar="24/7", **how)
        return next(each for audit in audits if audit.symbol == symbol for each in audit.results if each.check == name)


@pytest.fixture
async def recorded(desk: Desk) -> Recorded:
    """While the recording goes on the archiver is stopped and started again, and at the end everything is kept."""
    settings = desk.settings.model_copy(update={"archive_rows": True})
    desk.settings = settings
    async with SimulatedGateway(GatewayOptions(rows_per_second=100)) as gateway:
        async with recording(gateway, settings.redis_url, universe_of(*SYMBOLS), **FAST) as run:

            async def has_turns(turns: int) -> bool:
                return all([len(await ended_in_redis(run.redis, symbol)) >= turns for symbol in SYMBOLS])

            for turns in (1, 2):
                await run.until(lambda turns=turns: has_turns(turns))
                await Archiver(settings).run(once=True)
            await run.stop()
            intervals = {symbol: await ended_in_redis(run.redis, symbol) for symbol in SYMBOLS}
            entries = {symbol: await run.redis.xrange(rows_stream(symbol)) for symbol in SYMBOLS}
    await Archiver(settings).run(once=True)
    kept = await asyncio.to_thread(days, desk.store)
    if len(kept) > 1:
        pytest.skip("midnight came in between: this recording is of two days")
    flat = {s: [[key, [w for pair in fields.items() for w in pair]] for key, fields in e] for s, e in entries.items()}
    rows = {symbol: [row_of_entry(symbol, entry) for entry in those] for symbol, those in flat.items()}
    return Recorded(desk, kept[0], lines_of(gateway.journal.entries()), intervals, rows)


async def test_coverage_is_the_time_for_which_the_gateway_sent_the_book(recorded: Recorded) -> None:
    covered_by_all = by_rule_of_all = 0.0
    for symbol in SYMBOLS:
        lines = [line for line in recorded.lines if line.symbol == symbol and line.sent]
        at_most = sum(1000 * ((line.over_at or line.sent[-1]) - line.sent[0]) + 2 for line in lines)
        at_least = sum(each.until - each.first_row for each in recorded.intervals[symbol] if each.first_row)
        coverage = await asyncio.to_thread(recorded.check, symbol, "coverage")
        covered = 1000 * coverage.figures["covered_seconds"]
        assert round(covered) == at_least <= at_most, symbol
        assert coverage.figures["inferred_seconds"] == 0
        ts = [entry.ts for entry in ids_of(read_day(recorded.desk.store, recorded.day, symbol))]
        by_rule = sum(later - earlier for earlier, later in pairwise(ts) if later - earlier <= LIVE_MS)
        covered_by_all, by_rule_of_all = covered_by_all + covered, by_rule_of_all + by_rule
        between = (covered + by_rule) / 2 / 86_400_000
        enough = await asyncio.to_thread(recorded.check, symbol, "coverage", least_coverage=between)
        assert not enough.passed, "a share that the rule of ten seconds would pass is seen to be missing"
    elapsed = 1000 * (max(line.over_at or 0 for line in recorded.lines) - min(line.asked_at for line in recorded.lines))
    assert covered_by_all <= elapsed < by_rule_of_all, "one slot can't have been held by two"


async def test_archive_has_each_interval_of_the_stream_once(recorded: Recorded) -> None:
    for symbol in SYMBOLS:
        assert await asyncio.to_thread(intervals_of, recorded.desk.store, recorded.day, symbol) == [
            each for each in recorded.intervals[symbol] if day_of(each.requested) == recorded.day
        ]
        archived = await asyncio.to_thread(open_day, recorded.desk.store, recorded.day, symbol)
        assert not archived.inferred
    assert set(ENDED_INTERVALS.names) == {"ended", *INTERVAL_FIELDS}


async def test_archive_has_each_row_of_the_stream_once_and_they_lead_to_the_stored_books_which_are_sound(
    recorded: Recorded,
) -> None:
    for symbol in SYMBOLS:
        assert (await asyncio.to_thread(recorded.check, symbol, "books_ordered_and_not_crossed")).passed
    for compacted in (False, True):
        for symbol in SYMBOLS:
            rows = await asyncio.to_thread(
                lambda symbol=symbol: list(stored_rows(recorded.desk.store, recorded.day, symbol))
            )
            assert rows == recorded.rows[symbol]
            found = await asyncio.to_thread(recorded.check, symbol, "books_from_rows", rows=True)
            assert found.passed, found.problems
            expected = {"rows": len(rows), "snapshots": len(rows), "rebuilt": len(rows)}
            assert found.figures == {**expected, "differing": 0, "without_row": 0, "unknown": 0}
        if not compacted:
            await asyncio.to_thread(compact_day, recorded.desk.store, recorded.day)
    assert [len(compacted_of(recorded.desk.store, tree)) for tree in (BOOKS, INTERVALS, ROWS)] == [3, 3, 3]


async def test_book_that_its_rows_do_not_lead_to_fails_the_check(recorded: Recorded) -> None:
    part = recorded.desk.store.places(ROWS)[0]
    path = Path(recorded.desk.settings.archive_url, part.name)
    table = pq.read_table(path, partitioning=None)
    sizes = [size + (100 if at == 3 else 0) for at, size in enumerate(table["size"].to_pylist())]
    at = table.column_names.index("size")
    pq.write_table(table.set_column(at, table.schema.field(at), [sizes]), path)
    found = await asyncio.to_thread(recorded.check, part.symbol, "books_from_rows", rows=True)
    assert not found.passed
    assert found.figures["differing"] > 0
    pq.write_table(pa.concat_tables([table[:3], table[4:]]), path)
    found = await asyncio.to_thread(recorded.check, part.symbol, "books_from_rows", rows=True)
    assert (found.passed, found.figures["without_row"]) == (False, 1)


async def test_files_of_books_name_what_is_known_of_the_unit_of_sizes(recorded: Recorded) -> None:
    await asyncio.to_thread(compact_day, recorded.desk.store, recorded.day)
    for place in compacted_of(recorded.desk.store):
        metadata = pq.read_schema(Path(recorded.desk.settings.archive_url, place.name)).metadata
        known = [
            {**{name: getattr(each, name) for name in UNIT_FIELDS}, "size_fractional": bool(each.size_fractional)}
            for each in recorded.intervals[place.symbol]
        ]
        units = orjson.loads(metadata[b"ibkr_depth.units"])
        assert units[-1] == known[-1]
        assert all(unit in known for unit in units)
        assert units[-1]["server_version"] > 0
