"""What to ask of Redis, and what its replies mean. Pure, as selection.py.

One symbol, several or all may be named in every call: `"SPY"`, `["SPY", "QQQ"]`, or nothing. A name under which
nothing is recorded raises UnknownSymbol, which lists what there is, unless `missing_ok`. As long as Redis holds no
symbol at all there is nothing to compare with: then the newest book is None and a range is empty. A frame never is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ibkr_depth_pipeline.clock import unix_ms as unix_ms_now
from ibkr_depth_pipeline.reader import frames, resampling
from ibkr_depth_pipeline.reader.marking import Inference, Marker, Record
from ibkr_depth_pipeline.reader.model import Moment, Point, Points, unix_ms
from ibkr_depth_pipeline.reader.selection import (
    Bounds,
    Names,
    Query,
    asked_for,
    bounds_of,
    chosen,
    id_before,
    names_in,
    nothing_recorded,
    refuse_unknown,
)
from ibkr_depth_pipeline.reader.turns import RecordReading
from ibkr_depth_pipeline.redis_link.routing import Command
from ibkr_depth_pipeline.schema.decoding import (
    DepthSnapshot,
    Heartbeat,
    VenueInfo,
    heartbeat_of,
    snapshot_of_entry,
    snapshot_of_hash,
    venue_of_hash,
)
from ibkr_depth_pipeline.schema.intervals import INTERVAL_FIELDS, decode_interval, interval_of_entry
from ibkr_depth_pipeline.schema.keys import (
    LAST_FIELDS,
    VENUE_FIELDS,
    heartbeat_key,
    id_after,
    last_key,
    open_turn_hash,
    stream_key,
    turns_stream,
    venue_key,
)

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

T = TypeVar("T")

Span = tuple[str, Moment, Moment | None]
"""A symbol, and the time from the first moment up to, without, the second; None: up to now."""

PAGE_ENTRIES = 2_000
"""Snapshots asked for at once, about 2.5 MB: a longer range neither blocks Redis nor fills its output buffer."""


# ---- newest values


def latest(symbols: Names = None, *, missing_ok: bool = False) -> Query[Any]:
    """The newest book of a symbol, None if it has none yet; of several, or all, as `latest_all`.

    Whether it is live, `heartbeat` shows.
    """
    found = yield from latest_all(symbols, missing_ok=missing_ok)
    return found.get(symbols) if isinstance(symbols, str) else found


def latest_all(*symbols: Names, missing_ok: bool = False) -> Query[dict[str, DepthSnapshot]]:
    """The newest book of each symbol that has one; of all symbols if none are named."""
    return (yield from _of_each(symbols, _books, missing_ok))


def heartbeat(symbols: Names = None, *, missing_ok: bool = False) -> Query[Any]:
    """The heartbeat of a symbol. None: its book is not live, don't trust `latest`. Of several, or all: `heartbeats`."""
    found = yield from heartbeats(symbols, missing_ok=missing_ok)
    return found.get(symbols) if isinstance(symbols, str) else found


def heartbeats(*symbols: Names, missing_ok: bool = False) -> Query[dict[str, Heartbeat]]:
    """The heartbeat of each symbol that has one."""
    return (yield from _of_each(symbols, _heartbeats, missing_ok))


def venue(symbols: Names = None, *, missing_ok: bool = False) -> Query[Any]:
    """Which venue is recorded, or why none is; None if the recorder never searched for one. Of several: `venues`."""
    found = yield from venues(symbols, missing_ok=missing_ok)
    return found.get(symbols) if isinstance(symbols, str) else found


def venues(*symbols: Names, missing_ok: bool = False) -> Query[dict[str, VenueInfo]]:
    """What is known of each symbol's venue, for the symbols of which anything is."""
    return (yield from _of_each(symbols, _venues, missing_ok))


