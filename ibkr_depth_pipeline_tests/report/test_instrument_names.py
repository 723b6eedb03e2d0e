"""Names of entries, from the recorder on: terminal, archive, report, probe, Dagster's assets and status."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timezone
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from ibkr_depth_pipeline.archive import reading
from ibkr_depth_pipeline.archive.archiver import Archiver
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.orchestration.gateway_assets import symbol_key
from ibkr_depth_pipeline.probe.session import ProbeSession
from ibkr_depth_pipeline.reader import DepthReader
from ibkr_depth_pipeline.report.page import make_report
from ibkr_depth_pipeline.simulation import GatewayOptions, SimulatedGateway
from ibkr_depth_pipeline.tui.screen import WatchOptions, show_once
from ibkr_depth_pipeline.universe import parse_universe
from ibkr_depth_pipeline_tests.archive.conftest import Desk
from ibkr_depth_pipeline_tests.end_to_end.recording import recording, settings_for
from ibkr_depth_pipeline_tests.report.conftest import Page

ENTRIES = """
- {name: AAPL.ARCA, symbol: AAPL, exchange: ARCA}
- BRK B
- {symbol: EUR.GBP, sec_type: CASH}
- {name: ES, sec_type: FUT, exchange: CME, expiry: front}
- {name: "NO", symbol: SPY}
- {name: TSEJ/7203, symbol: "7203", exchange: TSEJ}
"""
UNIVERSE = parse_universe({"symbols": yaml.safe_load(ENTRIES)}, "file")
NAMES = UNIVERSE.symbols
FAST: dict[str, Any] = {"ibkr_rotation_secs": 0.3, "ibkr_first_row_secs": 2, "ibkr_max_concurrent_depth": 6}


async def test_every_name_is_recorded_shown_archived_and_reported(desk: Desk) -> None:
    url = desk.settings.redis_url
    async with SimulatedGateway(GatewayOptions(slots=6)) as gateway:
        async with recording(gateway, url, UNIVERSE, **FAST) as run:
            await asyncio.gather(*(run.grows(name, 20) for name in NAMES))
            shown = StringIO()
            await show_once(WatchOptions(url, "default", NAMES), Console(file=shown, width=160, height=90))
            summary = await run.stop()
        probed = await ProbeSession(settings_for(gateway, url, ibkr_first_row_secs=5), UNIVERSE, record=False).run()
    assert [each.symbol for each in probed.symbols] == list(NAMES)
    assert probed.passed
    for name in NAMES:
        assert name in shown.getvalue()
    await Archiver(desk.settings).run(once=True)
    began, ended = (datetime.fromtimestamp(ts / 1000, timezone.utc) for ts in (summary.started_ts, summary.ended_ts))
    if began.date() != ended.date():
        pytest.skip("midnight came in between")
    store = ArchiveStore(desk.settings.archive_url)
    assert set(reading.symbols(store, began.date())) == set(NAMES)
    for name in NAMES:
        assert len(reading.read_day(store, began.date(), name)) == summary.snapshots[name]
    day = began.date().isoformat()
    written = await asyncio.to_thread(
        make_report, desk.settings.archive_url, day, calendar="24/7", now=ended, symbols=list(NAMES)
    )
    page = Page(await asyncio.to_thread(Path(written.path).read_text))
    for name in NAMES:
        assert f"The book of {name}" in page.text
    with DepthReader(url) as reader:
        assert {name for name in NAMES if reader.latest(name) is not None} == set(NAMES)


def test_every_name_has_an_asset_key_of_its_own() -> None:
    assert len({symbol_key(name) for name in NAMES}) == len(NAMES)
    assert replace(UNIVERSE).subset(NAMES) == UNIVERSE
