"""What the archiver reads of Redis: the streams, from an id on, batch by batch, and the status of the ingests.

Nothing waits within Redis. The history of status ("figures") is worth less than snapshots: if Redis, or the part of a
cluster that holds it, does not answer, it is missed, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ibkr_depth_pipeline.archive.decoding import RawEntry
from ibkr_depth_pipeline.archive.figures import FiguresBuffer
from ibkr_depth_pipeline.archive.layout import ALERTS, BOOKS, INTERVALS, OF_INGESTS, ROWS, Place
from ibkr_depth_pipeline.backoff import Backoff
from ibkr_depth_pipeline.clock import loop_time
from ibkr_depth_pipeline.errors import SchemaMismatch, SinkUnavailable
from ibkr_depth_pipeline.logs import REMIND_SECS, RepeatedFailureLog, get_log
from ibkr_depth_pipeline.redis_link.failures import as_unavailable, unavailable
from ibkr_depth_pipeline.redis_link.pipeline import ask, ask_each, scan_each
from ibkr_depth_pipeline.schema.intervals import INTERVAL_FIELDS, SubscriptionInterval, decode_interval
from ibkr_depth_pipeline.schema.keys import (
    PREFIX,
    StreamId,
    alerts_stream,
    contract_changes_key,
    ingest_key,
    last_key,
    open_turn_hash,
    rows_stream,
    stream_key,
    turns_stream,
)
from ibkr_depth_pipeline.schema.status import FeedFigures
from ibkr_depth_pipeline.sink.connection import open_redis

ENTRIES_AT_ONCE = 1000
"""Most entries of a stream in one answer: about a megabyte."""

_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9.\-/&+]*(?: [A-Z0-9.\-/&+]+)?")  # as universe allows; no check of ours matches
_INGEST = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # as settings.py allows


class Source(NamedTuple):
    """A stream that the archive follows: the tree that it becomes, and its symbol, or its ingest's name."""

    tree: str
    symbol: str

    @property
    def key(self) -> str:
        """The stream's key."""
        return STREAM_KEYS[self.tree](self.symbol)

    @property
    def is_of_ingest(self) -> bool:
        """Whether it is an ingest's, not a symbol's."""
        return self.tree in OF_INGESTS


STREAM_KEYS: dict[str, Callable[[str], str]] = {
    BOOKS: stream_key,
    INTERVALS: turns_stream,
    ROWS: rows_stream,
    ALERTS: alerts_stream,
}
"""The key of a symbol's stream, or an ingest's, by the tree that it becomes."""


class Streams:
    """A Redis, seen as streams. Each command names one key, so keys may live in different slots of a cluster.

    Methods raise SinkUnavailable, with the reason and without a password, if nothing answers. Where a part of a
    cluster is away, those that read many keys return what the rest answered, and the reason beside it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._passed_over: set[bytes] = set()
        self._log = get_log()
        self.client: Any = open_redis(url)

    async def close(self) -> None:
        await self.client.aclose()

    async def sources(self, trees: Sequence[str]) -> tuple[list[Source], SinkUnavailable | None]:
        """The streams that those trees are made of, by symbol, and why there may be more."""
        names, trouble = await self._names(f"{PREFIX}:", "stream")
        prefixes = {tree: STREAM_KEYS[tree]("").removeprefix(f"{PREFIX}:") for tree in trees}
        found = (
            Source(tree, name.removeprefix(prefix))
            for name in names
            for tree, prefix in prefixes.items()
            if name.startswith(prefix)
        )
        return [each for each in found if (_INGEST if each.is_of_ingest else _SYMBOL).fullmatch(each.symbol)], trouble

    async def read(
        self, positions: Mapping[Source, StreamId]
    ) -> tuple[dict[Source, list[RawEntry]], dict[Source, SinkUnavailable]]:
        """What stands behind each position, oldest first, at most ENTRIES_AT_ONCE; only streams that have something.

        And why some streams could not be read.
        """
        commands = [
            ("XREAD", "COUNT", ENTRIES_AT_ONCE, "STREAMS", source.key, str(position))
            for source, position in positions.items()
        ]
        with as_unavailable(self._url):
            replies = dict(zip(positions, await ask_each(self.client, commands), strict=True))
        found = {source: _entries(reply) for source, reply in replies.items() if reply and not _failed(reply)}
        return found, {source: unavailable(reply, self._url) for source, reply in replies.items() if _failed(reply)}

    async def contract_changes(self, positions: Mapping[str, str]) -> dict[str, list[RawEntry]]:
        """What stands behind each position in the streams of the symbols' contracts, oldest first.

        One that can't be read counts as none: it may lie on another master than the snapshots, which are kept all the
        same. Raises SinkUnavailable if nothing answers.
        """
        commands = [
            ("XREAD", "STREAMS", contract_changes_key(symbol), position) for symbol, position in positions.items()
        ]
        with as_unavailable(self._url):
            replies = dict(zip(positions, await ask_each(self.client, commands), strict=True))
        return {symbol: _entries(reply) for symbol, reply in replies.items() if reply and not _failed(reply)}

    async def before(self, source: Source, entry: StreamId) -> StreamId | None:
        """The id of what stands before `entry` in the stream; None if nothing does."""
        last = f"{entry.ts}-{entry.seq - 1}" if entry.seq else str(entry.ts - 1)
        entries = await self._ask("XREVRANGE", source.key, last, "-", "COUNT", 1)
        return StreamId.of(entries[0][0]) if entries else None

    async def newest(self, source: Source) -> StreamId | None:
        """The id of the stream's newest entry; None if it holds none."""
        entries = await self._ask("XREVRANGE", source.key, "+", "-", "COUNT", 1)
        return StreamId.of(entries[0][0]) if entries else None

    async def open_interval(self, symbol: str) -> SubscriptionInterval | None:
        """The symbol's open interval; None if there is none that can be read."""
        try:
            values = await self._ask("HMGET", open_turn_hash(symbol), *INTERVAL_FIELDS)
        except SinkUnavailable:
            return None
        named = zip(INTERVAL_FIELDS, values, strict=True)
        fields = {name.encode(): value for name, value in named if value is not None}
        try:
            return decode_interval(symbol, fields) if fields else None
        except SchemaMismatch:
            return None

    async def ids_between(self, source: Source, start_ms: int, end_ms: int) -> list[StreamId]:
        """The ids of the entries from `start_ms` to before `end_ms` (unix ms), oldest first."""
        entries = await self._ask("XREVRANGE", source.key, str(end_ms - 1), str(start_ms))
        return [StreamId.of(entry_id) for entry_id, _ in reversed(entries)]

    async def newest_mirrored(self, symbol: str) -> StreamId | None:
        """Time and number in the last-value hash; None if there is none."""
        ts, seq = await self._ask("HMGET", last_key(symbol), "ts", "seq")
        return StreamId(int(ts), int(seq)) if ts and seq else None

    async def ingests(self) -> tuple[list[str], SinkUnavailable | None]:
        """The names of the ingests that publish figures, and why there may be more."""
        names, trouble = await self._names(ingest_key(""))
        return [name for name in names if ":" not in name], trouble

    async def ingest_figures(self, name: str) -> FeedFigures | None:
        """The figures of the newest run of the ingest `name`; None if there is nothing."""
        return FeedFigures.of_json(await self._ask("GET", ingest_key(name)))

    async def _ask(self, *command: Any) -> Any:
        with as_unavailable(self._url):
            (reply,) = await ask(self.client, [command])
        return reply

    async def _names(self, prefix: str, kind: str | None = None) -> tuple[list[str], SinkUnavailable | None]:
        """What follows `prefix` in the names of keys, sorted."""
        with as_unavailable(self._url):
            keys, troubles = await scan_each(self.client, f"{prefix}*", kind)
        names = sorted(name for key in keys if (name := self._text(key)) is not None)
        return [name.removeprefix(prefix) for name in names], unavailable(troubles[0], self._url) if troubles else None

    def _text(self, key: bytes) -> str | None:
        """The key's name; None if it is no text, and so none of ours."""
        try:
            return key.decode()
        except UnicodeDecodeError:
            if key not in self._passed_over:
                self._passed_over.add(key)
                self._log.warning("archive_key_passed_over", key=repr(key))
            return None


