"""A session's summary as the metadata of a materialization. Numbers stay numbers: Dagster plots them."""

from collections.abc import Mapping

import dagster as dg

from ibkr_depth_pipeline.ingest.run import IngestOutcome
from ibkr_depth_pipeline.ingest.summary import IngestSummary
from ibkr_depth_pipeline.orchestration.coverage_plot import coverage_markdown
from ibkr_depth_pipeline.orchestration.ladder import ladder_markdown
from ibkr_depth_pipeline.orchestration.progress import dropped_by_symbol
from ibkr_depth_pipeline.settings import Settings

_MOST_LADDERS = 60
"""What is stored with an event stays small."""


def session_metadata(outcome: IngestOutcome, settings: Settings) -> Mapping[str, dg.MetadataValue]:
    """What the UI shows of a session that is over, however it ended.

    Totals have names of their own: under those of the observations they would stand in the same plots.
    """
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
        "redis": dg.MetadataValue.text(settings.redis_url_masked),
        "symbols": dg.MetadataValue.md(symbol_table(summary)),
        "coverage_plot": dg.MetadataValue.md(_coverage(summary)),
        "books": dg.MetadataValue.md(book_ladders(summary)),
    }


def _coverage(summary: IngestSummary) -> str:
    symbols = sorted({*summary.rows, *summary.snapshots, *summary.unresolved} - {"unknown"})
    return coverage_markdown(summary.stretches, symbols, summary.started_ts, summary.ended_ts) or "nothing was recorded"


def book_ladders(summary: IngestSummary) -> str:
    """Each symbol's book as it was when it was last live, in Markdown; of a large universe the first ones."""
    shown = sorted(summary.books.items())[:_MOST_LADDERS]
    parts = [
        f"**{symbol}** on {book.venue}\n\n{ladder_markdown(book.bids, book.asks) or 'an empty book'}"
        for symbol, book in shown
    ]
    if len(summary.books) > len(shown):
        parts.append(f"The other {len(summary.books) - len(shown)} are in Redis only.")
    return "\n\n".join(parts) or "no book was live"


def symbol_table(summary: IngestSummary) -> str:
    """A row per symbol, in Markdown: what came, what was stored, and what was wrong."""
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
