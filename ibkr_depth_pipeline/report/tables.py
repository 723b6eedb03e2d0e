"""The lines of the page's tables. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ibkr_depth_pipeline.archive.decoding import Hole
from ibkr_depth_pipeline.formatting import duration, utc_clock
from ibkr_depth_pipeline.report import charts
from ibkr_depth_pipeline.report.bins import Array, Bins
from ibkr_depth_pipeline.report.ingest_day import Run
from ibkr_depth_pipeline.report.scales import from_zero, number, usual
from ibkr_depth_pipeline.report.symbol_day import SymbolDay

_SPARKS = 120


@dataclass(frozen=True, slots=True)
class SymbolRow:
    """A line of the table. coverage is in percent; rates and spreads are paths."""

    symbol: str
    venues: str
    snapshots: str
    rates: str
    coverage: float
    worst: str
    worst_at: str
    missing: int
    spread: str
    spread_bps: str
    spreads: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run of an ingest."""

    run_id: str
    where: str
    since: str
    until: str
    rows: str
    connections: str
    refused_309: str
    lost: str
    dropped: str


@dataclass(frozen=True, slots=True)
class HoleRow:
    """What is missing of a symbol."""

    symbol: str
    seqs: str
    size: str
    since: str
    until: str
    reason: str


def symbol_row(symbol: SymbolDay, missing: int, bins: Bins) -> SymbolRow:
    """Of a symbol of which so many snapshots are `missing`."""
    bps = symbol.spread_bps
    rates = _grouped(symbol.rows / (bins.step / 1000))
    spreads = _grouped(symbol.spreads[1])
    return SymbolRow(
        symbol=symbol.symbol,
        venues=", ".join(symbol.venues),
        snapshots=number(symbol.snapshots),
        rates=charts.steps(rates, from_zero(rates)),
        coverage=round(100 * symbol.coverage, 1),
        worst=duration(symbol.worst.ms, fine=True),
        worst_at=utc_clock(symbol.worst.start) if symbol.worst.ms else "",
        missing=missing,
        spread=number(symbol.spread) if symbol.spread is not None else "none",
        spread_bps=f"{bps:.1f} bp" if bps is not None else "",
        spreads=charts.line(spreads, from_zero(usual(spreads))),
    )


def _grouped(values: Array) -> Array:
    """Neighbours taken together, by their mean, so that a small picture stays a small text."""
    size = -(-len(values) // _SPARKS)
    padded = np.concatenate([values, np.full(-len(values) % size, np.nan)]).reshape(-1, size)
    known = ~np.isnan(padded)
    counts = known.sum(axis=1)
    sums = np.where(known, padded, 0).sum(axis=1)
    grouped: Array = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return grouped


def run_row(run: Run) -> RunRow:
    """Of a run."""
    dropped = ", ".join(f"{number(count)} {reason.replace('_', ' ')}" for reason, count in run.dropped.items())
    return RunRow(
        run_id=run.run_id,
        where=f"{run.host}, {run.pid}",
        since=utc_clock(run.started_ts),
        until=utc_clock(run.ended_ts) if run.ended_ts else f"last heard {utc_clock(run.heard_ts)}",
        rows=number(run.rows),
        connections=number(run.connections),
        refused_309=number(run.refused_309),
        lost=number(run.lost),
        dropped=dropped or "none",
    )


def hole_row(hole: Hole) -> HoleRow:
    """Of a hole."""
    return HoleRow(
        symbol=hole.symbol,
        seqs=f"{hole.first_seq} to {hole.last_seq}",
        size=number(hole.size),
        since=utc_clock(hole.after.ts) if hole.after.ts else "the beginning",
        until=utc_clock(hole.before_ts),
        reason=hole.reason.value.replace("_", " "),
    )
