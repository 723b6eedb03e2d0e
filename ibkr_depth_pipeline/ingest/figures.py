"""What an ingest tells of itself, gathered from its parts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ibkr_depth_pipeline.ingest.pipeline import DepthPipeline
from ibkr_depth_pipeline.schema.status import ClockFigures, FeedFigures, RunIdentity, SymbolFigures
from ibkr_depth_pipeline.sink.backlog import WriterFigures


def feed_figures(
    run: RunIdentity,
    symbols: Iterable[str],
    pipeline: DepthPipeline,
    writer: WriterFigures,
    *,
    now_ms: int,
    connected: bool,
    buffer_bound: int,
    clock: ClockFigures | None = None,
    ended: bool = False,
) -> FeedFigures:
    """The figures of `run` as they are now."""
    seen = pipeline.figures
    p50, p99 = writer.lag_percentiles()
    return FeedFigures(
        run=run,
        written_ts=now_ms,
        ended_ts=now_ms if ended else 0,
        connected=connected,
        suspended=pipeline.suspended,
        ailments=pipeline.ailments,
        batch_size=pipeline.batch_size,
        connections=seen.connections,
        reconnects=max(0, seen.connections - 1),
        turns=seen.turns,
        refused_309=seen.refused_309,
        pacing_violations=seen.pacing_violations,
        buffer_bytes=writer.buffered_bytes,
        buffer_bound=buffer_bound,
        buffer_entries=writer.buffered_entries,
        lost=sum(writer.dropped.values()),
        write_failures=writer.write_failures,
        lag_p50_ms=p50,
        lag_p99_ms=p99,
        clock=clock or ClockFigures(),
        symbols=_symbols(symbols, pipeline, writer, now_ms),
    )


def _symbols(
    symbols: Iterable[str], pipeline: DepthPipeline, writer: WriterFigures, now_ms: int
) -> Mapping[str, SymbolFigures]:
    subscribed = set(pipeline.subscribed.values())
    last_rows, last_came, venues = pipeline.last_rows(), pipeline.last_came(), pipeline.venues()
    live_ms, books, rows = pipeline.live_ms(), pipeline.last_books(), pipeline.rows()
    troubles = pipeline.troubles()
    dropped: dict[str, dict[str, int]] = {}
    for (symbol, reason), count in pipeline.figures.dropped.items():
        dropped.setdefault(symbol, {})[reason] = count
    return {
        symbol: SymbolFigures(
            subscribed=symbol in subscribed,
            last_row_ts=last_rows.get(symbol, 0),
            row_age_ms=max(0, now_ms - last_came[symbol]) if symbol in last_came else None,
            rows=rows[symbol],
            live_ms=live_ms.get(symbol, 0),
            bid0=books[symbol].bids[0][0] if symbol in books and books[symbol].bids else 0.0,
            ask0=books[symbol].asks[0][0] if symbol in books and books[symbol].asks else 0.0,
            snapshots=writer.stored.get(symbol, 0),
            newest_seq=writer.newest_seq.get(symbol, 0),
            lost=writer.dropped.get(symbol, 0),
            refused_309=pipeline.figures.refused_309_of[symbol],
            venue=venues.get(symbol, ""),
            dropped=dropped.get(symbol, {}),
            trouble=troubles.get(symbol, ""),
            silent=pipeline.figures.silent[symbol],
            out_of_step=pipeline.figures.out_of_step[symbol],
            asked_again=pipeline.figures.asked_again[symbol],
        )
        for symbol in (*symbols, *(["unknown"] if "unknown" in dropped else []))
    }
