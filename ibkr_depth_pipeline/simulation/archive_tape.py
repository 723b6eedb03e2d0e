"""A recorded day, read from an archive's Parquet files, as a tape for each symbol.

The files are read by their documented schema (docs/archive.md) with code of our own. Each archived snapshot is the book
after one row, so each becomes one row again, wherever one row leads there from the snapshot before:

* a side that differs by an update, an insert or a delete: that row;
* no difference: a row that changes nothing that shows. The recorder keeps such snapshots if a row beyond the tenth
  changed, so here is the place for the rows beyond the tenth that a later delete brings to light;
* an empty book after one that was not: error 317, which empties it;
* a book of one level that no row explains: a new subscription began, so error 316, and the book opens again.

Anything else is a jump (the archive misses what was between): as many rows as it takes, and so more snapshots.
`ArchivedTape.jumps` counts them. All this is exact for a client that asks for CLIENT_ROWS rows a side, the ingest's
default; other clients get the same books with some of them repeated, and if a client asks for ten rows or fewer, a
delete that brings up a tenth level is two rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from ibkr_depth_pipeline.simulation.replay import Moment, Tape, TapeError
from ibkr_depth_pipeline.simulation.rows import (
    ASK,
    BID,
    DELETE,
    INSERT,
    UPDATE,
    Book,
    BookLevel,
    WireRow,
    apply_rows,
    rows_of_change,
    snapshot_rows,
)

SHOWN = 10
"""Levels a side in the archive."""
CLIENT_ROWS = 15
"""Rows a side that the client is taken to hold."""
RESET, HALTED = 317, 316
_TREES = ("books", "days", "parts")
"""Where snapshots are; the last two in older archives."""
_FARTHEST = 5000
"""Moments to search back for a place for a row beyond the tenth."""

Side = tuple[BookLevel, ...]
_EMPTY = (0.0, 0.0, "")


class State(NamedTuple):
    """An archived snapshot: unix ms, and the levels that are not empty."""

    ts: int
    seq: int
    book: Book


@dataclass(frozen=True, slots=True)
class ArchivedTape(Tape):
    """A tape, and how often more than one row was needed between two snapshots."""

    jumps: int = 0


def archived_symbols(folder: Path, day: date) -> tuple[str, ...]:
    """The symbols that the archive in `folder` has of that day, by name. Raises TapeError if there are none."""
    found = {
        unquote(path.name.partition("=")[2])
        for tree in _TREES
        for path in (folder / tree / f"date={day.isoformat()}").glob("symbol=*")
        if any(path.glob("*.parquet"))
    }
    if not found:
        raise TapeError(f"{folder}: no snapshots of {day.isoformat()}")
    return tuple(sorted(found))


def read_archived(folder: Path, day: date, symbol: str, limit: int | None = None) -> ArchivedTape:
    """A day of a symbol as a tape, cut after `limit` snapshots. Time starts at the day's first snapshot of any symbol.

    Raises TapeError for what can't be read.
    """
    try:
        states = list(_states(_files(folder, day, symbol), limit))
        opened = min(_first_ts(file) for name in archived_symbols(folder, day) for file in _files(folder, day, name))
    except ModuleNotFoundError as missing:
        raise TapeError(f"{missing.name} is not installed: pip install 'ibkr_depth_pipeline[archive]'") from None
    except (OSError, ValueError, KeyError) as problem:
        raise TapeError(f"{folder}: {symbol} on {day.isoformat()}: {problem}") from problem
    return tape_of(states, opened)


def tape_of(states: Iterable[State], opened: int) -> ArchivedTape:
    """The tape that leads through these states, from an empty book on. opened is the unix ms of its beginning. Pure."""
    reel = _Reel(opened)
    for state in states:
        reel.lead_to(state)
    return ArchivedTape(Book(), tuple(reel.moments), holds_rows=False, jumps=reel.jumps)


# ---- files


def _files(folder: Path, day: date, symbol: str) -> list[Path]:
    """Compacted files, the largest first, then parts, in order."""
    below = f"date={day.isoformat()}/symbol={quote(symbol, safe='')}"
    found = [path for tree in _TREES for path in (folder / tree / below).glob("*.parquet")]
    parts = sorted((path for path in found if path.name[:1].isdigit()), key=lambda path: path.name)
    compacted = sorted((path for path in found if path not in parts), key=lambda path: path.stat().st_size)
    return [*reversed(compacted), *parts]


def _states(files: Sequence[Path], limit: int | None) -> Iterator[State]:
    """The snapshots of the files, each once, in order."""
    import pyarrow.parquet as parquet

    newest = (0, 0)
    count = 0
    for path in files:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for state in _states_of(batch.to_pydict()):
                    if (state.ts, state.seq) <= newest or (limit is not None and count >= limit):
                        continue  # a part that is in the compacted file as well
                    newest, count = (state.ts, state.seq), count + 1
                    yield state


def _states_of(columns: dict[str, list[Any]]) -> Iterator[State]:
    moments = map(_unix_ms, columns["ts"])
    shown_bid, shown_ask, bids_now, asks_now = None, None, (), ()  # type: tuple[Any, Any, Side, Side]
    bids, asks = ([columns[f"{side}_{what}"] for what in ("price", "size", "venue")] for side in ("bid", "ask"))
    for ts, seq, bid, ask in zip(
        moments, columns["seq"], zip(*bids, strict=True), zip(*asks, strict=True), strict=True
    ):
        if bid != shown_bid:
            shown_bid, bids_now = bid, _side(*bid)
        if ask != shown_ask:
            shown_ask, asks_now = ask, _side(*ask)
        yield State(ts, seq, Book(bids_now, asks_now))


_level = lru_cache(maxsize=65_536)(BookLevel)  # most levels of a book are those of the book before


def _side(prices: Sequence[float], sizes: Sequence[float], names: Sequence[str]) -> Side:
    held = sum(1 for filled in zip(prices, sizes, names, strict=True) if filled != _EMPTY)
    return tuple(map(_level, prices[:held], sizes[:held], names[:held]))


def _first_ts(path: Path) -> int:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=1, columns=["ts"]))
    return _unix_ms(batch.column(0)[0].as_py())


def _unix_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


# ---- from state to state


class _Reel:
    """The moments so far. The book of the last one is what the client holds: what shows, and up to five levels more."""

    def __init__(self, opened: int) -> None:
        self.moments: list[Moment] = []
        self.jumps = 0
        self._opened = opened
        self._book = Book()
        self._idle: list[bool] = []  # of each moment: its row changes nothing, so it may be another instead

    def lead_to(self, state: State) -> None:
        """Append the moment, or the moments, after which the book of `state` shows."""
        at = (state.ts - self._opened) / 1000
        shown = self._book.clipped(SHOWN)
        if not any(state.book):
            self._break(at, RESET)
        elif shown == state.book:
            self._add(at, _repeat(self._book), idle=True)
        elif (change := _one_row(self._book, state.book)) is not None:
            self._supply(at, change, state.book)
            self._add(at, change)
        elif sum(map(len, state.book)) == 1:
            self._break(at, HALTED)
            self._add(at, snapshot_rows(state.book)[0])
        else:
            self._jump(at, state.book)

    def _add(self, at: float, row: WireRow, *, idle: bool = False) -> None:
        self._book = _held(apply_rows(self._book, [row]))
        self.moments.append(Moment(at, self._book, (row,)))
        self._idle.append(idle)

    def _break(self, at: float, error: int) -> None:
        self._book = Book()
        self.moments.append(Moment(at, self._book, (), error))
        self._idle.append(False)

    def _jump(self, at: float, book: Book) -> None:
        self.jumps += 1
        for row in rows_of_change(self._book, book):
            self._add(at, row)

    def _supply(self, at: float, change: WireRow, following: Book) -> None:
        """See to it that what a delete brings up from below the tenth level is what is wanted there."""
        if change.operation != DELETE:
            return
        old, new = _levels(self._book, change.side), _levels(following, change.side)
        hidden = old[SHOWN:]
        if len(new) < min(SHOWN, len(old)):
            for _ in hidden:
                self._add(at, WireRow(SHOWN, DELETE, change.side, 0.0, 0.0))
        elif len(new) == SHOWN and hidden[:1] != new[-1:]:
            row = WireRow(SHOWN, INSERT, change.side, *new[-1])
            if not self._said_before(row):
                self._add(at, row)

    def _said_before(self, row: WireRow) -> bool:
        """Put the row where an idle one stands, as though it had come then; whether there was a place for it."""
        position, side = row.position, row.side
        for place in range(len(self.moments) - 1, max(-1, len(self.moments) - 1 - _FARTHEST), -1):
            moment = self.moments[place]
            if self._idle[place] and position <= len(_levels(moment.book, side)):
                self._insert(place, row._replace(position=position))
                return True
            before = _position_before(moment, side, position)
            if before is None or not SHOWN <= before < CLIENT_ROWS:
                return False
            position = before
        return False

    def _insert(self, place: int, row: WireRow) -> None:
        """Make it the row of that moment, and lead all later ones to their books again."""
        book = self.moments[place - 1].book if place else Book()
        self.moments[place] = replace(self.moments[place], rows=(row,))
        self._idle[place] = False
        for later in range(place, len(self.moments)):
            book = _held(apply_rows(book, self.moments[later].rows or ()))
            self.moments[later] = replace(self.moments[later], book=book)
        self._book = book


def _levels(book: Book, side: int) -> Side:
    return book.bids if side == BID else book.asks


def _held(book: Book) -> Book:
    """What a client keeps: a row pushed past the last one it asked for is gone."""
    return book if max(map(len, book)) <= CLIENT_ROWS else book.clipped(CLIENT_ROWS)


def _position_before(moment: Moment, side: int, position: int) -> int | None:
    """Where a level stood before that moment, if it stands at `position` after; None if it can't have been there."""
    if moment.error is not None:
        return None
    for row in reversed(moment.rows or ()):
        if row.side != side or row.operation == UPDATE or row.position > position:
            continue
        if row.operation == DELETE:
            position += 1
        elif row.position < position:
            position -= 1
        else:
            return None
    return position


