"""Recorded depth, read from a file, and its replay as a feed's source. Pure but for the reading of the file.

A tape holds whole books, one per change, or the rows that a gateway sent, batch by batch. The header line decides
which; both are CSV, and gzipped if the name ends in `.gz`:

* books: `ts_ns` (UTC epoch ns) and `bp0.. bs0.. ap0.. as0..` (prices as integers of 0.0001, sizes, best first), any
  number of levels; other columns are ignored. A price of 0 or an empty field ends a side.
* rows: `batch,time_utc,position,market_maker,operation,side,price,size`, the wire's own numbers.

A file is read whole; a day of a busy stock takes some hundreds of MB. A replay goes at the recording's own speed, at a
fixed rate, or as fast as it is read. It keeps its place while it has no follower; a later one gets the present book as
inserts first. Every change reaches every follower: a slow one holds the replay up.
"""

import csv
import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import IO

from ibkr_depth_pipeline.simulation.options import AtEnd, ReplayOptions, ReplayPace
from ibkr_depth_pipeline.simulation.rows import (
    INSERT,
    Book,
    BookLevel,
    Change,
    RowStyle,
    SourceStep,
    WireRow,
    apply_rows,
)

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
    rows: tuple[WireRow, ...] | None = None
    """The rows that led here, if the recording has rows; None if it has books."""
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
    level = cache(lambda price, size: BookLevel(int(price) / _PRICE_UNITS, float(size), market_maker))
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


def _side(record: Record, side: str, level: Callable[[str, str], BookLevel]) -> tuple[BookLevel, ...]:
    levels: list[BookLevel] = []
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


def _parsed_rows(path: Path, records: Iterable[Record]) -> Iterator[tuple[str, float, WireRow]]:
    for line, record in enumerate(records, start=2):
        try:
            at = datetime.fromisoformat(record["time_utc"]).timestamp()
            position, operation, side = (int(record[name]) for name in ("position", "operation", "side"))
            price, size = float(record["price"]), float(record["size"])
            yield record["batch"], at, WireRow(position, operation, side, price, size, record["market_maker"])
        except (ValueError, TypeError) as problem:
            raise TapeError(f"{path}: line {line}: {problem}") from problem


def _placeholder_book(rows: list[WireRow]) -> Book:
    """The book before a recording that starts after the subscription's inserts, as far as it can be known.

    Nobody recorded it: every level starts with the first values that the recording gives it later on. A recording
    that opens with an insert starts from an empty book.
    """
    if rows[0].operation == INSERT:
        return Book()
    first: dict[tuple[int, int], BookLevel] = {}
    for row in rows:
        first.setdefault((row.side, row.position), BookLevel(row.price, row.size, row.market_maker))
    sides = []
    for side in (1, 0):
        levels: list[BookLevel] = []
        while (side, len(levels)) in first:
            levels.append(first[side, len(levels)])
        sides.append(tuple(levels))
    return Book(*sides)


# ---- the replay


_TOGETHER = 0.001
"""Seconds: changes of a real-speed replay that are no further apart leave in one write."""
_FAST_CHUNK = 100
_WRITES_A_SECOND = 100


class Replay:
    """Plays a tape. Books become the rows between them; recorded rows go out as they were, one batch a write."""

    lossless = True
    quiet = False

    def __init__(self, tape: Tape, options: ReplayOptions) -> None:
        self.book = tape.opening
        self._tape = tape
        self._options = options
        self._place = 0
        self._clock = 0.0

    @property
    def over(self) -> bool:
        return self._options.at_end is AtEnd.STOP and self._place >= len(self._tape.moments)

    def next_step(self) -> SourceStep | None:
        """The next changes that leave together, and how long after the step before."""
        if self.over or not self._tape.moments:
            return None
        if self._options.pace is ReplayPace.REAL:
            return self._real_step()
        if self._options.pace is ReplayPace.FAST:
            return SourceStep(0.0, self._take(1 if self._tape.holds_rows else _FAST_CHUNK))
        together = 1 if self._tape.holds_rows else max(1, round(self._options.rate / _WRITES_A_SECOND))
        changes = self._take(together)
        return SourceStep(len(changes) / self._options.rate, changes)

    def next_changes(self) -> Sequence[Change]:
        return () if self.over else self._take(1)

    def pass_time(self, pending: SourceStep, seconds: float) -> SourceStep:
        """A recording waits for its followers, so that each of its changes reaches one."""
        return pending

    def _real_step(self) -> SourceStep:
        start = self._clock
        changes = self._take(1)
        wait = max(0.0, (self._clock - start) / self._options.speed)
        while not self._tape.holds_rows and changes[-1:] and changes[-1].error is None and self._near(self._clock):
            changes += self._take(1)
        return SourceStep(wait, changes)

    def _near(self, clock: float) -> bool:
        """Whether the next change follows so closely that it leaves in the same write."""
        if self._place >= len(self._tape.moments):
            return False
        return (self._tape.moments[self._place].at - clock) / self._options.speed <= _TOGETHER

    def _take(self, count: int) -> list[Change]:
        changes: list[Change] = []
        # An error ends its step: what comes after it may be for another subscription.
        while len(changes) < count and self._tape.moments and not self.over and not (changes and changes[-1].error):
            if self._place >= len(self._tape.moments):
                changes.append(self._to(Moment(0.0, self._tape.opening)))
                self._place = 0
            else:
                changes.append(self._to(self._tape.moments[self._place]))
                self._place += 1
        return changes

    def _to(self, moment: Moment) -> Change:
        change = Change(self.book, moment.book, RowStyle.SHIFT, moment.rows, moment.error)
        self.book, self._clock = moment.book, moment.at
        return change
