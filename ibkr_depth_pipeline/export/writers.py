"""Files of each format, written batch by batch. A writer owns the path that it is given: a temporary one."""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ibkr_depth_pipeline.export.archived import Selection
from ibkr_depth_pipeline.export.books import RECEIVED, SCHEMA, Books, end_of_all, tidy_table
from ibkr_depth_pipeline.export.formats import ExportFormat
from ibkr_depth_pipeline.export.hftbacktest import EVENT, EventEncoder, check_order
from ibkr_depth_pipeline.price_levels import Array
from ibkr_depth_pipeline.schema.intervals import SubscriptionInterval


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported. `intervals` are those of the day that books refer to; with_received if recv_ns was recorded.

    digits are the decimal places of prices and sizes, for the formats that need them.
    """

    symbol: str
    day: date
    selection: Selection
    intervals: tuple[SubscriptionInterval, ...]
    digits: tuple[int, int]
    with_received: bool


class Writer(Protocol):
    """Writes one export. `records` counts what the file holds, in its own unit."""

    records: int

    def write(self, books: Books) -> None:
        """Appends these books; they follow those before."""

    def finish(self) -> None:
        """Completes the file. Without it, or after an error, the file is to be thrown away."""

    def abandon(self) -> None:
        """Lets go of the file, finished or not."""


class TableWriter:
    """Tables as Parquet or CSV; a name that ends in .gz is compressed. The owner of the path closes it."""

    def __init__(self, path: Path, form: ExportFormat, name: str, schema: Any) -> None:
        self.records = 0
        self._stream = pa.output_stream(str(path), compression="gzip" if name.endswith(".gz") else None)
        if form is ExportFormat.CSV:
            self._file: Any = pa_csv.CSVWriter(self._stream, schema)
        else:
            self._file = pq.ParquetWriter(self._stream, schema, compression="zstd", compression_level=3)

    def append(self, table: Any) -> None:
        """Appends the table."""
        self._file.write_table(table)
        self.records += table.num_rows

    def finish(self) -> None:
        """Completes the file."""
        self._file.close()
        self._stream.close()

    def abandon(self) -> None:
        """Lets go of the file, finished or not."""
        self._stream.close()


class TidyWriter(TableWriter):
    """Books as tidy columns."""

    def __init__(self, path: Path, subject: Subject, form: ExportFormat, name: str) -> None:
        super().__init__(path, form, name, SCHEMA.append(RECEIVED) if subject.with_received else SCHEMA)
        self._with_received = subject.with_received

    def write(self, books: Books) -> None:
        """Appends these books."""
        self.append(tidy_table(books, with_received=self._with_received))


class DbnWriter:
    """MBP-10 records behind the library's header, in one zstd stream."""

    def __init__(self, path: Path, subject: Subject) -> None:
        from ibkr_depth_pipeline.export import dbn

        self._dbn = dbn
        self.records = 0
        self._end_ms = subject.selection.end_ms
        self._numbers = dbn.instrument_ids(subject.symbol, (each.con_id for each in subject.intervals))
        self._before: Books | None = None
        self._stream = pa.output_stream(str(path), compression="zstd")
        span = (subject.selection.first_ms, subject.selection.end_ms)
        self._stream.write(dbn.header(subject.symbol, subject.day, span, self._numbers))

    def write(self, books: Books) -> None:
        self._append(self._dbn.records(books, self._before, self._numbers))
        self._before = books[-1:]

    def finish(self) -> None:
        if self._before is not None:
            self._append(self._dbn.clears(end_of_all(self._before, self._end_ms), self._numbers))
        self._stream.close()

    def abandon(self) -> None:
        self._stream.close()

    def _append(self, records: Array) -> None:
        self._stream.write(records)
        self.records += len(records)


class EventWriter:
    """hftbacktest's events as its npz file: one array, `data`, whose length must be known before it is written."""

    def __init__(self, path: Path, subject: Subject) -> None:
        self.records = 0
        self._path = path
        self._end_ms = subject.selection.end_ms
        self._encoder = EventEncoder()
        self._events = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - `abandon` closes it

    def write(self, books: Books) -> None:
        self._append(self._encoder.encode(books))

    def finish(self) -> None:
        self._append(self._encoder.finish(self._end_ms))
        self._events.seek(0)
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("data.npy", "w", force_zip64=True) as file:
                header = np.lib.format.header_data_from_array_1_0(np.zeros(0, EVENT))
                np.lib.format.write_array_header_1_0(file, {**header, "shape": (self.records,)})
                while block := self._events.read(1 << 20):
                    file.write(block)

    def abandon(self) -> None:
        self._events.close()

    def _append(self, events: Array) -> None:
        check_order(events)
        self._events.write(events.tobytes())
        self.records += len(events)


def open_writer(form: ExportFormat, path: Path, subject: Subject, name: str) -> Writer:
    """The writer of the format. `name` is the one that the file will have. Its library must be installed."""
    match form:
        case ExportFormat.PARQUET | ExportFormat.CSV:
            return TidyWriter(path, subject, form, name)
        case ExportFormat.DBN:
            return DbnWriter(path, subject)
        case ExportFormat.HFTBACKTEST:
            return EventWriter(path, subject)
        case ExportFormat.NAUTILUS:
            return _catalog_writer(path, subject)


def _catalog_writer(path: Path, subject: Subject) -> Writer:
    from ibkr_depth_pipeline.export.nautilus import CatalogWriter, instrument_ids

    instruments = instrument_ids(subject.symbol, (each.venue for each in subject.intervals))
    return CatalogWriter(path, instruments, subject.digits, subject.selection.end_ms)