def _repeat(book: Book) -> WireRow:
    """A row that changes nothing in a book that is not empty."""
    side, levels = (BID, book.bids) if book.bids else (ASK, book.asks)
    return WireRow(0, UPDATE, side, *levels[0])


def _one_row(held: Book, new: Book) -> WireRow | None:
    """The row after which a client that holds the one shows the other, if there is one."""
    same_bids, same_asks = held.bids[:SHOWN] == new.bids, held.asks[:SHOWN] == new.asks
    if same_bids == same_asks:
        return None
    return _one_row_of(ASK, held.asks, new.asks) if same_bids else _one_row_of(BID, held.bids, new.bids)


def _one_row_of(side: int, held: Side, new: Side) -> WireRow | None:
    old, hidden = held[:SHOWN], held[SHOWN:]
    at = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    update = at < min(len(old), len(new)) and old[at + 1 :] == new[at + 1 :]
    insert = at < len(new) and new == (*old[:at], new[at], *old[at:])[:SHOWN]
    gone = (*old[:at], *old[at + 1 :])
    delete = at < len(old) and new[: len(gone)] == gone and (len(new) == len(gone) or len(new) == len(old) == SHOWN)
    if update and new[at].price != old[at].price:
        # The last level may as well have been pushed down, by a better one, or taken, so that the next one came up.
        better = (new[at].price > old[at].price) == (side == BID)
        insert, delete = insert and better, delete and not better and hidden[:1] == new[-1:]
        update = not (insert or delete)
    if update:
        return WireRow(at, UPDATE, side, *new[at])
    if insert:
        return WireRow(at, INSERT, side, *new[at])
    if delete:
        return WireRow(at, DELETE, side, 0.0, 0.0, old[at].market_maker)
    return None
