"""Alerts in the archive: from stream to table, and those of a date. docs/archive.md is the contract."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from ibkr_depth_pipeline.archive.layout import ALERTS, first_ms_of
from ibkr_depth_pipeline.archive.parquet_schema import STORED_ALERTS
from ibkr_depth_pipeline.archive.reading import read_day, symbols
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.schema.alerts import ALERT_FIELDS, Alert, AlertKind, encode_alert
from ibkr_depth_pipeline.schema.keys import StreamId


class KeptAlert(NamedTuple):
    """An alert, the ingest that it is of, and the id of its entry."""

    ingest: str
    entry: StreamId
    alert: Alert


def alert_table(alerts: Iterable[tuple[StreamId, Alert]]) -> Any:
    """Alerts, each with the id of its entry, as a table of STORED_ALERTS."""
    rows = [{**encode_alert(alert), "ts": alert.ts, "stored": entry.ts, "number": entry.seq} for entry, alert in alerts]
    return pa.Table.from_pylist(rows, STORED_ALERTS)


def alerts_of(store: ArchiveStore, day: date) -> list[KeptAlert]:
    """The alerts that were raised on that UTC date, of all ingests, in order of their time. Raises ArchiveUnavailable.

    An alert is kept on the date on which Redis took it: the next one, if it was away then, or at midnight.
    """
    starts, ends = first_ms_of(day), first_ms_of(day + timedelta(days=1))
    found = [each for kept_on in (day, day + timedelta(days=1)) for each in alerts_kept_on(store, kept_on)]
    return sorted((each for each in found if starts <= each.alert.ts < ends), key=lambda each: each.alert.ts)


def alerts_kept_on(store: ArchiveStore, day: date) -> list[KeptAlert]:
    """The alerts that Redis took on that UTC date, ingest by ingest, in order. Raises ArchiveUnavailable."""
    return [
        each
        for ingest in symbols(store, day, ALERTS)
        for each in _alerts_in(ingest, read_day(store, day, ingest, ALERTS))
    ]


def _alerts_in(ingest: str, table: Any) -> Iterable[KeptAlert]:
    for name in ("stored", "ts"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int64()))
    for row in table.to_pylist():
        fields = {name: row[name] for name in ALERT_FIELDS}
        yield KeptAlert(
            ingest, StreamId(row["stored"], row["number"]), Alert(**{**fields, "kind": AlertKind(row["kind"])})
        )
