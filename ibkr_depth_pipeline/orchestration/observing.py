"""Tells Dagster, every few minutes, how a session is doing: an observation for the feed and one for each symbol."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dagster as dg

from ibkr_depth_pipeline.ingest.onlookers import Watcher
from ibkr_depth_pipeline.ingest.summary import IngestSummary
from ibkr_depth_pipeline.orchestration.lineage import symbol_key
from ibkr_depth_pipeline.orchestration.progress import (
    feed_progress,
    figures_at_end,
    figures_at_start,
    symbols_progress,
)
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.figures import FeedFigures
from ibkr_depth_pipeline.universe import Universe


class SessionObserver:
    """Logs what happened since it looked last. `log` is the op's log_event; it is called in the watcher's thread."""

    def __init__(
        self, log: Callable[[dg.AssetObservation], None], feed: dg.AssetKey, settings: Settings, universe: Universe
    ) -> None:
        self._log = log
        self._feed = feed
        self._symbols = universe.symbols
        self._seen: FeedFigures | None = None
        self.watcher = Watcher(self._look, settings.ibkr_observe_secs)

    def _look(self, now: FeedFigures) -> None:
        before, self._seen = self._seen, now
        self._log(dg.AssetObservation(self._feed, metadata=feed_progress(before, now)))
        for observation in self._of_symbols(before, now):
            self._log(observation)

    def conclude(self, summary: IngestSummary) -> None:
        """The session is over: what happened since the last look, and the symbols that could not be recorded."""
        before = self._seen or figures_at_start(summary, self._symbols)
        for observation in self._of_symbols(before, figures_at_end(before, summary), summary):
            self._log(observation)

    def _of_symbols(
        self, before: FeedFigures | None, now: FeedFigures, summary: IngestSummary | None = None
    ) -> Iterator[dg.AssetObservation]:
        unresolved = summary.unresolved if summary else {}
        for symbol, figures in symbols_progress(before, now).items():
            if symbol in self._symbols:
                note = {"unresolved": unresolved[symbol]} if symbol in unresolved else {}
                yield dg.AssetObservation(symbol_key(symbol), metadata={**figures, **note})