def _of_each(
    given: Sequence[Names], read: Callable[[Sequence[str]], Query[dict[str, T]]], missing_ok: bool
) -> Query[dict[str, T]]:
    named = names_in(*given)
    found = yield from read((yield from chosen(named)))
    yield from _refuse_missing(named, found, missing_ok)
    return found


def _refuse_missing(named: Sequence[str] | None, found: Collection[str], missing_ok: bool) -> Query[None]:
    missing = [name for name in named or () if name not in found]
    if missing and not missing_ok:
        yield from refuse_unknown(missing)


def _books(names: Sequence[str]) -> Query[dict[str, DepthSnapshot]]:
    commands: list[Command] = []
    for name in names:
        commands += [
            ("HMGET", last_key(name), *LAST_FIELDS),
            ("HMGET", open_turn_hash(name), *INTERVAL_FIELDS),
            ("XREVRANGE", turns_stream(name), "+", "-", "COUNT", 1),
        ]
    replies = yield commands
    now = unix_ms_now()
    found = {}
    for name, values, of_open, ended in zip(names, replies[::3], replies[1::3], replies[2::3], strict=True):
        book = snapshot_of_hash(name, values)
        if book is not None:
            [found[name]] = Marker(_newest_record(name, of_open, ended)).marked([book], None, now, Inference())
    return found


def _newest_record(symbol: str, of_open: Sequence[Any], ended: Sequence[Any]) -> Record:
    named = {name.encode(): value for name, value in zip(INTERVAL_FIELDS, of_open, strict=True) if value is not None}
    goes_on = decode_interval(symbol, named) if named else None
    last = [interval_of_entry(symbol, entry) for entry in ended]
    return Record(last[0] if last else goes_on, last, goes_on)


def _heartbeats(names: Sequence[str]) -> Query[dict[str, Heartbeat]]:
    commands: list[Command] = []
    for name in names:
        commands += [("GET", heartbeat_key(name)), ("PTTL", heartbeat_key(name))]
    replies = yield commands
    return {
        name: heartbeat_of(name, beat, ttl)
        for name, beat, ttl in zip(names, replies[::2], replies[1::2], strict=True)
        if beat is not None and ttl > 0
    }


def _venues(names: Sequence[str]) -> Query[dict[str, VenueInfo]]:
    replies = yield [("HMGET", venue_key(name), *VENUE_FIELDS) for name in names]
    found = (venue_of_hash(name, values) for name, values in zip(names, replies, strict=True))
    return {venue.symbol: venue for venue in found if venue is not None}


# ---- ranges


def read_range(
    symbols: Names = None,
    start: Points | None = None,
    end: Points | None = None,
    *,
    limit: int | None = None,
    settled: bool = False,
    missing_ok: bool = False,
) -> Query[list[DepthSnapshot]]:
    """The snapshots from `start` on and before `end`, oldest first, one symbol after the other.

    limit: at most so many of each symbol. settled: only settled ones, without partial books and half-done price moves.
    """
    if limit is not None and limit < 0:
        raise ValueError(f"limit={limit} is below 0")
    named = names_in(symbols)
    names = yield from chosen(named)
    bounds = yield from bounds_of(names, start, end)
    found: list[DepthSnapshot] = []
    empty = []
    for name in names:
        some = yield from _range_of(name, bounds[name], limit, settled)
        found += some
        if not some:
            empty.append(name)
    yield from _refuse_missing(named and empty, (), missing_ok)
    return found


