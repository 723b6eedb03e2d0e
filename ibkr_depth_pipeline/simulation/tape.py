"""Recorded depth, read from a file: whole books, one per change, or the rows that a gateway sent, batch by batch.

Two layouts, told apart by their header line, both CSV and gzipped where the name ends in `.gz`:

* books: `ts_ns` (UTC epoch ns) and `bp0.. bs0.. ap0.. as0..` (prices as integers of 0.0001, sizes, best first), any
  number of levels; other columns are ignored. A price of 0 or an empty field ends a side.
* rows: `batch,time_utc,position,market_maker,operation,side,price,size`, the wire's own numbers.

A file is read whole; a day of a busy stock takes some hundreds of MB.
"""

import csv
import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import IO

from ibkr_depth_pipeline.simulation.rows import INSERT, Book, DepthRow, Level, apply_rows

_PRICE_UNITS = 10_000
Record = Mapping[str, str]


class TapeError(ValueError):
    """A file that cannot be played: names the file, the line and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The book from one point of the recording on."""

    at: float
    """Seconds since the recording's first moment."""
    book: Book
    rows: tuple[DepthRow, ...] | None = None
    """The rows that led here, where the recording has rows; None if it has books."""
    error: int | None = None
    """The error that led here instead: 317 empties the book, 316 ends the subscription."""


@dataclass(frozen=True, slots=True)
class Tape:
    opening: Book
    """The book before the first of `moments`."""
    moments: tuple[Moment, ...]
    holds_rows: bool

    @property
    def books(self) -> tuple[Book, ...]:
        """Every state in order, the opening first."""
        return (self.opening, *(moment.book for moment in self.moments))


def symbol_of(path: Path) -> str:
    """The symbol that a file is for by its name: what stands before the first underscore."""
    return path.name.split("_")[0].split(".")[0]


def read_tape(path: Path, market_maker: str = "", limit: int | None = None) -> Tape:
    """The recording in a file, cut after `limit` moments.

    Books name no market makers: every level gets the invented name `market_maker`. Rows keep their own.
    Raises TapeError for a file that is missing, unreadable, of another layout, or empty.
    """
    try:
        with _open(path) as file:
            reader = csv.DictReader(file)
            read = _layout(path, reader.fieldnames or ())
            return read(path, reader, market_maker, limit)
    except (OSError, EOFError, UnicodeDecodeError) as problem:
        raise TapeError(f"{path}: {problem}") from problem


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _layout(path: Path, columns: Iterable[str]) -> Callable[[Path, Iterable[Record], str, int | None], Tape]:
    names = set(columns)
    if {"ts_ns", "bp0", "bs0", "ap0", "as0"} <= names:
        return _read_books
    if {"batch", "time_utc", "position", "market_maker", "operation", "side", "price", "size"} <= names:
        return _read_rows
    raise TapeError(f"{path}: line 1: neither books (ts_ns, bp0, bs0, ap0, as0, ...) nor rows (batch, time_utc, ...)")


def _read_books(path: Path, records: Iterable[Record], market_maker: str, limit: int | None) -> Tape:
    level = cache(lambda price, size: Level(int(price) / _PRICE_UNITS, float(size), market_maker))
    states: list[tuple[int, Book]] = []
    for line, record in enumerate(records, start=2):
        if limit is not None and len(states) > limit:
            break
        try:
            states.append((int(record["ts_ns"]), Book(_side(record, "b", level), _side(record, "a", level))))
        except (ValueError, TypeError) as problem:
            raise TapeError(f"{path}: line {line}: {problem}") from problem
    if not states:
        raise TapeError(f"{path}: no line after the header")
    start, opening = states[0]
    moments = tuple(Moment((at - start) / 1e9, book) for at, book in states[1:])
    return Tape(opening, moments, holds_rows=False)


def _side(record: Record, side: str, level: Callable[[str, str], Level]) -> tuple[Level, ...]:
    levels: list[Level] = []
    while (price := record.get(f"{side}p{len(levels)}")) not in (None, "", "0"):
        levels.append(level(str(price), record[f"{side}s{len(levels)}"]))
    return tuple(levels)


def _read_rows(path: Path, records: Iterable[Record], market_maker: str, limit: int | None) -> Tape:
    parsed = list(_parsed_rows(path, records))
    if not parsed:
        raise TapeError(f"{path}: no line after the header")
    batches = [list(group) for _, group in groupby(parsed, key=lambda item: item[0])][:limit]
    opening = book = _placeholder_book([row for batch in batches for _, _, row in batch])
    start = batches[0][0][1]
    moments = []
    for batch in batches:
        rows = tuple(row for _, _, row in batch)
        try:
            book = apply_rows(book, rows)
        except (IndexError, KeyError) as problem:
            raise TapeError(f"{path}: batch {batch[0][0]}: {problem}") from problem
        moments.append(Moment(batch[0][1] - start, book, rows))
    return Tape(opening, tuple(moments), holds_rows=True)


def _parsed_rows(path: Path, records: Iterable[Record]) -> Iterator[tuple[str, float, DepthRow]]:
    for line, record in enumerate(records, start=2):
        try:
            at = datetime.fromisoformat(record["time_utc"]).timestamp()
            position, operation, side = (int(record[name]) for name in ("position", "operation", "side"))
            price, size = float(record["price"]), float(record["size"])
            yield record["batch"], at, DepthRow(position, operation, side, price, size, record["market_maker"])
        except (ValueError, TypeError) as problem:
            raise TapeError(f"{path}: line {line}: {problem}") from problem


def _placeholder_book(rows: list[DepthRow]) -> Book:
    """The book before a recording that starts after the subscription's inserts, as far as it can be known.

    Nobody recorded it: every level starts with the first values that the recording gives it later on. A recording
    that opens with an insert starts from an empty book.
    """
    if rows[0].operation == INSERT:
        return Book()
    first: dict[tuple[int, int], Level] = {}
    for row in rows:
        first.setdefault((row.side, row.position), Level(row.price, row.size, row.market_maker))
    sides = []
    for side in (1, 0):
        levels: list[Level] = []
        while (side, len(levels)) in first:
            levels.append(first[side, len(levels)])
        sides.append(tuple(levels))
    return Book(*sides)
