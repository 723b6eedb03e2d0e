"""What two looks at the figures make of the time between them. Pure; no Dagster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ibkr_depth_pipeline.ingest.books import LastBook, LiveInterval
from ibkr_depth_pipeline.ingest.figures import IngestSummary
from ibkr_depth_pipeline.orchestration.ingest.metadata import (
    feed_progress,
    figures_at_end,
    figures_at_start,
    symbols_progress,
)
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures

RUN = RunIdentity("run", "host", 1, started_ts=1_000_000)
FIRST = FeedFigures(
    RUN,
    written_ts=1_010_000,
    batch_size=2,
    reconnects=1,
    refused_309=3,
    lag_p50_ms=1.23456,
    lag_p99_ms=4.0,
    symbols={
        "SPY": SymbolFigures(rows=500, live_ms=9000, snapshots=480, bid0=99.5, ask0=100.0),
        "QQQ": SymbolFigures(rows=100, live_ms=1000, snapshots=100, dropped={"late": 4}),
    },
)
SECOND = replace(
    FIRST,
    written_ts=1_030_000,
    batch_size=1,
    reconnects=1,
    refused_309=5,
    lost=7,
    symbols={
        "SPY": SymbolFigures(rows=1500, live_ms=19_000, snapshots=1500, bid0=98.5, ask0=99.0),
        "QQQ": SymbolFigures(rows=100, live_ms=1000, snapshots=100, dropped={"late": 4, "past_end": 2}),
    },
)


def test_first_observation_covers_the_time_since_the_run_started() -> None:
    assert symbols_progress(None, FIRST)["SPY"] == {
        "rows": 500,
        "snapshots": 480,
        "rows_per_sec": 50.0,
        "coverage": 0.9,
        "dropped_rows": 0,
        "refused_309": 0,
        "bid": 99.5,
        "ask": 100.0,
    }


def test_observation_counts_the_interval_and_shows_gauges_at_its_end() -> None:
    assert feed_progress(FIRST, SECOND) == {
        "rows": 1000,
        "snapshots": 1020,
        "rows_per_sec": 50.0,
        "coverage": 0.25,
        "dropped_rows": 2,
        "lost_snapshots": 7,
        "refused_309": 2,
        "reconnects": 0,
        "turns": 0,
        "batch_size": 1,
        "lag_p50_ms": 1.235,
        "lag_p99_ms": 4.0,
    }


def test_symbol_without_rows_in_the_interval_has_no_coverage_and_no_invented_price() -> None:
    quiet = symbols_progress(FIRST, SECOND)["QQQ"]
    assert (quiet["rows"], quiet["coverage"], quiet["dropped_rows"]) == (0, 0.0, 2)
    assert not {"bid", "ask"} & set(quiet)


def test_two_observations_at_one_moment_do_not_divide_by_zero() -> None:
    assert feed_progress(FIRST, FIRST)["rows_per_sec"] == 0.0


def test_observations_add_up_to_the_session() -> None:
    summary = IngestSummary(
        started_ts=RUN.started_ts,
        ended_ts=1_040_000,
        rows={"SPY": 2000, "QQQ": 150},
        snapshots={"SPY": 2000, "QQQ": 150},
        dropped={"QQQ late": 4, "QQQ past_end": 3},
        connections=2,
        books={"QQQ": LastBook("ISLAND", ((50.0, 1.0, "ISLAND"),), ())},
        live_intervals=(LiveInterval("SPY", 1_000_000, 1_024_000), LiveInterval("QQQ", 1_000_000, 1_001_000)),
    )
    end = figures_at_end(SECOND, summary)
    parts = [symbols_progress(None, FIRST), symbols_progress(FIRST, SECOND), symbols_progress(SECOND, end)]
    assert sum(part["SPY"]["rows"] for part in parts) == 2000
    assert sum(part["QQQ"]["dropped_rows"] for part in parts) == 7
    assert parts[-1]["SPY"]["coverage"] == pytest.approx(0.5)
    assert parts[-1]["QQQ"]["bid"] == 50.0
    assert "ask" not in parts[-1]["QQQ"]
    unseen = figures_at_start(summary, ["SPY", "QQQ"])
    assert symbols_progress(unseen, figures_at_end(unseen, summary))["SPY"]["coverage"] == pytest.approx(0.6)
