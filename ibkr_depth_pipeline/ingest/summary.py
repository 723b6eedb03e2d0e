"""What a run did."""

from __future__ import annotations

from dataclasses import dataclass, field

from ibkr_depth_pipeline.ingest.books import LastBook, Stretch


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
    books: dict[str, LastBook] = field(default_factory=dict)
    stretches: tuple[Stretch, ...] = ()
