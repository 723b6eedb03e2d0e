"""Keeps a number from being given to two snapshots: raises the streams that are behind the archive.

A Redis that was restored from a backup, or that lost its newest entries, holds less than the archive. A recorder that
starts there numbers on from what is left, and gives numbers that the archive holds to other snapshots. If the last id
of the stream is raised to the newest one that is kept, before the recorder starts, `seq` goes on behind that.

The archiver does so at its start, and whenever Redis answers again after an outage, for streams to which nothing was
added since: the id that it raises to is one that Redis acknowledged before. `raise_all` does it for all that the
archive knows of, also for a Redis that is empty; it needs the recorder to be stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from ibkr_depth_pipeline.archive.decoding import SymbolBuffer
from ibkr_depth_pipeline.archive.figures import read_figures
from ibkr_depth_pipeline.archive.layout import BOOKS, FIGURES, INTERVALS, NOTHING, ROWS, day_of
from ibkr_depth_pipeline.archive.parquet_schema import TABLES
from ibkr_depth_pipeline.archive.reading import positions, read_in_order
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.archive.streams import STREAM_KEYS, Source, Streams
from ibkr_depth_pipeline.clock import unix_ms
from ibkr_depth_pipeline.errors import SinkUnavailable
from ibkr_depth_pipeline.logs import get_log
from ibkr_depth_pipeline.redis_link.failures import as_unavailable
from ibkr_depth_pipeline.redis_link.pipeline import ask_each
from ibkr_depth_pipeline.schema.keys import StreamId, claim_key
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.sink.stream_fence import newest_ids, raise_unchanged, tolerant

NUMBERED = (BOOKS, INTERVALS)
"""The trees whose entries bear numbers of their own; a row of depth has that of its snapshot."""

_FALL_HINT = "numbers from there on stand for two snapshots each, told apart by ts: docs/archive.md, Numbers"


@dataclass(frozen=True, slots=True)
class RaisedStream:
    """A stream that was behind the archive: its last id before and after."""

    source: Source
    was: StreamId
    now: StreamId


class Raising(NamedTuple):
    """What was raised, and the symbols that were left alone because an ingest records them."""

    raised: tuple[RaisedStream, ...]
    recorded: tuple[str, ...]


# ---- what the archive knows


def newest_numbers(store: ArchiveStore) -> dict[Source, StreamId]:
    """Per numbered stream the newest time and the highest number that the newest files of each tree know of.

    A number may be known before its snapshot is kept: by its row, its interval, or its ingest's figures. Raises
    ArchiveUnavailable.
    """
    numbers: dict[Source, StreamId] = {}
    books, ended, rows = (positions(store, tree) for tree in (BOOKS, INTERVALS, ROWS))
    for symbol, newest in books.items():
        _note(numbers, Source(BOOKS, symbol), newest)
    for place in store.places(BOOKS):  # where the numbers fell on that date, the highest is in another part
        if place.span is not None and place.day == day_of(books.get(place.symbol, NOTHING).ts):
            _note(numbers, Source(BOOKS, place.symbol), place.span.last)
    for symbol, newest in ended.items():
        _note(numbers, Source(INTERVALS, symbol), newest)
        _note(numbers, Source(BOOKS, symbol), StreamId(0, _highest(store, INTERVALS, symbol, newest, "last_seq")))
    for symbol, newest in rows.items():
        _note(numbers, Source(BOOKS, symbol), newest)
        subscription = _highest(store, ROWS, symbol, newest, "subscription")
        _note(numbers, Source(INTERVALS, symbol), StreamId(0, subscription))
    for symbol, seq in _of_figures(store):
        _note(numbers, Source(BOOKS, symbol), StreamId(0, seq))
    return numbers


def _note(numbers: dict[Source, StreamId], source: Source, other: StreamId) -> None:
    known = numbers.get(source, NOTHING)
    numbers[source] = StreamId(max(known.ts, other.ts), max(known.seq, other.seq))


def _highest(store: ArchiveStore, tree: str, symbol: str, newest: StreamId, column: str) -> int:
    """The highest value of that column on the symbol's newest date."""
    columns = list(dict.fromkeys([*TABLES[tree].ids, column]))
    found = (table[column].to_pylist() for table in read_in_order(store, day_of(newest.ts), symbol, columns, tree))
    return max((value for values in found for value in values if value is not None), default=0)


def _of_figures(store: ArchiveStore) -> Iterator[tuple[str, int]]:
    """The number of each symbol's newest snapshot, as the last figures of every ingest have it."""
    newest: dict[str, date] = {}
    for place in store.places(FIGURES):
        newest[place.symbol] = max(place.day, newest.get(place.symbol, place.day))
    for ingest, day in newest.items():
        states = read_figures(store, day, ingest)
        for state in states.slice(max(0, states.num_rows - 1)).to_pylist():
            yield from ((each["symbol"], each["newest_seq"]) for each in state["symbols"])


