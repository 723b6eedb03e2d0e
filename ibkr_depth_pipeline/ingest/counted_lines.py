"""Log lines that stand for many rows, and a limit on the others: a broken feed must not fill a disk."""

from __future__ import annotations

from collections.abc import Iterable

from ibkr_depth_pipeline.ingest.books import PipelineFigures
from ibkr_depth_pipeline.ingest.effects import LogLine
from ibkr_depth_pipeline.logs import LogRateLimit, get_log
from ibkr_depth_pipeline.sink.backlog import WriterFigures


class RateLimitedLog:
    """Logs what is new in the figures of the pipeline and the writer, and other lines as far as `limit` allows."""

    def __init__(self, pipeline: PipelineFigures, writer: WriterFigures, limit: LogRateLimit) -> None:
        self._pipeline = pipeline
        self._writer = writer
        self._limit = limit
        self._told_stored: dict[str, int] = {}
        self._told_drops: dict[tuple[str, str], int] = {}
        self._log = get_log()

    def say(self, effect: LogLine) -> None:
        """Log it, unless there were too many of its kind, or of the same."""
        if self._limit.allows(effect.event, repr(effect.fields)):
            getattr(self._log, effect.level)(effect.event, **effect.fields)

    def stored(self, symbols: Iterable[str]) -> None:
        """One line per symbol of which snapshots were stored."""
        for symbol in symbols:
            stored = self._writer.stored.get(symbol, 0)
            since = stored - self._told_stored.get(symbol, 0)
            if since:
                self._told_stored[symbol] = stored
                seq = self._writer.newest_seq.get(symbol, 0)
                self._log.info("snapshots_persisted", symbol=symbol, snapshots=since, seq=seq)

    def dropped(self) -> None:
        """One line per symbol and reason, however many rows, and per event of which there were too many.

        That is the rate limit on what a broken feed can log.
        """
        for (symbol, reason), count in self._pipeline.dropped.items():
            since = count - self._told_drops.get((symbol, reason), 0)
            if since:
                self._told_drops[symbol, reason] = count
                self._log.warning("rows_dropped", symbol=symbol, reason=reason, rows=since, total=count)
        for event, lines in self._limit.start_window().items():
            self._log.warning("lines_left_out", of=event, lines=lines)
