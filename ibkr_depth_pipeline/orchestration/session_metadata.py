"""A session's summary as the metadata of a materialization. Numbers stay numbers: Dagster plots them."""

from collections.abc import Iterator, Mapping

import dagster as dg

from ibkr_depth_pipeline.ingest.run import IngestOutcome
from ibkr_depth_pipeline.ingest.session import IngestSummary
from ibkr_depth_pipeline.orchestration.lineage import symbol_key
from ibkr_depth_pipeline.settings import Settings


def session_metadata(outcome: IngestOutcome, settings: Settings) -> Mapping[str, dg.MetadataValue]:
    """What the UI shows of a session that is over, however it ended."""
    summary = outcome.summary
    return {
        "rows": dg.MetadataValue.int(sum(summary.rows.values())),
        "snapshots": dg.MetadataValue.int(sum(summary.snapshots.values())),
        "dropped_rows": dg.MetadataValue.int(sum(summary.dropped.values())),
        "refused_309": dg.MetadataValue.int(summary.refused_309),
        "connections": dg.MetadataValue.int(summary.connections),
        "turns": dg.MetadataValue.int(summary.turns),
        "unresolved_symbols": dg.MetadataValue.int(len(summary.unresolved)),
        "seconds": dg.MetadataValue.float((summary.ended_ts - summary.started_ts) / 1000),
        "started": dg.MetadataValue.timestamp(summary.started_ts / 1000),
        "ended": dg.MetadataValue.timestamp(summary.ended_ts / 1000),
        "ended_by": dg.MetadataValue.text(outcome.interrupted_by or "itself"),
        "drained": dg.MetadataValue.bool(summary.drained),
        "gateway": dg.MetadataValue.text(f"{settings.ibkr_host}:{settings.ibkr_port}"),
        "redis": dg.MetadataValue.text(settings.redis_url_masked),
        "symbols": dg.MetadataValue.md(symbol_table(summary)),
    }


def symbol_observations(summary: IngestSummary) -> Iterator[dg.AssetObservation]:
    """What the session has to say of each symbol it was to record."""
    dropped = _dropped(summary)
    for symbol in sorted({*summary.rows, *summary.snapshots, *summary.unresolved}):
        figures = {
            "rows": summary.rows.get(symbol, 0),
            "snapshots": summary.snapshots.get(symbol, 0),
            "dropped_rows": sum(dropped.get(symbol, {}).values()),
        }
        note = {"unresolved": summary.unresolved[symbol]} if symbol in summary.unresolved else {}
        yield dg.AssetObservation(symbol_key(symbol), metadata={**figures, **note})


def symbol_table(summary: IngestSummary) -> str:
    """A row per symbol, in Markdown: what came, what was stored, and what was wrong."""
    dropped = _dropped(summary)
    lines = ["| symbol | rows | snapshots | dropped | note |", "| --- | ---: | ---: | --- | --- |"]
    for symbol in sorted({*summary.rows, *summary.snapshots, *summary.unresolved, *dropped}):
        counts = f"{summary.rows.get(symbol, 0)} | {summary.snapshots.get(symbol, 0)}"
        note = _cell(summary.unresolved.get(symbol, ""))
        why = ", ".join(f"{count} {reason}" for reason, count in dropped.get(symbol, {}).items())
        lines.append(f"| {symbol} | {counts} | {why} | {note} |")
    return "\n".join(lines)


def _dropped(summary: IngestSummary) -> dict[str, dict[str, int]]:
    """Symbol -> reason -> rows."""
    dropped: dict[str, dict[str, int]] = {}
    for place, count in summary.dropped.items():
        symbol, _, reason = place.rpartition(" ")
        dropped.setdefault(symbol, {})[reason] = count
    return dropped


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
