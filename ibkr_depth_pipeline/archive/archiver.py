"""Follows the streams and keeps them: each snapshot in exactly one file, whenever the process is killed.

The files are the position. A part appears whole or not at all (a rename, or one put), its name states which snapshots
are in it, and a new archiver begins behind the newest one that it finds there. Nothing else could disagree with the
files, so there is no moment at which a kill does harm:

* before a part is there, its snapshots are still in the stream, and are read again; flushing by rows (at most a quarter
  of the stream's length) and by seconds keeps what is read and not yet kept well within it;
* once it is there, the position is behind it.

A part whose answer was lost is stored again as the very same file. A gap is stored before the part that follows it,
under the name of the snapshot before it: found again, it is the same file as well. Two archivers at once are kept apart
by a lock in a local folder, and by the lease in Redis elsewhere; should they meet all the same, readers and compaction
count each id once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ibkr_depth_pipeline.archive.buffers import EntryBuffer, buffer_of
from ibkr_depth_pipeline.archive.decoding import RawEntry, SymbolBuffer
from ibkr_depth_pipeline.archive.file_queue import FileQueue, WaitingFile
from ibkr_depth_pipeline.archive.layout import (
    ALERTS,
    BOOKS,
    DAYS,
    INTERVALS,
    NOTHING,
    PARTS,
    ROWS,
    STREAMED,
    day_of,
    first_ms_of,
    gap_place,
    part_place,
)
from ibkr_depth_pipeline.archive.maintenance import finish_replacements, first_date_kept, prune_expired
from ibkr_depth_pipeline.archive.numbering import log_falls, raise_if_fallen
from ibkr_depth_pipeline.archive.ownership import Ownership
from ibkr_depth_pipeline.archive.parquet_schema import TABLES, gap_bytes, gap_row, part_bytes, unit_of
from ibkr_depth_pipeline.archive.reading import positions
from ibkr_depth_pipeline.archive.store import ArchiveStore
from ibkr_depth_pipeline.archive.streams import (
    ENTRIES_AT_ONCE,
    ArchiverTiming,
    FiguresPoller,
    Source,
    Streams,
)
from ibkr_depth_pipeline.archive.without_pandas import keep_pandas_out
from ibkr_depth_pipeline.clock import loop_time, unix_ms
from ibkr_depth_pipeline.errors import ArchiveHeld, ArchiveUnavailable, SinkUnavailable
from ibkr_depth_pipeline.logs import RepeatedFailureLog, get_log
from ibkr_depth_pipeline.schema.gaps import Gap
from ibkr_depth_pipeline.schema.keys import StreamId
from ibkr_depth_pipeline.schema.size_units import SizeUnit
from ibkr_depth_pipeline.settings import Settings
from ibkr_depth_pipeline.tasks import signals_caught

PRUNE_SECS, PRUNED_SECS = 3_600.0, 86_400.0
"""Between two searches for dates past the retention, and after one that deleted some: one date a day is due."""
DRAIN_SECS = 4.0
"""How long the last files may take at the end."""
_FEW = (INTERVALS, ALERTS)
"""Trees of streams that have few entries."""
_COUNTS = {BOOKS: "snapshots", INTERVALS: "intervals", ROWS: "rows", ALERTS: "alerts"}
"""The counts of ArchiveSummary, by tree."""
_CONVERT_HINT = "some dates are in folders of before, parts/ and days/: make books of them: ibkr_depth_archive convert"
_PRUNE_HINT = "more dates are past ARCHIVE_RETENTION_DAYS than one run deletes; if no clock was wrong: prune --most N"


@dataclass(slots=True)
class ArchiveSummary:
    """Counts of one run. `drained` states that everything read is in files."""

    snapshots: dict[str, int] = field(default_factory=dict)
    intervals: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    alerts: dict[str, int] = field(default_factory=dict)
    files: int = 0
    bytes: int = 0
    gaps: list[Gap] = field(default_factory=list)
    unreadable: dict[str, int] = field(default_factory=dict)
    renumbered: dict[str, int] = field(default_factory=dict)
    pruned_days: int = 0
    drained: bool = True


class Archiver:
    """One archive of one Redis. `run` follows until `stop` is called, or, with `once`, until all there is is kept."""

    def __init__(
        self,
        settings: Settings,
        symbols: Sequence[str] = (),
        *,
        timing: ArchiverTiming | None = None,
        now_ms: Callable[[], int] = unix_ms,
    ) -> None:
        """`symbols` are those to keep, none for all; alerts are kept of all ingests.

        `now_ms` is the clock that retention goes by, in unix ms.
        """
        self._settings = settings
        self._timing = timing or ArchiverTiming()
        self._now_ms = now_ms
        self._only = frozenset(symbols)
        self._store = ArchiveStore(settings.archive_url)
        self._flush_rows = max(1, min(settings.archive_flush_rows, settings.ibkr_stream_maxlen // 4))
        self._trees = tuple(tree for tree in STREAMED if tree != ROWS or settings.archive_rows)
        self._kept: dict[Source, StreamId] = {}  # the newest entry of each stream that is in a file
        self._newest_ms = 0  # of the data that was seen, kept or not: what ages are counted from
        self._buffers: dict[Source, EntryBuffer] = {}
        self._since: dict[Source, float] = {}  # loop time of the oldest buffered entry
        self._intervals_due = 0.0  # loop time
        self._unreadable: dict[Source, int] = {}
        self._units: dict[str, SizeUnit | None] = {}  # as the newest interval of the symbol has them
        self._files = FileQueue(self._store, self._timing.retries, self._stored)
        self._stopping = asyncio.Event()
        self._log = get_log()
        self.summary = ArchiveSummary()

    @property
    def waiting(self) -> tuple[str, ...]:
        """The names of the files that are ready and not in the store yet."""
        return self._files.names

    def stop(self) -> None:
        """Ends `run` soon: what has been read is kept first."""
        self._stopping.set()

    async def run(self, *, once: bool = False) -> ArchiveSummary:
        """Follow and keep. Raises ArchiveUnavailable and SinkUnavailable if one is out of reach at the start.

        It raises ArchiveHeld if another archiver has the archive, then or later.
        """
        streams = Streams(self._settings.redis_target)
        try:
            async with Ownership(self._store, streams, self._settings.ibkr_lease_ttl_secs) as owned:
                self._store.sweep("put")
                await asyncio.to_thread(self._store.check_writable)
                await asyncio.to_thread(finish_replacements, self._store)
                self._kept = await asyncio.to_thread(self._positions)
                await self._raise_fallen(streams)
                trouble = await self._discover(streams)
                if trouble is not None and once:  # it would end without having kept everything there is
                    raise trouble
                symbols = sorted({source.symbol for source in self._buffers if not source.is_of_ingest})
                self._log.info("archive_started", url=self._store.url, symbols=symbols)
                if self._store.has_any_of(PARTS, DAYS):
                    self._log.warning("archive_old_layout", url=self._store.url, hint=_CONVERT_HINT)
                await self._work(streams, owned, once=once)
        finally:
            await streams.close()
        return self.summary

    async def _work(self, streams: Streams, owned: Ownership, *, once: bool) -> None:
        """Follows, stores, scans for symbols and polls the figures at once; an end of one is the end of all."""
        figures = FiguresPoller(streams, self._files.put, self._oldest_ms, self._timing)
        confirm = partial(owned.confirm, self._check_for_others)
        works = self._files.store_files(confirm), self._discover_again_and_again(streams), figures.run()
        beside = [asyncio.ensure_future(work) for work in works]
        for task in beside:
            task.add_done_callback(lambda task: self.stop())
        try:
            await self._follow(streams, once=once)
            await self._end(figures)
            for task in beside:
                if task.done():
                    await task
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    # ---- following

    async def _follow(self, streams: Streams, *, once: bool) -> None:
        loop = asyncio.get_running_loop()
        pruned = pause = 0.0
        failures = RepeatedFailureLog("archive_read_failed", self._timing.remind_secs)
        while not self._stopping.is_set():
            if loop.time() >= pruned:
                pruned = loop.time() + await self._prune()
            try:
                most, troubles = await self._read(streams, everything=once)
                if pause:  # Redis was away: it may have come back with less
                    await self._raise_fallen(streams)
                pause = 0.0
            except SinkUnavailable as error:
                pause = self._timing.retries.longer(pause)
                most, troubles = 0, dict.fromkeys(self._buffers, error)
            symbols = sorted({source.symbol for source in troubles})
            failures.record(next(iter(troubles.values()), None), loop.time(), symbols=symbols)
            self._flush(loop.time())
            at_end = most < ENTRIES_AT_ONCE and not self._files.is_full
            if once and at_end and not troubles:
                return
            if at_end or self._files.is_full:
                await self._wait(pause or self._timing.streams_secs)

    async def _wait(self, seconds: float) -> None:
        """Returns after so long, or once `stop` is called."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except (asyncio.TimeoutError, TimeoutError):
            return

    async def _discover_again_and_again(self, streams: Streams) -> None:
        """Scans for symbols beside the reading: a part of a cluster that is away holds up nothing of the rest."""
        failures = RepeatedFailureLog("archive_discover_failed", self._timing.remind_secs)
        while True:
            await asyncio.sleep(self._timing.discovery_secs)
            try:
                error = await self._discover(streams)
            except SinkUnavailable as away:
                error = away
            failures.record(error, loop_time())

    def _positions(self) -> dict[Source, StreamId]:
        return {
            Source(tree, symbol): position
            for tree in self._trees
            for symbol, position in positions(self._store, tree).items()
        }

    async def _raise_fallen(self, streams: Streams) -> None:
        """Streams that hold less than is kept: their numbers go on behind it, if no recorder has gone on before."""
        read = {source: buffer.position for source, buffer in self._buffers.items() if isinstance(buffer, SymbolBuffer)}
        await raise_if_fallen(streams, self._kept | read, self._now_ms())

    async def _discover(self, streams: Streams) -> SinkUnavailable | None:
        """Take in the streams that are new. Returns why there may be more."""
        sources, trouble = await streams.sources(self._trees)
        for source in sources:
            wanted = not self._only or source.is_of_ingest or source.symbol in self._only
            if source not in self._buffers and wanted:
                try:
                    position = await self._begin(streams, source)
                except SinkUnavailable as error:
                    trouble = error
                    continue
                self._buffers[source] = buffer_of(source, position)
                self._log.info("archive_symbol", symbol=source.symbol, table=source.tree, position=str(position))
        return trouble

    async def _begin(self, streams: Streams, source: Source) -> StreamId:
        """Behind what is kept, and behind what is too old to be kept."""
        kept = self._kept.get(source, NOTHING)
        if self._settings.archive_retention_days:
            newest = await streams.newest(source) or NOTHING
            self._newest_ms = max(self._newest_ms, kept.ts, newest.ts)
        oldest_ms = self._oldest_ms()
        if kept.ts >= oldest_ms:
            return kept
        return max(kept, await streams.before(source, StreamId(oldest_ms, 0)) or NOTHING)

    def _oldest_ms(self) -> int:
        """The time before which nothing is kept, in unix ms."""
        days = self._settings.archive_retention_days
        if not days or not self._newest_ms:
            return 0
        today = day_of(self._now_ms())
        newest = day_of(min(self._newest_ms, self._now_ms()))
        return max(0, first_ms_of(first_date_kept(days, today, newest)))

    async def _read(self, streams: Streams, *, everything: bool) -> tuple[int, dict[Source, SinkUnavailable]]:
        """Take what is new. Returns the most entries that a stream had: if ENTRIES_AT_ONCE, there are more.

        And why some streams could not be read; raises SinkUnavailable if none could. Intervals and alerts are few, and
        read less often unless `everything` is.
        """
        if self._files.is_full or not self._buffers:
            return 0, {}
        now = loop_time()
        with_few = everything or now >= self._intervals_due
        if with_few:
            self._intervals_due = now + self._timing.intervals_secs
        positions = {
            source: buffer.cursor for source, buffer in self._buffers.items() if with_few or source.tree not in _FEW
        }
        found, troubles = await streams.read(positions)
        if positions and len(troubles) == len(positions):
            raise next(iter(troubles.values()))
        await self._note_contracts(streams, found)
        most = 0
        for source, entries in found.items():
            try:
                await self._take(streams, source, entries)
                most = max(most, len(entries))
            except SinkUnavailable as error:  # nothing of it is taken: it will be read again
                troubles[source] = error
        return most, troubles

    async def _note_contracts(self, streams: Streams, sources: Iterable[Source]) -> None:
        """Read the contracts of snapshots that were read: they are stored before these."""
        buffers = ((source.symbol, self._buffers[source]) for source in sources)
        histories = {symbol: buffer.contracts for symbol, buffer in buffers if isinstance(buffer, SymbolBuffer)}
        for symbol, entries in (await streams.contract_changes({s: h.cursor for s, h in histories.items()})).items():
            histories[symbol].note(entries)

    async def _take(self, streams: Streams, source: Source, entries: Sequence[RawEntry]) -> None:
        buffer = self._buffers[source]
        first = StreamId.of(entries[0][0])
        self._newest_ms = max(self._newest_ms, StreamId.of(entries[-1][0]).ts)
        await self._note_units(streams, source)
        before = None if buffer.follows(first) else await streams.before(source, first)
        for gap in buffer.add(entries, before):
            self._record(gap)
        if isinstance(buffer, SymbolBuffer):
            log_falls(buffer, self.summary.renumbered)
        self._count_unreadable(source, buffer.unreadable)
        if len(buffer):
            self._since.setdefault(source, loop_time())
        if len(buffer) >= self._flush_rows:
            self._freeze(source)

    async def _note_units(self, streams: Streams, source: Source) -> None:
        """Takes them from the interval that goes on when a symbol is first read, and after each one that ends."""
        if not source.is_of_ingest and (source.tree == INTERVALS or source.symbol not in self._units):
            interval = await streams.open_interval(source.symbol)
            known = unit_of(interval) if interval is not None else None
            self._units[source.symbol] = known or self._units.get(source.symbol)

    def _count_unreadable(self, source: Source, count: int) -> None:
        """Entries that are not of the schema are passed over: logged at the first, then each time they have doubled."""
        before = self._unreadable.get(source, 0)
        if count > before:
            self._unreadable[source] = count
            in_all = self.summary.unreadable.get(source.symbol, 0) + count - before
            self.summary.unreadable[source.symbol] = in_all
            if count.bit_length() > before.bit_length():
                fields = {"symbol": source.symbol, "table": source.tree, "unreadable": count}
                self._log.error("archive_entries_passed_over", **fields)

    def _record(self, gap: Gap) -> None:
        self._log.warning("archive_hole", **{"symbol": gap.symbol, **gap_row(gap)})
        self.summary.gaps.append(gap)
        self._files.put(gap_place(gap.symbol, day_of(gap.next_ts), gap.after), gap_bytes([gap_row(gap)]), 0)

    async def _prune(self) -> float:
        """Deletes dates past the retention. Returns in how many seconds to search again."""
        days = self._settings.archive_retention_days
        if not days:
            return PRUNE_SECS
        try:
            pruning = await asyncio.to_thread(prune_expired, self._store, days, day_of(self._now_ms()))
        except ArchiveUnavailable as error:
            self._log.error("archive_prune_failed", error=str(error))
            return PRUNE_SECS
        self.summary.pruned_days += len(pruning.deleted)
        if pruning.deleted:
            self._log.info("archive_pruned", days=[day.isoformat() for day in pruning.deleted])
        if pruning.held:
            self._log.error("archive_prune_limited", held_days=len(pruning.held), hint=_PRUNE_HINT)
        return PRUNED_SECS if pruning.deleted else PRUNE_SECS

    # ---- files

    def _flush(self, now: float) -> None:
        """Make files of what has waited long enough at that loop time."""
        longest = dict.fromkeys(STREAMED, self._settings.archive_flush_secs)
        longest[INTERVALS] = self._timing.intervals_flush_secs
        for source in [source for source, since in self._since.items() if since <= now - longest[source.tree]]:
            self._freeze(source)

    def _freeze(self, source: Source) -> None:
        """Makes a file of its entries, which stays the same however often it has to be stored."""
        self._since.pop(source, None)
        for day, span, table in ((batch.day, batch.span, batch.table) for batch in self._buffers[source].take_all()):
            units = [known] if source.tree == BOOKS and (known := self._units.get(source.symbol)) else []
            content = part_bytes(source.symbol, span, table, TABLES[source.tree], units)
            self._files.put(part_place(source.symbol, day, span, source.tree), content, table.num_rows)

    async def _check_for_others(self) -> None:
        """Raises ArchiveHeld if another archiver has written while the lease was lost."""
        found = await asyncio.to_thread(self._positions)
        if any(newest > self._kept.get(source, NOTHING) for source, newest in found.items()):
            raise ArchiveHeld(f"{self._store.url}: another archiver was at work there meanwhile")

    def _stored(self, file: WaitingFile) -> None:
        self.summary.files += 1
        self.summary.bytes += len(file.content)
        symbol, tree = file.place.symbol, file.place.tree
        if (span := file.place.span) is not None:
            self._kept[Source(tree, symbol)] = span.last
            counts: dict[str, int] = getattr(self.summary, _COUNTS[tree])
            counts[symbol] = counts.get(symbol, 0) + file.rows
        self._log.debug("archive_file", name=file.place.name, rows=file.rows, bytes=len(file.content))

    async def _end(self, figures: FiguresPoller) -> None:
        self._flush(float("inf"))
        await figures.end()
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._files.emptied(), DRAIN_SECS)
        self.summary.drained = not len(self._files)
        counts = {"snapshots": sum(self.summary.snapshots.values()), "files": self.summary.files}
        self._log.info("archive_stopped", **counts, drained=self.summary.drained)


# ---- the archiver as a blocking call


@dataclass(frozen=True, slots=True)
class ArchiveOutcome:
    """The summary of a run, and the name of the signal that ended it, if one did."""

    summary: ArchiveSummary
    interrupted_by: str | None


def run_archiver(
    settings: Settings,
    symbols: Sequence[str] = (),
    *,
    once: bool = False,
    duration: float | None = None,
    now_ms: Callable[[], int] = unix_ms,
) -> ArchiveOutcome:
    """Follow and keep the streams until SIGINT, SIGTERM, the end of `duration` seconds or, with `once`, of the streams.

    Raises ArchiveUnavailable, SinkUnavailable and ConfigurationError.
    """
    keep_pandas_out()
    caught: list[str] = []

    async def main() -> ArchiveSummary:
        archiver = Archiver(settings, symbols, now_ms=now_ms)

        def on_signal(name: str) -> None:
            get_log().info("signal", name=name)
            caught.append(name)
            archiver.stop()

        if duration is not None:
            asyncio.get_running_loop().call_later(duration, archiver.stop)
        with signals_caught(on_signal):
            return await archiver.run(once=once)

    return ArchiveOutcome(asyncio.run(main()), caught[0] if caught else None)
