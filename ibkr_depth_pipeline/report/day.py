"""A day of the archive, read piece by piece into counts: memory does not grow with the day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ibkr_depth_pipeline.archive import figures
from ibkr_depth_pipeline.archive.alerts import KeptAlert, alerts_of
from ibkr_depth_pipeline.archive.audit import session_of
from ibkr_depth_pipeline.archive.intervals import IntervalIndex, intervals_of
from ibkr_depth_pipeline.archive.layout import first_ms_of
from ibkr_depth_pipeline.archive.reading import (
    SpannedFile,
    days,
    files_of,
    gaps_of,
    ids_of,
    matrix,
    symbols,
    tables,
)
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.errors import ConfigurationError, NothingKept
from ibkr_depth_pipeline.formatting import utc_clock
from ibkr_depth_pipeline.report.ingest_day import IngestDay, ingest_day, total
from ibkr_depth_pipeline.report.symbol_day import DepthFold, DepthMap, SymbolDay, SymbolFold, Window, price_grid
from ibkr_depth_pipeline.report.timeline import Bins, SnapshotColumns
from ibkr_depth_pipeline.schema.alerts import AlertKind, TrackedAlert, tracked_alerts
from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval

_AROUND_THE_CLOCK_MS = 23 * 3_600_000
"""A session that is as long is no measure of what was to be recorded."""
_PRICES = ("ts", "seq", "venue", "bid_price", "ask_price")
_DEPTH = ("ts", "seq", "bid_price", "bid_size", "ask_price", "ask_size")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RecordedDay:
    """All that the page shows. `session` are open and close in unix ms, None if nothing of a session is kept.

    `window` is the time to be covered: what was recorded, of a session if there is one. `passed` is the session as far
    as it is over; None without a session, or if it goes around the clock. intervals: the subscriptions on record.
    """

    day: date
    archive: str
    calendar: str
    session: tuple[int, int] | None
    passed: Window | None
    bins: Bins
    window: Window
    symbols: Sequence[SymbolDay]
    gaps: Sequence[Gap]
    depth: Sequence[DepthMap]
    ingests: Sequence[IngestDay]
    alerts: Sequence[KeptAlert] = ()
    intervals: Mapping[str, Sequence[SubscriptionInterval]] = field(default_factory=dict)

    @property
    def snapshots(self) -> int:
        """All snapshots, of all symbols."""
        return sum(each.snapshots for each in self.symbols)

    @property
    def missing(self) -> int:
        """Snapshots that gaps account for."""
        return sum(gap.size for gap in self.gaps)

    @property
    def troubles(self) -> int:
        """The alerts of trouble, all-clears and notices left out."""
        return sum(each.alert.kind is AlertKind.TROUBLE for each in self.alerts)

    @property
    def tracked_alerts(self) -> list[TrackedAlert]:
        """The alerts in order of their time, each with the all-clear of its ingest."""
        ingests = dict.fromkeys(each.ingest for each in self.alerts)
        found = [tracked_alerts(each.alert for each in self.alerts if each.ingest == ingest) for ingest in ingests]
        return sorted((each for some in found for each in some), key=lambda each: each.alert.ts)

    @property
    def refused_309(self) -> int:
        """The 309s of all ingests with figures."""
        return sum(total(ingest.refused_309) for ingest in self.ingests)

    @property
    def reconnects(self) -> int:
        """The reconnects of all ingests with figures."""
        return sum(total(ingest.reconnects) for ingest in self.ingests)

    @property
    def nothing_of(self) -> list[str]:
        """The symbols that an ingest was to record, and of which there is nothing."""
        wanted = {symbol for ingest in self.ingests for symbol in ingest.symbols}
        return sorted(wanted - {each.symbol for each in self.symbols})

    @property
    def coverage(self) -> float:
        """The mean of the symbols' coverage, from 0 to 1."""
        return sum(each.coverage for each in self.symbols) / len(self.symbols)

    @property
    def share_of_session(self) -> float | None:
        """The part of the session so far that was recorded at all, from 0 to 1; None without a session."""
        if self.passed is None:
            return None
        return min(1.0, (self.window.end - self.window.start) / (self.passed.end - self.passed.start))


def read_recorded_day(
    store: ArchiveStore,
    day: date,
    calendar: str,
    wanted: Sequence[str] = (),
    *,
    now_ms: int,
    within: Window | None = None,
) -> RecordedDay:
    """Read all that is kept of that UTC date; the depth of the symbols `wanted`, or else of all.

    What is to be covered, and drawn, is what was recorded: from the first snapshot or state of an ingest to the last,
    or what of it lies `within` a part of the day. Of a session only what has passed at `now_ms` counts.

    Raises NothingKept, ArchiveUnavailable, and ConfigurationError for a symbol of which nothing is kept.
    """
    files = {symbol: files_of(store, day, symbol) for symbol in symbols(store, day)}
    if not files:
        raise NothingKept(_nothing(store, day))
    _check(wanted, list(files), day)
    histories = {name: figures.read_figures(store, day, name) for name in figures.ingests(store, day)}
    recorded = _within(_recorded(files, histories), within, day)
    session = _session(calendar, day, recorded)
    window, part = _window(session, recorded), None if within is None else recorded
    bins = Bins.over(recorded.start, recorded.end)
    intervals = {symbol: intervals_of(store, day, symbol) for symbol in files}
    found = [_symbol_day(store, symbol, files[symbol], intervals[symbol], bins, window) for symbol in files]
    busiest_first = sorted(found, key=lambda each: -each.snapshots)
    chosen = [each for name in wanted for each in found if each.symbol == name] or busiest_first
    ingests = (ingest_day(name, table, bins, first_ms_of(day)) for name, table in histories.items())
    return RecordedDay(
        day=day,
        archive=store.url,
        calendar=calendar,
        session=session,
        passed=_passed(session, now_ms, recorded),
        bins=bins,
        window=window,
        symbols=found,
        gaps=[gap for symbol in files for gap in gaps_of(store, day, symbol) if _is_in(part, gap.next_ts)],
        depth=_present(_depth(store, each, files[each.symbol], intervals[each.symbol], bins) for each in chosen),
        ingests=_present(ingests),
        alerts=[each for each in alerts_of(store, day) if _is_in(part, each.alert.ts)],
        intervals=intervals,
    )


