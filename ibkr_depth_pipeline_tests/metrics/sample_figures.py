"""Figures of an imaginary run."""

from __future__ import annotations

from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures

FIGURES = FeedFigures(
    RunIdentity("run1", "host1", 17, 1_700_000_000_000),
    1_700_000_002_000,
    connected=True,
    batch_size=3,
    refused_309=2,
    buffer_bytes=1_234,
    lag_p50_ms=4.0,
    lag_p99_ms=25.0,
    symbols={
        "SPY": SymbolFigures(
            subscribed=True, last_row_ts=1_700_000_001_500, rows=70, snapshots=60, dropped={"past_end": 2}
        ),
        "BRK B": SymbolFigures(),
    },
)