def _range_of(
    symbol: str, bounds: Bounds, limit: int | None, only_settled: bool, inference: Inference | None = None
) -> Query[list[DepthSnapshot]]:
    """Page by page. Each page is read with one snapshot more, which shows whether the last one is settled.

    inference is asked about what no record covers.
    """
    found: list[DepthSnapshot] = []
    low, high = bounds
    reading, inference = RecordReading.from_id(symbol, low), inference or Inference()
    while limit is None or len(found) < limit:
        left = PAGE_ENTRIES if limit is None or only_settled else limit - len(found)
        count = min(PAGE_ENTRIES, left) + 1
        [entries, *record] = yield [("XRANGE", stream_key(symbol), low, high, "COUNT", count), *reading.commands()]
        while reading.take(record):
            record = yield reading.commands()
        page = [snapshot_of_entry(symbol, entry) for entry in entries]
        goes_on = len(page) == count
        after = page.pop() if goes_on else (yield from _after(symbol, page, high))
        marked = Marker(reading.record).marked(page, after, unix_ms_now(), inference)
        found += [book for book in marked if book.settled] if only_settled else marked
        if not goes_on or after is None:
            break
        low = after.stream_id
    return found if limit is None else found[:limit]


def _after(symbol: str, page: Sequence[DepthSnapshot], high: str) -> Query[DepthSnapshot | None]:
    """The snapshot that is stored behind the page, if the range ends with it."""
    if not page or high == "+":
        return None
    [entries] = yield [("XRANGE", stream_key(symbol), id_after(page[-1].stream_id), "+", "COUNT", 1)]
    return snapshot_of_entry(symbol, entries[0]) if entries else None


def newest(
    symbols: Names = None, count: int = 1, *, settled: bool = False, missing_ok: bool = False
) -> Query[list[DepthSnapshot]]:
    """The last `count` snapshots of each symbol, oldest first, one symbol after the other.

    settled: those of them that are settled, and so perhaps fewer.
    """
    named = names_in(symbols)
    names = yield from chosen(named)
    found: list[DepthSnapshot] = []
    for name in names:
        [entries] = yield [("XREVRANGE", stream_key(name), "+", "-", "COUNT", count)]
        page = [snapshot_of_entry(name, entry) for entry in reversed(entries)]
        record = yield from RecordReading.from_id(name, page[0].stream_id if page else "-").read()
        marked = Marker(record).marked(page, None, unix_ms_now(), Inference())
        found += [book for book in marked if book.settled or not settled]
        yield from _refuse_missing(named and (name,), (name,) if page else (), missing_ok)
    return found


def first_of(spans: Sequence[Span]) -> Query[list[DepthSnapshot | None]]:
    """The first snapshot of each span `(symbol, start, end)`, None if it holds none. Cheap: one entry each."""
    commands = []
    for symbol, start, end in spans:
        high = "+" if end is None else str(max(0, unix_ms(end) - 1))
        commands.append(("XRANGE", stream_key(symbol), str(max(0, unix_ms(start))), high, "COUNT", 1))
    replies = yield commands
    return [
        snapshot_of_entry(symbol, entries[0]) if entries else None
        for (symbol, _, _), entries in zip(spans, replies, strict=True)
    ]


def last_of(spans: Sequence[Span]) -> Query[list[DepthSnapshot | None]]:
    """The last snapshot of each span `(symbol, start, end)`, None if it holds none. Cheap: one entry each."""
    commands = []
    for symbol, start, end in spans:
        high = "+" if end is None else str(max(0, unix_ms(end) - 1))
        commands.append(("XREVRANGE", stream_key(symbol), high, str(max(0, unix_ms(start))), "COUNT", 1))
    replies = yield commands
    return [
        snapshot_of_entry(symbol, entries[0]) if entries else None
        for (symbol, _, _), entries in zip(spans, replies, strict=True)
    ]


# ---- frames


def to_arrow(
    *symbols: Names | Point,
    start: Points | None = None,
    end: Points | None = None,
    limit: int | None = None,
    settled: bool = False,
    columns: frames.Columns = "lists",
    missing_ok: bool = False,
) -> Query[pa.Table]:
    """`range` of these symbols as one table; start and end may follow the symbols. Needs the extra `arrow`.

    columns: "lists" has ten rows a side as lists, "rows" a column for each (`bid_price_0` ... `ask_venue_9`), "levels"
    a column for each level by price, with the number of its rows (`bid_px_00`, `bid_sz_00`, `bid_ct_00` ...). An empty
    row is null. Raises NothingRecorded in the place of an empty table, unless `missing_ok`.
    """
    frames.need_arrow()
    named, start, end = asked_for(symbols, start, end)
    found = yield from read_range(named, start, end, limit=limit, settled=settled, missing_ok=missing_ok)
    if not found and not missing_ok and limit != 0:
        raise (yield from nothing_recorded(named, start, end))
    return frames.arranged(frames.to_arrow(found), columns)


