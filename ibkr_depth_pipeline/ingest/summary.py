"""What a run did. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ibkr_depth_pipeline.gateway.endpoint import Greeting
from ibkr_depth_pipeline.ingest.books import LastBook, LiveInterval
from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.sink.backlog import WriterFigures


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What a run did. Times are unix ms; the counts are of this run."""

    started_ts: int
    ended_ts: int
    rows: dict[str, int]
    snapshots: dict[str, int]
    dropped: dict[str, int] = field(default_factory=dict)
    unresolved: dict[str, str] = field(default_factory=dict)
    refused_309: int = 0
    connections: int = 0
    turns: int = 0
    drained: bool = True
    pacing_violations: int = 0
    books: dict[str, LastBook] = field(default_factory=dict)
    stretches: tuple[LiveInterval, ...] = ()
    greeting: Greeting = field(default_factory=Greeting)


def summary_of(
    pipeline: DepthPipeline,
    writer: WriterFigures,
    unresolved: Mapping[str, str],
    *,
    started_ts: int,
    ended_ts: int,
    drained: bool,
    greeting: Greeting,
) -> IngestSummary:
    """The summary of a run that has ended; `drained` says whether everything reached Redis.

    greeting is that of the newest connection.
    """
    figures = pipeline.figures
    return IngestSummary(
        started_ts=started_ts,
        ended_ts=ended_ts,
        rows=dict(pipeline.rows()),
        snapshots=dict(writer.stored),
        dropped={f"{symbol} {reason}": count for (symbol, reason), count in figures.dropped.items()},
        unresolved=dict(unresolved),
        refused_309=figures.refused_309,
        connections=figures.connections,
        turns=figures.turns,
        pacing_violations=figures.pacing_violations,
        drained=drained,
        books=pipeline.last_books(),
        stretches=tuple(pipeline.stretches()),
        greeting=greeting,
    )
