"""The checks of checks.py, carried out on a day of an archive and on what Redis still has of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa

from ibkr_depth_pipeline.archive import checks
from ibkr_depth_pipeline.archive.alerts import alerts_kept_on
from ibkr_depth_pipeline.archive.intervals import IntervalIndex, intervals_of, observed_spans
from ibkr_depth_pipeline.archive.layout import ALERTS, BOOKS, DAYS, PARTS, first_ms_of
from ibkr_depth_pipeline.archive.reading import files_of, gaps_of, matrix, name_codes, settled, symbols, tables
from ibkr_depth_pipeline.archive.rebuilding import check_rows
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.archive.streams import Streams
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.hours.trading import TradingHours
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.settings import Settings

_ALERT_WAITS_MS = 600_000
"""So long after Redis took it an alert must be in a file, unless the archiver is away."""


@dataclass(frozen=True, slots=True)
class SymbolAudit:
    """What the checks found about a symbol's day, or about an ingest's alerts, in the order of checks.py."""

    symbol: str
    results: tuple[checks.CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return all(result.passed for result in self.results)


def audit_day(
    settings: Settings,
    day: date,
    *,
    calendar: str = "",
    least_coverage: float = 0.0,
    gateways: Sequence[str] = (),
    store: ArchiveStore | None = None,
    rows: bool = False,
) -> list[SymbolAudit]:
    """Check every symbol of that day. If Redis can't be read, row counts are of the archive alone.

    rows: compare the snapshots with the books that the kept rows of depth lead to, too.

    Defaults: IBKR_CALENDAR, the one gateway IBKR_GATEWAY_NAME, the store at ARCHIVE_URL.

    Raises ArchiveUnavailable, and ConfigurationError for an unknown calendar.
    """
    store = store or ArchiveStore(settings.archive_url)
    names = symbols(store, day)
    session = session_of(calendar or settings.ibkr_calendar, day)
    says = asyncio.run(_ask(settings, [name for name in gateways if name] or [settings.ibkr_gateway_name], names, day))
    before = _days_before(store, day)
    return [
        _audit(store, day, name, before.get(name), session, says.get(name, checks.IngestSays()), least_coverage, rows)
        for name in names
    ]


def _audit(
    store: ArchiveStore,
    day: date,
    symbol: str,
    day_before: date | None,
    session: tuple[int | None, int | None],
    says: checks.IngestSays,
    least_coverage: float,
    rows: bool,
) -> SymbolAudit:
    columns = settled(store, lambda: _columns(store, day, symbol))
    ts, seq = columns.ts, columns.seq
    gaps = gaps_of(store, day, symbol)
    results = [
        checks.check_sequence(ts, seq, gaps, _newest_id(store, day_before, symbol)),
        checks.check_books(ts, columns.faults),
        checks.check_coverage(ts, columns.live, *session, least_coverage, _observed(store, day, symbol, says, ts, seq)),
        checks.check_counts(ts, seq, gaps, says, first_ms_of(day + timedelta(days=1))),
    ]
    from_rows = check_rows(store, day, symbol) if rows else None
    return SymbolAudit(symbol, (*results, from_rows) if from_rows is not None else tuple(results))


def _observed(
    store: ArchiveStore, day: date, symbol: str, says: checks.IngestSays, ts: checks.Array, seq: checks.Array
) -> checks.Observed:
    intervals = intervals_of(store, day, symbol)
    going_on = says.open_interval
    if going_on is not None and all(each.subscription < going_on.subscription for each in intervals):
        intervals.append(going_on)
    spans = observed_spans(intervals, first_ms_of(day), first_ms_of(day + timedelta(days=1)))
    return checks.Observed(spans, IntervalIndex(intervals).of(ts, seq) >= 0)


@dataclass(frozen=True, slots=True)
class _Columns:
    ts: checks.Array
    seq: checks.Array
    live: checks.Array
    faults: Sequence[checks.BookFaults]


def _columns(store: ArchiveStore, day: date, symbol: str) -> _Columns:
    ts, seq, live, faults = [], [], [], []
    for table in tables(store, files_of(store, day, symbol)):
        ts.append(table["ts"].cast(pa.int64()).to_numpy())
        seq.append(table["seq"].to_numpy())
        sides = [matrix(table, f"{side}_{what}") for side in ("bid", "ask") for what in ("price", "size")]
        faults.append(checks.book_faults(*sides, *(name_codes(table, f"{side}_venue") for side in ("bid", "ask"))))
        live.append(np.any([side[:, 0] != 0 for side in sides], axis=0))
    none = np.zeros(0, dtype=np.int64)
    return _Columns(
        np.concatenate([none, *ts]), np.concatenate([none, *seq]), np.concatenate([none.astype(bool), *live]), faults
    )


def _days_before(store: ArchiveStore, day: date) -> dict[str, date]:
    """The newest earlier day of each symbol that has one."""
    newest: dict[str, date] = {}
    for place in (place for tree in (PARTS, DAYS, BOOKS) for place in store.places(tree)):
        if place.day < day:
            newest[place.symbol] = max(place.day, newest.get(place.symbol, place.day))
    return newest


def _newest_id(store: ArchiveStore, day: date | None, symbol: str) -> StreamId | None:
    if day is None:
        return None
    files = settled(store, lambda: files_of(store, day, symbol))
    return max((file.span.last for file in files), default=None)


def session_of(calendar: str, day: date) -> tuple[int | None, int | None]:
    """Open and close, in unix ms, of the session of that date; None if there is none."""
    around = datetime(day.year, day.month, day.day, 12, tzinfo=timezone.utc)
    session = TradingHours(calendar, around).session_opening_on(day)
    if session is None:
        return None, None
    return round(session.open.timestamp() * 1000), round(session.close.timestamp() * 1000)


def audit_alerts(settings: Settings, day: date, store: ArchiveStore, now_ms: int) -> list[SymbolAudit]:
    """Check that the alerts of that day are kept, a result an ingest. If Redis can't be read, they only are counted.

    Raises ArchiveUnavailable.
    """
    kept: dict[str, set[StreamId]] = {name: set() for name in symbols(store, day, ALERTS)}
    for each in alerts_kept_on(store, day):
        kept[each.ingest].add(each.entry)
    stored = asyncio.run(_alerts_stored(settings, day))
    return [
        SymbolAudit(name, (checks.check_alerts(kept.get(name, set()), stored.get(name, []), now_ms - _ALERT_WAITS_MS),))
        for name in sorted({*kept, *(name for name, ids in stored.items() if ids)})
    ]


async def _alerts_stored(settings: Settings, day: date) -> dict[str, list[StreamId]]:
    streams = Streams(settings.redis_target)
    try:
        sources, _ = await streams.sources([ALERTS])
        span = first_ms_of(day), first_ms_of(day + timedelta(days=1))
        return {source.symbol: await streams.ids_between(source, *span) for source in sources}
    except SinkUnavailable:
        return {}
    finally:
        await streams.close()


async def _ask(
    settings: Settings, gateways: Sequence[str], names: Sequence[str], day: date
) -> dict[str, checks.IngestSays]:
    streams = Streams(settings.redis_target)
    try:
        found = [await streams.ingest_figures(gateway) for gateway in gateways]
        runs = {symbol: figures for figures in found if figures is not None for symbol in figures.symbols}
        return {
            name: replace(
                ingest_says(await streams.newest_mirrored(name), runs.get(name), name, day),
                open_interval=await streams.open_interval(name),
            )
            for name in names
        }
    except SinkUnavailable:
        return {}
    finally:
        await streams.close()


def ingest_says(newest: StreamId | None, figures: FeedFigures | None, symbol: str, day: date) -> checks.IngestSays:
    """What the hash and the figures report about that day. Pure."""
    starts, ends = first_ms_of(day), first_ms_of(day + timedelta(days=1))
    counts = figures.symbols.get(symbol) if figures is not None else None
    if figures is None or counts is None or not starts <= figures.run.started_ts <= figures.written_ts < ends:
        return checks.IngestSays(newest)
    return checks.IngestSays(newest, counts.snapshots, figures.run.started_ts, figures.written_ts)