def _failed(reply: Any) -> bool:
    return isinstance(reply, Exception)


def _entries(reply: Any) -> list[RawEntry]:
    """The one stream of an XREAD's answer."""
    ((_, entries),) = reply
    return [(entry_id, dict(zip(fields[::2], fields[1::2], strict=True))) for entry_id, fields in entries]


# ---- figures


_LAST_POLL_SECS = 1.0
_RETRIES = Backoff(0.1, 5.0)


@dataclass(frozen=True, slots=True)
class ArchiverTiming:
    """How often an archiver polls, logs and writes what the settings leave open; all in seconds."""

    streams_secs: float = 0.25
    """Between two reads, if there is not more to read at once: the rows of so long must fit into IBKR_STREAM_MAXLEN."""
    discovery_secs: float = 1.0
    """Between two scans for new symbols."""
    retries: Backoff = _RETRIES
    """Before a read or a write that failed is tried again."""
    remind_secs: float = REMIND_SECS
    """Between two log lines about a failure that lasts."""
    figures_secs: float = 2.0
    """Between two reads of the figures: as often as an ingest writes them."""
    intervals_secs: float = 1.0
    """Between two reads of the streams of intervals and of alerts."""
    intervals_flush_secs: float = 60.0
    """How long an interval that has ended waits for a file; the stream still has it."""
    figures_flush_secs: float = 60.0
    """How long figures wait for a file; a kill of the archiver may cost so much of their history."""


class FiguresPoller:
    """Passes files of figures to `queue`. What was written before `oldest_ms()` (unix ms) is too old to be kept."""

    def __init__(
        self,
        streams: Streams,
        queue: Callable[[Place, bytes, int], None],
        oldest_ms: Callable[[], int],
        timing: ArchiverTiming,
    ) -> None:
        self._streams = streams
        self._queue = queue
        self._oldest_ms = oldest_ms
        self._timing = timing
        self._buffer = FiguresBuffer()
        self._failures = RepeatedFailureLog("archive_figures_missed", timing.remind_secs, logging.WARNING)

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self._poll()
            self._flush(loop_time() - self._timing.figures_flush_secs)
            await asyncio.sleep(self._timing.figures_secs)

    async def end(self) -> None:
        """Poll a last time, and queue all there is."""
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._poll(), _LAST_POLL_SECS)
        self._flush(float("inf"))

    async def _poll(self) -> None:
        now = loop_time()
        try:
            ingests, trouble = await self._streams.ingests()
            for ingest in ingests:
                figures = await self._streams.ingest_figures(ingest)
                if figures is not None and figures.written_ts >= self._oldest_ms():
                    self._buffer.add(ingest, figures, now)
        except SinkUnavailable as error:
            trouble = error
        self._failures.record(trouble, now)

    def _flush(self, older_than: float) -> None:
        for place, content in self._buffer.take(older_than):
            self._queue(place, content, 0)
