"""The columns of the archive's files, and how they are written. docs/archive.md is their contract."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ibkr_depth_pipeline.archive.layout import ALERTS, BOOKS, DAYS, INTERVALS, PARTS, ROWS, IdSpan, Place
from ibkr_depth_pipeline.model import SNAPSHOT_LEVELS
from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline.schema.size_units import UNIT_FIELDS, SizeUnit

VERSION = b"2"
_VERSION_KEY, _SYMBOL_KEY = b"ibkr_depth.schema", b"ibkr_depth.symbol"
_UNITS_KEY = b"ibkr_depth.units"
_FIRST_KEY, _LAST_KEY, _RUNS_KEY = b"ibkr_depth.first_id", b"ibkr_depth.last_id", b"ibkr_depth.runs"

_NAME = pa.dictionary(pa.int16(), pa.string())
_NAMES = pa.string()
"""Within lists pyarrow can't read dictionaries across row groups. In the file they are dictionaries all the same."""


def _side(element: Any) -> Any:
    return pa.list_(pa.field("element", element, nullable=False), SNAPSHOT_LEVELS)


SNAPSHOTS = pa.schema(
    [
        pa.field("ts", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("venue", _NAME, nullable=False),
        *(
            pa.field(f"{side}_{what}", _side(element), nullable=False)
            for side in ("bid", "ask")
            for what, element in (("price", pa.float64()), ("size", pa.float64()), ("venue", _NAMES))
        ),
        pa.field("con_id", pa.int64()),
        pa.field("local_symbol", _NAME),
        pa.field("expiry", _NAME),
        pa.field("recv_ns", pa.int64()),
    ]
)
"""One row a snapshot; sides are best first, and an empty level is 0.0, 0.0 and "", as in Redis.

The contract's columns are null where it is not known. recv_ns, unix ns, is null if the recorder did not store it.
"""

_TS = pa.timestamp("ms", "UTC")


def _nullable(kind: Any, *names: str) -> list[Any]:
    return [pa.field(name, kind) for name in names]


def _required(kind: Any, *names: str) -> list[Any]:
    return [pa.field(name, kind, nullable=False) for name in names]


ENDED_INTERVALS = pa.schema(
    [
        *_required(_TS, "ended"),
        *_required(pa.int64(), "subscription"),
        *_required(pa.string(), "venue"),
        *_required(pa.int64(), "con_id"),
        *_required(pa.string(), "local_symbol"),
        *_required(_TS, "requested"),
        *_nullable(_TS, "first_row", "complete", "until"),
        *_nullable(pa.int64(), "first_seq", "last_seq"),
        *_required(pa.int64(), "rows"),
        *_required(pa.string(), "end", "size_unit"),
        *_nullable(pa.float64(), "min_size", "size_increment"),
        *_required(pa.int64(), "server_version", "rows_requested", "rows_stored", "size_fractional"),
    ]
)
"""One row an ended subscription: the fields of docs/redis-schema.md, moments as timestamps, `ended` that of the id."""

_WORD = pa.dictionary(pa.int8(), pa.string())
STORED_ROWS = pa.schema(
    [
        *_required(_TS, "ts"),
        *_required(pa.int64(), "seq", "recv_ns", "subscription"),
        *_required(_WORD, "operation", "side"),
        *_required(pa.int16(), "position"),
        *_required(pa.float64(), "price", "size"),
        *_required(_NAME, "mm"),
    ]
)
"""One row a row of depth: the fields of docs/redis-schema.md; ts and seq are those of the snapshot that it led to."""

STORED_ALERTS = pa.schema(
    [
        *_required(_TS, "stored"),
        *_required(pa.int64(), "number"),
        *_required(_TS, "ts"),
        *_required(pa.string(), "kind", "cause", "title", "text"),
    ]
)
"""One row an alert or an all-clear: the fields of docs/redis-schema.md; `stored` and `number` are those of the id."""

HOLES = pa.schema(
    [
        pa.field("first_seq", pa.int64(), nullable=False),
        pa.field("last_seq", pa.int64(), nullable=False),
        pa.field("after_ts", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("before_ts", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""One row a gap: these seqs are not in the archive and never will be."""


class Table(NamedTuple):
    """A tree that holds entries of streams: its columns, those that make an entry's id, and how they are encoded."""

    tree: str
    schema: Any
    ids: tuple[str, str]
    dictionaries: Any
    encodings: Any = None


# Values of consecutive books repeat as runs of bytes, which zstd finds by itself: dictionaries of prices and sizes make
# files larger and slower. Names are few.
SNAPSHOT_TABLE = Table(
    BOOKS,
    SNAPSHOTS,
    ids=("ts", "seq"),
    dictionaries=["venue", "local_symbol", "expiry", "bid_venue.list.element", "ask_venue.list.element"],
    encodings=dict.fromkeys(("ts", "seq", "recv_ns"), "DELTA_BINARY_PACKED"),
)
INTERVAL_TABLE = Table(INTERVALS, ENDED_INTERVALS, ids=("ended", "subscription"), dictionaries=True)
ROW_TABLE = Table(
    ROWS,
    STORED_ROWS,
    ids=("ts", "seq"),
    dictionaries=["operation", "side", "mm", "price"],
    encodings=dict.fromkeys(("ts", "seq", "recv_ns", "subscription", "position"), "DELTA_BINARY_PACKED"),
)
ALERT_TABLE = Table(ALERTS, STORED_ALERTS, ids=("stored", "number"), dictionaries=["kind", "cause"])
TABLES = {table.tree: table for table in (SNAPSHOT_TABLE, INTERVAL_TABLE, ROW_TABLE, ALERT_TABLE)}


def table_at(place: Place) -> Table:
    """The table that a file belongs to."""
    return TABLES[BOOKS if place.tree in (PARTS, DAYS) else place.tree]


PART_LEVEL, DAY_LEVEL = 3, 9
"""zstd: parts are written while the market runs, days once (docs/archive.md has the measurements)."""
ROWS_PER_GROUP = 65_536


def unit_of(interval: SubscriptionInterval) -> SizeUnit | None:
    """The unit of sizes that is on record; None if nothing is known."""
    values = {name: getattr(interval, name) for name in UNIT_FIELDS}
    unit = SizeUnit(**{**values, "size_fractional": bool(interval.size_fractional)})
    return unit if any(unit) else None


def units_of(intervals: Iterable[SubscriptionInterval]) -> list[SizeUnit]:
    """Each that is on record, once, in order."""
    return list(dict.fromkeys(unit for each in intervals if (unit := unit_of(each)) is not None))


class FileInfo(NamedTuple):
    """The contents of a snapshot file by its footer. `runs` are spans that it holds whole; none if it is not ours."""

    rows: int
    runs: tuple[IdSpan, ...]

    @property
    def span(self) -> IdSpan | None:
        """From the first to the last snapshot."""
        return IdSpan(self.runs[0].first, self.runs[-1].last) if self.runs else None


def described(table: Table, symbol: str, runs: Sequence[IdSpan], units: Sequence[SizeUnit] = ()) -> Any:
    """The schema with the symbol and what is in the file: between two of the spans there may be more elsewhere."""
    known = {_UNITS_KEY: orjson.dumps([each._asdict() for each in units])} if units else {}
    return table.schema.with_metadata(
        {
            **known,
            _VERSION_KEY: VERSION,
            _SYMBOL_KEY: symbol.encode(),
            _FIRST_KEY: str(runs[0].first).encode(),
            _LAST_KEY: str(runs[-1].last).encode(),
            _RUNS_KEY: b" ".join(f"{run.first}_{run.last}".encode() for run in runs),
        }
    )


def write_options(table: Table, level: int) -> dict[str, Any]:
    """How files of a table are encoded, for pyarrow's writers."""
    return {
        "compression": "zstd",
        "compression_level": level,
        "use_dictionary": table.dictionaries,
        "column_encoding": table.encodings,
    }


def part_bytes(
    symbol: str, span: IdSpan, rows: Any, table: Table = SNAPSHOT_TABLE, units: Sequence[SizeUnit] = ()
) -> bytes:
    """A part as a file."""
    file = io.BytesIO()
    pq.write_table(rows.cast(described(table, symbol, [span], units)), file, **write_options(table, PART_LEVEL))
    return file.getvalue()


def gap_row(gap: Gap) -> dict[str, Any]:
    """A gap as a row of HOLES; its moments are unix ms."""
    return {
        "first_seq": gap.first_seq,
        "last_seq": gap.last_seq,
        "after_ts": gap.after.ts,
        "before_ts": gap.next_ts,
        "reason": gap.cause.value,
    }


def gap_bytes(rows: list[dict[str, Any]]) -> bytes:
    """Rows of HOLES as a file."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=HOLES), file, compression="zstd")
    return file.getvalue()


def file_info(file: pq.ParquetFile) -> FileInfo:
    """Reads the footer."""
    footer = file.schema_arrow.metadata or {}
    if _FIRST_KEY not in footer or _LAST_KEY not in footer:
        return FileInfo(file.metadata.num_rows, ())
    runs = footer.get(_RUNS_KEY, footer[_FIRST_KEY] + b"_" + footer[_LAST_KEY])  # files from before there were runs
    return FileInfo(file.metadata.num_rows, tuple(IdSpan(*map(StreamId.of, run.split(b"_"))) for run in runs.split()))
