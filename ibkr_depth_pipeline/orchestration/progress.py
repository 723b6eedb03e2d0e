"""What happened between two looks at a session's figures, as numbers to plot. Pure, and without Dagster.

Counts are of the interval, so that a plot shows when something happened; the session's totals are the
materialization's to tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ibkr_depth_pipeline.ingest.summary import IngestSummary
from ibkr_depth_pipeline.model import Levels
from ibkr_depth_pipeline.sink.figures import FeedFigures, RunIdentity, SymbolFigures

Numbers = Mapping[str, float]


def feed_progress(before: FeedFigures | None, now: FeedFigures) -> dict[str, float]:
    """The feed since `before` (None: since the run started). Lags are of the newest batches, in milliseconds.

    coverage is the share of the interval in which a symbol's book was live, on average over the symbols.
    """
    each = symbols_progress(before, now)
    lags = {"lag_p50_ms": now.lag_p50_ms, "lag_p99_ms": now.lag_p99_ms}
    return {
        "rows": _total(each, "rows"),
        "snapshots": _total(each, "snapshots"),
        "rows_per_sec": round(sum(found["rows_per_sec"] for found in each.values()), 3),
        "coverage": round(sum(found["coverage"] for found in each.values()) / max(1, len(each)), 4),
        "dropped_rows": _total(each, "dropped_rows"),
        "lost_snapshots": now.lost - (before.lost if before else 0),
        "refused_309": now.refused_309 - (before.refused_309 if before else 0),
        "reconnects": now.reconnects - (before.reconnects if before else 0),
        "turns": now.turns - (before.turns if before else 0),
        "batch_size": now.batch_size,
        **{name: round(lag, 3) for name, lag in lags.items() if lag is not None},
    }


def symbols_progress(before: FeedFigures | None, now: FeedFigures) -> dict[str, dict[str, float]]:
    """Each symbol since `before`; rows that belong to no symbol count as those of `unknown`."""
    since = before.written_ts if before else now.run.started_ts
    seconds = max(0.001, (now.written_ts - since) / 1000)
    known = before.symbols if before else {}
    return {
        symbol: _symbol(known.get(symbol, SymbolFigures()), figures, seconds) for symbol, figures in now.symbols.items()
    }


def _symbol(before: SymbolFigures, now: SymbolFigures, seconds: float) -> dict[str, float]:
    rows = now.rows - before.rows
    best = {"bid": now.bid0, "ask": now.ask0}
    return {
        "rows": rows,
        "snapshots": now.snapshots - before.snapshots,
        "rows_per_sec": round(rows / seconds, 3),
        "coverage": round(min(1.0, max(0, now.live_ms - before.live_ms) / 1000 / seconds), 4),
        "dropped_rows": sum(now.dropped.values()) - sum(before.dropped.values()),
        "refused_309": now.refused_309 - before.refused_309,
        **{name: price for name, price in best.items() if price},
    }


def _total(each: Mapping[str, Numbers], name: str) -> int:
    return int(sum(found[name] for found in each.values()))


def figures_at_start(summary: IngestSummary, symbols: Iterable[str]) -> FeedFigures:
    """Those of a session at which nobody has looked yet."""
    nobody = RunIdentity("", "", 0, summary.started_ts)
    return FeedFigures(nobody, summary.started_ts, symbols={symbol: SymbolFigures() for symbol in symbols})


def figures_at_end(seen: FeedFigures, summary: IngestSummary) -> FeedFigures:
    """What the figures are at the session's end, from those that were `seen` last and the summary."""
    live_ms: dict[str, int] = {}
    for symbol, start, end in summary.stretches:
        live_ms[symbol] = live_ms.get(symbol, 0) + end - start
    dropped = dropped_by_symbol(summary)
    symbols = {
        symbol: replace(
            figures,
            rows=summary.rows.get(symbol, 0),
            snapshots=summary.snapshots.get(symbol, 0),
            live_ms=max(figures.live_ms, live_ms.get(symbol, 0)),
            dropped=dropped.get(symbol, {}),
            bid0=_best(summary.books[symbol].bids) if symbol in summary.books else figures.bid0,
            ask0=_best(summary.books[symbol].asks) if symbol in summary.books else figures.ask0,
        )
        for symbol, figures in seen.symbols.items()
    }
    return replace(
        seen,
        written_ts=summary.ended_ts,
        refused_309=summary.refused_309,
        connections=summary.connections,
        reconnects=max(0, summary.connections - 1),
        turns=summary.turns,
        symbols=symbols,
    )


def _best(levels: Levels) -> float:
    return levels[0][0] if levels else 0.0


def dropped_by_symbol(summary: IngestSummary) -> dict[str, dict[str, int]]:
    """Symbol -> reason -> rows."""
    dropped: dict[str, dict[str, int]] = {}
    for place, count in summary.dropped.items():
        symbol, _, reason = place.rpartition(" ")
        dropped.setdefault(symbol, {})[reason] = count
    return dropped