def to_polars(
    *symbols: Names | Point,
    start: Points | None = None,
    end: Points | None = None,
    limit: int | None = None,
    settled: bool = False,
    columns: frames.Columns = "lists",
    missing_ok: bool = False,
) -> Query[pl.DataFrame]:
    """As `to_arrow`. Needs the extra `polars`."""
    frames.need_polars()
    named, start, end = asked_for(symbols, start, end)
    table = yield from to_arrow(
        named, start=start, end=end, limit=limit, settled=settled, columns=columns, missing_ok=missing_ok
    )
    return frames.to_polars(table)


def to_pandas(
    *symbols: Names | Point,
    start: Points | None = None,
    end: Points | None = None,
    limit: int | None = None,
    settled: bool = False,
    columns: Literal["rows", "levels"] = "rows",
    missing_ok: bool = False,
) -> Query[pd.DataFrame]:
    """As `to_arrow`, but pandas has no lists. Needs the extra `pandas`."""
    frames.need_pandas()
    named, start, end = asked_for(symbols, start, end)
    table = yield from to_arrow(
        named, start=start, end=end, limit=limit, settled=settled, columns=columns, missing_ok=missing_ok
    )
    return frames.to_pandas(table)


# ---- bars


def resample(
    every: str | int | timedelta,
    *symbols: Names | Point,
    start: Points | None = None,
    end: Points | None = None,
    form: resampling.Form = "polars",
    missing_ok: bool = False,
) -> Query[Any]:
    """Bars of the length `every` ("1s", "5m", a timedelta, ms), aligned with the epoch, one symbol after the other.

    Columns are those of resampling.schema(). Only settled books count, and each only as long as its symbol was
    observed: a bar in which it was not is null, but for `observed`, which is 0. Without start and end the bars reach
    from the first to the last moment that was observed. form: "polars", "pandas" or "arrow". Raises NothingRecorded in
    the place of a frame without bars, unless `missing_ok`.
    """
    resampling.need(form)
    length = resampling.bar_ms(every)
    named, start, end = asked_for(symbols, start, end)
    names = yield from chosen(named)
    bounds = yield from bounds_of(names, start, end)
    found, empty = [], []
    for name in names:
        table = yield from _bars_of(name, bounds[name], length)
        if table is None:
            empty.append(name)
        else:
            found.append(table)
    yield from _refuse_missing(named and empty, (), missing_ok)
    if not found and not missing_ok:
        raise (yield from nothing_recorded(named, start, end))
    return resampling.in_form(resampling.stacked(found), form)


def _bars_of(symbol: str, bounds: Bounds, length: int) -> Query[Any]:
    """The bars of one symbol; None if nothing was observed. What stood at the start came before it."""
    low, high = bounds
    if low != "-":
        ts = int(low.partition("-")[0])
        [before] = yield [("XREVRANGE", stream_key(symbol), id_before(ts), "-", "COUNT", _BEFORE_START)]
        low = before[-1][0].decode() if before else low
    inference = Inference()
    books = yield from _range_of(symbol, Bounds(low, high), None, False, inference)
    record = yield from RecordReading.from_id(symbol, low).read()
    intervals = [*inference.intervals(unix_ms_now()), *record.intervals]
    return resampling.bars(symbol, frames.to_arrow(books), intervals, length, *bounds.times)


_BEFORE_START = 100
"""Snapshots read from before the start of bars: more than one read of the socket brings."""
