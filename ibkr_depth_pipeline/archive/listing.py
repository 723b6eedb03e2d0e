"""What an archive holds: a line a date and symbol, and the alerts of a date and ingest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from ibkr_depth_pipeline.archive.alerts import alerts_kept_on
from ibkr_depth_pipeline.archive.archived_day import open_day
from ibkr_depth_pipeline.archive.intervals import intervals_of, observed_ms
from ibkr_depth_pipeline.archive.layout import ALERTS, first_ms_of
from ibkr_depth_pipeline.archive.reading import days, files_of, gaps_of, settled, symbols
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.schema.alerts import AlertKind

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class ListedDay:
    """A symbol's UTC date: snapshots, ms in which its book was observed, holes and what is missing in them, and bytes.

    inferred: that the observed time is inferred from the snapshots, wholly or in part (InferredIntervals).
    """

    day: date
    symbol: str
    snapshots: int
    observed_ms: int
    intervals: int
    inferred: bool
    holes: int
    missing: int
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """Its fields, the date as ISO text under `date`."""
        fields = asdict(self)
        return {"date": fields.pop("day").isoformat(), **fields}


def list_days(store: ArchiveStore, wanted_days: Sequence[date] = (), wanted: Sequence[str] = ()) -> Iterator[ListedDay]:
    """Each date and symbol of which snapshots are kept, in order; only those wanted, all if none are named.

    Raises ArchiveUnavailable.
    """
    for day in sorted(set(wanted_days)) or days(store):
        for symbol in symbols(store, day):
            if not wanted or symbol in wanted:
                yield _listed(store, day, symbol)


def _listed(store: ArchiveStore, day: date, symbol: str) -> ListedDay:
    snapshots, size = settled(store, lambda: _counted(store, day, symbol))
    recorded = [each for each in intervals_of(store, day, symbol) if each.first_row is not None]
    held = sum(1 + each.last_seq - each.first_seq for each in recorded if each.first_seq and each.last_seq)
    gaps = gaps_of(store, day, symbol)
    inferred = held < snapshots  # not all of them are in a recorded interval
    intervals = [each for each in open_day(store, day, symbol).intervals if each.first_row] if inferred else recorded
    return ListedDay(
        day,
        symbol,
        snapshots,
        observed_ms(intervals, first_ms_of(day), first_ms_of(day) + _DAY_MS),
        len(intervals),
        inferred,
        len(gaps),
        sum(gap.size for gap in gaps),
        size,
    )


def _counted(store: ArchiveStore, day: date, symbol: str) -> tuple[int, int]:
    """Snapshots and bytes, by what stands in the files' footers."""
    rows = size = 0
    for file in files_of(store, day, symbol):
        size += store.size(file.place)
        with store.parquet(file.place) as opened:
            rows += opened.metadata.num_rows
    return rows, size


@dataclass(frozen=True, slots=True)
class ListedAlerts:
    """How many alerts and all-clears of an ingest Redis took on a UTC date, and how many of them were of trouble."""

    day: date
    ingest: str
    alerts: int
    trouble: int

    def as_json(self) -> dict[str, Any]:
        """Its fields, the date as ISO text under `date`."""
        fields = asdict(self)
        return {"date": fields.pop("day").isoformat(), **fields}


def list_alerts(store: ArchiveStore, wanted_days: Sequence[date] = ()) -> Iterator[ListedAlerts]:
    """Each date and ingest of which alerts are kept, in order; only those dates, all if none are named.

    Raises ArchiveUnavailable.
    """
    for day in sorted(set(wanted_days)) or days(store, ALERTS):
        kinds: dict[str, list[AlertKind]] = {}
        for each in alerts_kept_on(store, day):
            kinds.setdefault(each.ingest, []).append(each.alert.kind)
        for ingest, found in kinds.items():
            yield ListedAlerts(day, ingest, len(found), found.count(AlertKind.TROUBLE))