# ---- raising


def target(known: StreamId, last: StreamId, now_ms: int) -> StreamId | None:
    """The id to which a stream with this last id is raised; None if its numbers are not behind. Pure.

    Its time is not set ahead of the clock: `ts` would stand there until the clock has caught up.
    """
    if known.seq <= last.seq:
        return None
    return StreamId(max(last.ts, min(known.ts, now_ms)), known.seq)


def raise_ids_of(store: ArchiveStore, settings: Settings) -> Raising:
    """`raise_all` as a blocking call, of an archive and the settings' Redis. Raises ArchiveUnavailable too."""

    async def main() -> Raising:
        streams = Streams(settings.redis_target)
        try:
            return await raise_all(streams, newest_numbers(store), unix_ms())
        finally:
            await streams.close()

    return asyncio.run(main())


async def raise_all(streams: Streams, known: Mapping[Source, StreamId], now_ms: int) -> Raising:
    """Raises every stream that is behind, and makes those that are absent. Raises SinkUnavailable."""
    return await _raise(streams, known, lambda source, last: target(known[source], last, now_ms))


async def raise_if_fallen(streams: Streams, kept: Mapping[Source, StreamId], now_ms: int) -> None:
    """Raises the streams that hold less than is kept, and to which nothing was added since. Logs it, and failures."""

    def wanted(source: Source, last: StreamId) -> StreamId | None:
        return target(kept[source], last, now_ms) if NOTHING < last < kept[source] else None

    try:
        raising = await _raise(streams, kept, wanted)
    except SinkUnavailable as error:
        get_log().warning("archive_numbering_unchecked", error=str(error))
        return
    for each in raising.raised:
        fields = {"symbol": each.source.symbol, "table": each.source.tree}
        get_log().warning("archive_ahead_of_stream", **fields, was=str(each.was), raised_to=str(each.now))


async def _raise(
    streams: Streams, known: Mapping[Source, StreamId], wanted: Callable[[Source, StreamId], StreamId | None]
) -> Raising:
    with as_unavailable():
        behind = [each for tree in NUMBERED for each in await _behind(streams, tree, known, wanted)]
        claimed = await _claimed(streams, sorted({source.symbol for source, _, _ in behind}))
        raised: list[RaisedStream] = []
        for tree in NUMBERED:
            free = [each for each in behind if each[0].tree == tree and each[0].symbol not in claimed]
            raised += await _raise_tree(streams, tree, free)
    return Raising(tuple(raised), tuple(claimed))


_Behind = tuple[Source, StreamId, StreamId]
"""A stream that is behind, its last id, and the one that it is to have."""


async def _behind(
    streams: Streams,
    tree: str,
    known: Mapping[Source, StreamId],
    wanted: Callable[[Source, StreamId], StreamId | None],
) -> list[_Behind]:
    symbols = [source.symbol for source in known if source.tree == tree]
    found = await newest_ids(streams.client, symbols, STREAM_KEYS[tree])
    sources = ((Source(tree, symbol), last) for symbol, last in found.items())
    return [(source, last, goal) for source, last in sources if (goal := wanted(source, last)) is not None]


async def _claimed(streams: Streams, symbols: Sequence[str]) -> list[str]:
    """Those that an ingest records: it numbers on from what it has in memory."""
    replies = await ask_each(streams.client, [("EXISTS", claim_key(symbol)) for symbol in symbols])
    return [symbol for symbol, reply in zip(symbols, tolerant(symbols, replies), strict=True) if reply]


async def _raise_tree(streams: Streams, tree: str, behind: Sequence[_Behind]) -> list[RaisedStream]:
    seen = {source.symbol: last for source, last, _ in behind}
    goals = {source.symbol: goal for source, _, goal in behind}
    found = await raise_unchanged(streams.client, STREAM_KEYS[tree], seen, goals)
    return [
        RaisedStream(source, last, found[source.symbol])
        for source, last, goal in behind
        if found[source.symbol].seq >= goal.seq
    ]


def log_falls(buffer: SymbolBuffer, counts: dict[str, int]) -> None:
    """Logs where the numbers that were read fell, and counts it by symbol: a recorder went on before anyone raised."""
    for kept, following in buffer.take_falls():
        counts[buffer.symbol] = counts.get(buffer.symbol, 0) + 1
        fields = {"symbol": buffer.symbol, "kept": str(kept), "following": str(following)}
        get_log().error("archive_seq_fell", **fields, hint=_FALL_HINT)
