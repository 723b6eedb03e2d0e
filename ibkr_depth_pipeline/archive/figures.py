"""The history of the ingests' figures, of which Redis has only the newest state. docs/archive.md is the contract.

A row is one state of an ingest, as schema/status.py has it. The same state may be seen twice, after a restart of the
archiver: a reader counts it once, so nothing has to be remembered but the files.
"""

from __future__ import annotations

import io
from dataclasses import asdict
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ibkr_depth_pipeline.archive.layout import (
    FIGURES,
    Place,
    day_figures_place,
    day_folder,
    day_of,
    figures_place,
    folder,
)
from ibkr_depth_pipeline.archive.parquet_schema import DAY_LEVEL, PART_LEVEL
from ibkr_depth_pipeline.archive.reading import settled
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.schema.status import FeedFigures

_TS = pa.timestamp("ms", "UTC")


def _field(name: str, kind: Any, *, nullable: bool = False) -> Any:
    return pa.field(name, kind, nullable=nullable)


_SYMBOL = pa.struct(
    [
        _field("symbol", pa.string()),
        _field("subscribed", pa.bool_()),
        _field("last_row_ts", _TS),
        *(_field(name, pa.int64()) for name in ("rows", "live_ms")),
        *(_field(name, pa.float64()) for name in ("bid0", "ask0")),
        *(_field(name, pa.int64()) for name in ("snapshots", "newest_seq", "lost", "refused_309")),
        _field("venue", pa.string()),
        _field("dropped", pa.map_(pa.string(), pa.int64())),
        _field("trouble", pa.string()),
        *(_field(name, pa.int64()) for name in ("silent", "out_of_step", "asked_again")),
        _field("row_age_ms", pa.int64(), nullable=True),
        _field("weight", pa.int64()),
        _field("pinned", pa.bool_()),
        _field("share", pa.float64()),
        _field("next_turn_secs", pa.float64(), nullable=True),
        _field("con_id", pa.int64()),
        *(_field(name, pa.string()) for name in ("contract", "expiry", "hours")),
        *(_field(name, pa.int64()) for name in ("closed_until", "first_due_ts")),
        _field("focus", pa.string()),
    ]
)
_CLOCK = pa.struct(
    [
        *(_field(name, pa.int64()) for name in ("steps", "step_ms", "ts_ahead_ms")),
        *(_field(name, pa.int64(), nullable=True) for name in ("gateway_ms", "gateway_error_ms")),
    ]
)
_FACTS = pa.struct(
    [
        _field("file", pa.string()),
        *(_field(name, pa.int64(), nullable=True) for name in ("slots", "slots_ts")),
        _field("release_pause_secs", pa.float64(), nullable=True),
        _field("release_pause_ts", pa.int64(), nullable=True),
        _field("problem", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        _field("written_ts", _TS),
        *(_field(name, pa.string()) for name in ("run_id", "host")),
        _field("pid", pa.int64()),
        _field("process", pa.string()),
        *(_field(name, _TS) for name in ("started_ts", "ended_ts")),
        *(_field(name, pa.bool_()) for name in ("connected", "suspended")),
        _field("ailments", pa.list_(pa.int64())),
        *(_field(name, pa.int64()) for name in ("batch_size", "turns", "connections", "reconnects", "refused_309")),
        _field("pacing_violations", pa.int64()),
        *(_field(name, pa.int64()) for name in ("buffer_bytes", "buffer_bound", "buffer_entries")),
        *(_field(name, pa.int64()) for name in ("lost", "write_failures")),
        *(_field(name, pa.float64(), nullable=True) for name in ("lag_p50_ms", "lag_p99_ms")),
        _field("clock", _CLOCK, nullable=True),
        *(_field(name, pa.string()) for name in ("universe_problem", "size_changes")),
        _field("up_ms", pa.int64(), nullable=True),
        _field("standby", pa.bool_()),
        _field("standbys_ready", pa.int64(), nullable=True),
        _field("facts", _FACTS, nullable=True),
        _field("symbols", pa.list_(_SYMBOL)),
    ]
)
"""One row a state; fields are those of docs/redis-schema.md, `run` spread out, times as timestamps (0 is 1970)."""

_LATER: dict[str, Any] = {
    **{"process": "", "pacing_violations": 0, "clock": None},
    **{"universe_problem": "", "size_changes": "", "up_ms": None, "standby": False, "standbys_ready": None},
    "facts": None,
}
_LATER_OF_SYMBOL: dict[str, Any] = {
    **{"trouble": "", "silent": 0, "out_of_step": 0, "asked_again": 0},
    "row_age_ms": None,
    **{"weight": 1, "pinned": False, "share": 0.0, "next_turn_secs": None},
    **{"con_id": 0, "contract": "", "expiry": "", "hours": "", "closed_until": 0, "first_due_ts": 0, "focus": ""},
}
"""What older files lack, and what stands for it."""


class FiguresBuffer:
    """The states that are seen and not yet in a file, of each ingest."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[str, int]] = {}
        self._rows: dict[tuple[str, date], list[dict[str, Any]]] = {}
        self._since: dict[tuple[str, date], float] = {}

    def add(self, ingest: str, figures: FeedFigures, now: float) -> bool:
        """Take a state, seen at `now` (of any clock). Returns whether it is another than the one before."""
        seen = (figures.run.run_id, figures.written_ts)
        if self._newest.get(ingest) == seen:
            return False
        self._newest[ingest] = seen
        try:
            key = (ingest, day_of(figures.written_ts))
        except (ValueError, OverflowError, OSError):  # no time that a date can have: no figures of ours
            return False
        self._rows.setdefault(key, []).append(_row(figures))
        self._since.setdefault(key, now)
        return True

    def take(self, older_than: float) -> list[tuple[Place, bytes]]:
        """Files of what has waited since `older_than` or longer."""
        ready = [key for key, since in self._since.items() if since <= older_than]
        return [self._file(key) for key in ready]

    def _file(self, key: tuple[str, date]) -> tuple[Place, bytes]:
        rows = self._rows.pop(key)
        del self._since[key]
        moments = [row["written_ts"] for row in rows]
        return figures_place(*key, min(moments), max(moments)), _bytes(pa.Table.from_pylist(rows, SCHEMA), PART_LEVEL)


def _row(figures: FeedFigures) -> dict[str, Any]:
    row = asdict(figures)
    row |= row.pop("run")
    row["symbols"] = [
        {"symbol": name, **each, "dropped": list(each["dropped"].items())} for name, each in row["symbols"].items()
    ]
    return row


def _bytes(table: Any, level: int) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", compression_level=level)
    return file.getvalue()


def ingests(store: ArchiveStore, day: date) -> list[str]:
    """The ingests that have figures of that date, by name."""
    return sorted({place.symbol for place in store.places(day_folder(FIGURES, day))})


def read_figures(store: ArchiveStore, day: date, ingest: str) -> Any:
    """An ingest's day as one Arrow table (SCHEMA), each state once, in order. Raises ArchiveUnavailable."""
    under = folder(FIGURES, day, ingest)
    return _once(settled(store, lambda: [_read(store, place) for place in store.places(under)]))


def compact_figures(store: ArchiveStore, day: date) -> None:
    """Makes one file of each ingest's day. Only one caller may compact at a time. Idempotent."""
    for ingest in ingests(store, day):
        place = day_figures_place(ingest, day)
        files = store.places(folder(FIGURES, day, ingest))
        parts = [file for file in files if file != place]
        if not parts:
            continue
        table = _once([_read(store, file) for file in files])
        with store.written_aside("day") as aside:
            aside.write_bytes(_bytes(table, DAY_LEVEL))
            store.publish(aside, place)
        store.delete(parts)


def _read(store: ArchiveStore, place: Place) -> Any:
    with store.parquet(place) as file:
        table = file.read()
    if not set(SCHEMA.names) <= set(table.column_names) or not _symbol_names(SCHEMA) <= _symbol_names(table.schema):
        table = pa.Table.from_pylist([_completed(row) for row in table.to_pylist()], SCHEMA)
    return table.cast(SCHEMA)


def _symbol_names(schema: Any) -> set[str]:
    return {field.name for field in schema.field("symbols").type.value_type}


def _completed(row: dict[str, Any]) -> dict[str, Any]:
    """A row that was written before there were all of today's figures."""
    return {**_LATER, **row, "symbols": [{**_LATER_OF_SYMBOL, **each} for each in row["symbols"]]}


def _once(tables: list[Any]) -> Any:
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    states = zip(table["written_ts"].cast(pa.int64()).to_pylist(), table["run_id"].to_pylist(), strict=True)
    first_at: dict[tuple[int, str], int] = {}
    for at, state in enumerate(states):
        first_at.setdefault(state, at)
    return table.take(pa.array([first_at[state] for state in sorted(first_at)], pa.int64()))
