"""A real day in small: simulated gateway, recorder, archiver, report. The page says what gateway and Redis say."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ibkr_depth_pipeline.archive.archiver import Archiver
from ibkr_depth_pipeline.archive.intervals import intervals_of, observed_ms
from ibkr_depth_pipeline.ingest.figures import IngestSummary
from ibkr_depth_pipeline.report.page import WrittenReport, make_report
from ibkr_depth_pipeline.report.symbol_day import SymbolDay
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline_tests.archive.conftest import Desk
from ibkr_depth_pipeline_tests.end_to_end.recording import Snapshot, recording, universe_of
from ibkr_depth_pipeline_tests.report.conftest import Page

SYMBOLS = ("SPY", "QQQ", "AAPL", "MSFT", "NVDA")
UNKNOWN = "ZZZZ"
FAST: dict[str, Any] = {"ibkr_rotation_secs": 0.5, "ibkr_error309_cooldown_secs": 0.2, "ibkr_first_row_secs": 2}


def observed_in(desk: Desk, found: SymbolDay) -> int:
    """For how many ms of the page's window the record of intervals has the symbol as observed."""
    day = datetime.fromtimestamp(found.window.start / 1000, timezone.utc).date()
    return observed_ms(intervals_of(desk.store, day, found.symbol), found.window.start, found.window.end)


async def recorded(desk: Desk) -> tuple[SimulatedGateway, IngestSummary, dict[str, list[Snapshot]]]:
    """Record through refused slots and two lost connections, and archive it meanwhile."""
    archiver = Archiver(desk.settings)
    keeping = asyncio.ensure_future(archiver.run())
    options = GatewayOptions(slots=2, rows_per_second=100, strict_catalogue=True)
    async with SimulatedGateway(options) as gateway:
        universe = universe_of(*SYMBOLS, UNKNOWN)
        async with recording(gateway, desk.settings.redis_url, universe, **FAST) as run:
            await asyncio.gather(*(run.grows(symbol, 20) for symbol in SYMBOLS))
            for _ in range(2):
                gateway.drop_connections()
                await run.grows(SYMBOLS[0], 20)
            summary = await run.stop()
            streams = {symbol: await run.stream(symbol) for symbol in SYMBOLS}
    archiver.stop()
    await keeping
    await Archiver(desk.settings).run(once=True)  # what the one that was stopped had not read any more
    return gateway, summary, streams


@pytest.fixture
async def day(desk: Desk) -> tuple[WrittenReport, Page, SimulatedGateway, IngestSummary, dict[str, list[Snapshot]]]:
    gateway, summary, streams = await recorded(desk)
    began = datetime.fromtimestamp(summary.started_ts / 1000, timezone.utc)
    if began.date() != datetime.fromtimestamp(summary.ended_ts / 1000, timezone.utc).date():
        pytest.skip("midnight came in between: this recording is of two days")
    written = await asyncio.to_thread(
        make_report, desk.settings.archive_url, began.date().isoformat(), calendar="XNYS", now=began, symbols=["SPY"]
    )
    html = await asyncio.to_thread(Path(written.path).read_text)
    return written, Page(html), gateway, summary, streams


async def test_page_shows_what_the_gateway_and_redis_report(
    desk: Desk, day: tuple[WrittenReport, Page, SimulatedGateway, IngestSummary, dict[str, list[Snapshot]]]
) -> None:
    written, page, gateway, summary, streams = day
    assert page.fact("snapshots") == (f"{sum(map(len, streams.values())):,}", f"of {len(SYMBOLS)} symbols")
    assert page.fact("missing snapshots") == ("0", "in 0 holes")
    refused = len(gateway.journal.errors(309))
    assert refused > 0
    assert page.fact("errors 309")[0] == str(refused) == str(summary.refused_309)
    assert summary.connections >= 3
    assert page.fact("reconnects")[0] == str(summary.connections - 1)
    assert f"Nothing is kept of {UNKNOWN}" in page.text
    for found in written.day.symbols:
        stream = streams[found.symbol]
        line = page.line(found.symbol, stream[-1].venue)
        assert line[2] == f"{len(stream):,}"
        live_ms = observed_in(desk, found)
        assert found.covered_ms == live_ms, found.symbol
        window = found.window.end - found.window.start
        assert line[4] == f"{100 * live_ms / window:.1f}%"
        spreads = {round(s.asks[0][0] - s.bids[0][0], 6) for s in stream if s.bids[0][0] and s.asks[0][0]}
        # Of a first book whose rows all came within one ms, and were gone then, nothing stood for any time.
        assert found.spread is None or round(found.spread, 6) in spreads
    assert next(each for each in written.day.symbols if each.symbol == SYMBOLS[0]).spread is not None
    assert sum(observed_in(desk, found) for found in written.day.symbols) > 0
    (ingest,) = written.day.ingests
    (run,) = ingest.runs
    assert (run.rows, run.connections, run.lost) == (sum(summary.rows.values()), summary.connections, 0)
    assert run.ended_ts == run.heard_ts >= summary.ended_ts
    assert page.line(run.run_id)[4:8] == [f"{run.rows:,}", str(run.connections), str(refused), "0"]
    assert "The book of SPY" in page.text


async def test_second_recording_of_the_day_is_another_run(desk: Desk) -> None:
    _, first, _ = await recorded(desk)
    _, second, streams = await recorded(desk)
    began = datetime.fromtimestamp(first.started_ts / 1000, timezone.utc)
    if began.date() != datetime.fromtimestamp(second.ended_ts / 1000, timezone.utc).date():
        pytest.skip("midnight came in between")
    written = await asyncio.to_thread(
        make_report, desk.settings.archive_url, began.date().isoformat(), calendar="XNYS", now=began
    )
    (ingest,) = written.day.ingests
    assert [run.connections for run in ingest.runs] == [first.connections, second.connections]
    assert written.day.refused_309 == first.refused_309 + second.refused_309
    assert written.day.reconnects == first.connections + second.connections - 2
    assert written.day.snapshots == sum(map(len, streams.values()))
