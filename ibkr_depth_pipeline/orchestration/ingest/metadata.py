"""The figures of a session as metadata: of each interval for an observation, of the whole for the materialization.

Pure. Numbers stay numbers, so that Dagster plots them. Counts of an observation are those of its interval, so that a
plot shows when something happened; totals stand in the materialization, under names of their own, so that they do not
share a plot with the intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg

from ibkr_depth_pipeline.model import Levels
from ibkr_depth_pipeline.orchestration.rendering import coverage_markdown, ladder_markdown
from ibkr_depth_pipeline.schema.status import FeedFigures, RunIdentity, SymbolFigures
from ibkr_depth_pipeline.settings import Settings

if TYPE_CHECKING:
    from ibkr_depth_pipeline.ingest.figures import IngestSummary
    from ibkr_depth_pipeline.ingest.flight_recorder import DumpReport
    from ibkr_depth_pipeline.ingest.run import IngestOutcome

Numbers = Mapping[str, float]

_MOST_LADDERS = 60
"""What is stored with an event stays small."""


# ---- the interval between two observations


def feed_progress(before: FeedFigures | None, now: FeedFigures) -> dict[str, float]:
    """The feed's figures since `before` (None: since the run started). Lags are of the newest blocks, in milliseconds.

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
    """Each symbol's figures since `before`; rows that belong to no symbol count as those of `unknown`."""
    seconds = max(0.001, (now.run_ms - (before.run_ms if before else 0)) / 1000)
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


def contract_metadata(figures: SymbolFigures) -> dict[str, str]:
    """The contract that is recorded now, in words; empty while it is not known."""
    if not figures.con_id:
        return {}
    named = " ".join(part for part in (figures.contract, figures.expiry) if part)
    return {"contract": f"{named or 'contract'} ({figures.con_id}) on {figures.venue}"}


def _total(each: Mapping[str, Numbers], name: str) -> int:
    return int(sum(found[name] for found in each.values()))


def figures_at_start(summary: IngestSummary, symbols: Iterable[str]) -> FeedFigures:
    """The figures of a session of which no observation was logged."""
    no_run = RunIdentity("", "", 0, summary.started_ts)
    return FeedFigures(no_run, summary.started_ts, symbols={symbol: SymbolFigures() for symbol in symbols})


def figures_at_end(seen: FeedFigures, summary: IngestSummary) -> FeedFigures:
    """The figures at the session's end, from those of the last observation, `seen`, and the summary."""
    live_ms: dict[str, int] = {}
    for symbol, start, end in summary.live_intervals:
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
        up_ms=summary.up_ms,
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


# ---- the session


def session_metadata(outcome: IngestOutcome, settings: Settings) -> Mapping[str, dg.MetadataValue]:
    """The metadata of a session that is over, however it ended."""
    summary = outcome.summary
    return {
        "session_rows": dg.MetadataValue.int(sum(summary.rows.values())),
        "session_snapshots": dg.MetadataValue.int(sum(summary.snapshots.values())),
        "session_dropped_rows": dg.MetadataValue.int(sum(summary.dropped.values())),
        "session_refused_309": dg.MetadataValue.int(summary.refused_309),
        "connections": dg.MetadataValue.int(summary.connections),
        "session_turns": dg.MetadataValue.int(summary.turns),
        "unresolved_symbols": dg.MetadataValue.int(len(summary.unresolved)),
        "seconds": dg.MetadataValue.float((summary.ended_ts - summary.started_ts) / 1000),
        "started": dg.MetadataValue.timestamp(summary.started_ts / 1000),
        "ended": dg.MetadataValue.timestamp(summary.ended_ts / 1000),
        "ended_by": dg.MetadataValue.text(outcome.interrupted_by or "itself"),
        "drained": dg.MetadataValue.bool(summary.drained),
        "gateway": dg.MetadataValue.text(f"{settings.ibkr_host}:{settings.ibkr_port}"),
        "gateway_protocol": dg.MetadataValue.int(summary.greeting.version),
        "gateway_connection_time": dg.MetadataValue.text(summary.greeting.connection_time or "never connected"),
        **({"gateway_warning": dg.MetadataValue.text(summary.greeting.warning)} if summary.greeting.warning else {}),
        "redis": dg.MetadataValue.text(settings.redis_url_masked),
        "symbols": dg.MetadataValue.md(symbol_table(summary)),
        "coverage_plot": dg.MetadataValue.md(_coverage(summary)),
        "books": dg.MetadataValue.md(book_ladders(summary)),
    }


def _coverage(summary: IngestSummary) -> str:
    symbols = sorted({*summary.rows, *summary.snapshots, *summary.unresolved} - {"unknown"})
    coverage = coverage_markdown(summary.live_intervals, symbols, summary.started_ts, summary.ended_ts)
    return coverage or "nothing was recorded"


def book_ladders(summary: IngestSummary) -> str:
    """Each symbol's book as it was when it was last live, in Markdown; the first _MOST_LADDERS of a large universe."""
    shown = sorted(summary.books.items())[:_MOST_LADDERS]
    parts = [
        f"**{symbol}** on {book.venue}\n\n{ladder_markdown(book.bids, book.asks) or 'an empty book'}"
        for symbol, book in shown
    ]
    if len(summary.books) > len(shown):
        parts.append(f"The other {len(summary.books) - len(shown)} are in Redis only.")
    return "\n\n".join(parts) or "no book was live"


def symbol_table(summary: IngestSummary) -> str:
    """A Markdown row per symbol: rows received, snapshots stored, rows dropped, and why it was not recorded."""
    dropped = dropped_by_symbol(summary)
    lines = ["| symbol | rows | snapshots | dropped | note |", "| --- | ---: | ---: | --- | --- |"]
    for symbol in sorted({*summary.rows, *summary.snapshots, *summary.unresolved, *dropped}):
        counts = f"{summary.rows.get(symbol, 0)} | {summary.snapshots.get(symbol, 0)}"
        note = _cell(summary.unresolved.get(symbol, ""))
        why = ", ".join(f"{count} {reason}" for reason, count in dropped.get(symbol, {}).items())
        lines.append(f"| {symbol} | {counts} | {why} | {note} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# ---- a tape of the flight recorder


def dump_metadata(report: DumpReport) -> dict[str, dg.MetadataValue]:
    """Where a tape is, why it was written, and what it holds. Its numbers are texts: no plot has a use for them."""
    return {
        "tape": dg.MetadataValue.path(report.path),
        "tape_why": dg.MetadataValue.text("; ".join(report.why)),
        "tape_began": dg.MetadataValue.text(report.began),
        "tape_holds": dg.MetadataValue.text(f"{report.secs:g} s, {report.messages:,} messages, {report.bytes:,} bytes"),
        "tape_shown_by": dg.MetadataValue.text(f"ibkr_gateway_tap show {report.path}"),
    }