def _is_in(part: Window | None, ts: int) -> bool:
    return part is None or part.start <= ts < part.end


def _present(found: Iterable[_T | None]) -> list[_T]:
    return [each for each in found if each is not None]


def _nothing(store: ArchiveStore, day: date) -> str:
    kept = days(store)
    there_is = f"what is kept lies between {kept[0]} and {kept[-1]}" if kept else "it holds no snapshot at all"
    return f"archive {store.url}: nothing is kept of {day}; {there_is}"


def _check(wanted: Sequence[str], kept: Sequence[str], day: date) -> None:
    unknown = [symbol for symbol in wanted if symbol not in kept]
    if unknown:
        allowed = f"of that date there are {', '.join(kept)}"
        raise ConfigurationError("report", [f"nothing is kept of {symbol!r} on {day}; {allowed}" for symbol in unknown])


def _recorded(files: Mapping[str, Sequence[SpannedFile]], histories: Mapping[str, Any]) -> Window:
    """From the first snapshot or state of an ingest to the last."""
    spans = [file.span for each in files.values() for file in each]
    moments = [ts for span in spans for ts in (span.first.ts, span.last.ts)]
    for table in histories.values():
        if table.num_rows:
            written = table["written_ts"].cast(pa.int64()).to_numpy()
            moments += [int(written[0]), int(written[-1])]
    return Window(min(moments), max(max(moments), min(moments) + 1))


def _within(recorded: Window, part: Window | None, day: date) -> Window:
    if part is None:
        return recorded
    found = Window(max(recorded.start, part.start), min(recorded.end, part.end))
    if found.end <= found.start:
        kept = f"{utc_clock(recorded.start)} to {utc_clock(recorded.end)} UTC"
        raise NothingKept(f"nothing is kept of that part of {day}; what is kept is from {kept}")
    return found


def _session(calendar: str, day: date, recorded: Window) -> tuple[int, int] | None:
    """The session's time on that UTC date, if something of it was recorded."""
    opened, closed = session_of(calendar, day)
    if opened is None or closed is None:
        return None
    starts, ends = max(opened, first_ms_of(day)), min(closed, first_ms_of(day + timedelta(days=1)))
    return (starts, ends) if starts < recorded.end and recorded.start < ends else None


def _window(session: tuple[int, int] | None, recorded: Window) -> Window:
    """What is to be covered: what was recorded of the session."""
    if session is None:
        return recorded
    return Window(max(session[0], recorded.start), min(session[1], recorded.end))


def _passed(session: tuple[int, int] | None, now_ms: int, recorded: Window) -> Window | None:
    """The session as far as it is over."""
    if session is None or session[1] - session[0] >= _AROUND_THE_CLOCK_MS:
        return None
    return Window(session[0], max(min(session[1], max(now_ms, recorded.end)), session[0] + 1))


def _symbol_day(
    store: ArchiveStore,
    symbol: str,
    files: Sequence[SpannedFile],
    intervals: Sequence[SubscriptionInterval],
    bins: Bins,
    window: Window,
) -> SymbolDay:
    fold, index = SymbolFold(symbol, bins, window), IntervalIndex(intervals)
    for table in tables(store, files, _PRICES):
        venues = {row["values"]: row["counts"] for row in pc.value_counts(table["venue"]).to_pylist()}
        fold.add(_books(table, index), venues)
    return fold.result()


def _depth(
    store: ArchiveStore,
    day: SymbolDay,
    files: Sequence[SpannedFile],
    intervals: Sequence[SubscriptionInterval],
    bins: Bins,
) -> DepthMap | None:
    grid = price_grid(day)
    if grid is None:
        return None
    fold, index = DepthFold(bins, grid), IntervalIndex(intervals)
    for table in tables(store, files, _DEPTH):
        fold.add(_books(table, index))
    return fold.result(day.symbol)


def _books(table: Any, index: IntervalIndex) -> SnapshotColumns:
    names = ("bid_price", "ask_price", "bid_size", "ask_size")
    ts, seq = ids_of(table)
    bid, ask, bid_size, ask_size = (
        matrix(table, name) if name in table.column_names else np.zeros((len(ts), 0)) for name in names
    )
    number = index.of(ts, seq)
    return SnapshotColumns(ts, bid, ask, bid_size, ask_size, number, index.until(number))
